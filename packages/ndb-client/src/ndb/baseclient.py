"""What every asyncio client is: a connection that is opened and closed, and requests on it."""

import math
from typing import Self, TypeVar

from websockets.frames import CloseCode

from .connection import Connection, connect
from .core import OutOfStep, Request
from .errors import InvalidState

T = TypeVar("T")

OPEN_TIMEOUT = 10.0
"""How long opening may take if the client has no timeout of its own, in seconds."""


class BaseClient:
    """A client of one server, over one connection.

    Any number of coroutines of one event loop may use it at once: their requests are pipelined.
    Cancelling one disturbs no other. It is not for use by several threads.

    Args:
        uri: what to open, where `open` is not told.
        timeout: the most that a request may take, in seconds, where the request is not told;
            None = no limit. `math.inf` as the timeout of one request lifts the client's.
    """

    def __init__(self, uri: str | None = None, *, timeout: float | None = None) -> None:
        self.uri = uri
        self.timeout = timeout
        self._connection: Connection | None = None
        self._opening = False

    async def open(self, uri: str | None = None, *, timeout: float | None = None) -> bool:
        """Connect to a server.

        Args:
            uri: ``ws://HOST:PORT/``, or ``wss://…`` for TLS; by default the client's.
            timeout: the most that this may take, in seconds; by default the client's, or
                `OPEN_TIMEOUT`.

        Returns:
            True. What fails raises.

        Raises:
            ConnectError: no connection could be made; says what failed.
            InvalidState: the client is open already.
            ValueError: `uri` is not the URI of a WebSocket server.
        """
        uri = uri if uri is not None else self.uri
        if not uri:
            raise ValueError("no URI; use ws://HOST:PORT/")
        if self._opening or (self._connection is not None and self._connection.is_open):
            raise InvalidState("the client is open already; close() it first")
        self._opening = True
        try:
            self._connection = await connect(uri, self._limit(timeout, OPEN_TIMEOUT))
        finally:
            self._opening = False
        self.uri = uri
        return True

    async def close(self) -> None:
        """Close the connection, if there is one.

        Replies that come before the server closes it too are delivered; every other request in
        flight raises `ConnectionLost`. The client may be opened again.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        # Absent if the constructor was never run.
        connection: Connection | None = getattr(self, "_connection", None)
        if connection is not None:
            connection.abandon()

    def _limit(self, timeout: float | None, default: float | None = None) -> float | None:
        for limit in (timeout, self.timeout, default):
            if limit is not None:
                if not isinstance(limit, int | float) or math.isnan(limit):
                    raise ValueError(f"timeout must be a number of seconds, not {limit!r}")
                return limit
        return None

    async def _run(self, request: Request[T], timeout: float | None) -> T:
        message = request.encode()
        connection = self._connection
        if connection is None:
            raise InvalidState("the client is not open; open() it first")
        reply = await connection.ask(message, self._limit(timeout))
        try:
            return request.outcome(reply)
        except OutOfStep as error:
            connection.fail(CloseCode.PROTOCOL_ERROR, str(error))
            raise
