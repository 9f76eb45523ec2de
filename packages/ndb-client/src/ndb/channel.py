"""The channel: it stays the same while connections come and go.

It keeps the requests, reconnects after a lost connection, and ensures that no request waits for
ever. `core` decides which requests are sent again. `policy` has the timeouts.
"""

import asyncio
import contextlib
import math
import os
from collections.abc import Sequence
from http import HTTPStatus
from secrets import SystemRandom
from time import monotonic
from typing import Any

from websockets.frames import CloseCode

from .connection import Connection, connect
from .core import Pipeline, Request, expire, logger
from .errors import ConnectError, ConnectionLost, InvalidState
from .policy import Backoff, ConnectionPolicy, limit
from .servers import Server

_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
"""Answers to the opening handshake that asking again doesn't change."""

_CLOSED = "the client was closed"


class Channel:
    """Requests and their replies, over one connection after the other.

    Args:
        servers: where to connect to, in turn.
        policy: how long to wait for what.
        timeout: the most that a request may take, in seconds, where it is not told.

    Attributes:
        ended: why no requests can be made any more; None while they can.
    """

    def __init__(self, servers: Sequence[Server], policy: ConnectionPolicy, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._servers = list(servers)
        self._policy = policy
        self._timeout = timeout
        self._pipeline = Pipeline()
        self._backoff = Backoff(policy, SystemRandom().random)
        self._connection: Connection | None = None
        # Also those that were lost and whose servers have not ended them yet.
        self._connections: list[Connection] = []
        self._reconnecting: asyncio.Task[None] | None = None
        # Why there is no connection.
        self._trouble: str | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self.ended: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, or one is being made again."""
        return not self._is_left_behind and (self._connection is not None or self._is_reconnecting)

    @property
    def _is_reconnecting(self) -> bool:
        # Who cancels every task there is ends this one too: the next request starts over.
        return self._reconnecting is not None and not self._reconnecting.done()

    @property
    def _is_left_behind(self) -> bool:
        """Whether nothing can be done with it: its event loop has ended, or a fork was made."""
        return self._loop.is_closed() or self._pid != os.getpid()

    def _check_here(self) -> None:
        """See to it that this is the event loop, the thread and the process it was made in.

        Raises:
            InvalidState: it is not.
        """
        try:
            if asyncio.get_running_loop() is self._loop:
                return
        except RuntimeError:  # There is none: even the same one has to be told that it was forked.
            pass
        raise InvalidState(self._why_not_here())

    def _why_not_here(self) -> str:
        if self._pid != os.getpid():
            return (
                "the client was opened in another process, before a fork; "
                "open() a client in this process"
            )
        if self._loop.is_closed():
            return (
                "the event loop in which the client was opened has ended; "
                "open() the client in this loop"
            )
        return (
            "the client was opened in another event loop, or thread; use it there "
            "(asyncio.run_coroutine_threadsafe), or open another client here"
        )

    async def open(self, timeout: float | None) -> None:
        """Connect to the first server that answers.

        Args:
            timeout: the most that this may take, in seconds, shared out equally among the servers;
                None = as the policy says.

        Raises:
            ConnectError: no connection could be made; says what failed.
        """
        each = self._policy.connect_timeout if timeout is None else timeout / len(self._servers)
        await self._connect(list(self._servers), each)

    def ask(self, request: Request[Any]) -> asyncio.Future[Any]:
        """Send a request; return what will hold its result.

        Raises:
            InvalidState: it was made elsewhere.
            ConnectionLost: the client does not reconnect any more.
        """
        self._check_here()
        if self.ended is not None:
            raise ConnectionLost(self.ended, maybe_executed=False)
        request.waiter = waiter = self._loop.create_future()
        request.deadline = monotonic() + self._timeout
        if self._sweep_timer is None and self._timeout != math.inf:
            self._sweep_timer = self._loop.call_later(self._timeout, self._sweep)
        unsent = self._pipeline.add(request)
        if self._connection is not None:
            self._connection.wake(unsent)
        elif not self._is_reconnecting:
            self._reconnect()
        return waiter

    async def ask_within(self, request: Request[Any], timeout: float) -> Any:
        """Send a request, and return its result if that takes at most `timeout` seconds."""
        waiter = self.ask(request)
        request.deadline = math.inf
        if timeout == math.inf:
            return await waiter
        timer = self._loop.call_later(timeout, self._expire, request, timeout)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close the connection, or end making it again.

        Requests made before are sent, as far as the server is known to answer them, and replies
        that come before its close frame are delivered; all others fail.

        Raises:
            InvalidState: it was made elsewhere, and is still of use there.
        """
        if self._is_left_behind:
            return
        self._check_here()
        self.ended = self.ended or _CLOSED
        try:
            if (reconnecting := self._reconnecting) is not None:
                reconnecting.cancel()
                await asyncio.wait([reconnecting])
            if self._connection is not None:
                await self._connection.close()
        finally:
            self._pipeline.abandon(self.ended)
            self.abort()

    def abort(self) -> None:
        """End everything at once."""
        self.ended = self.ended or _CLOSED
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        for connection in self._connections:
            connection.abort()

    def abandon(self) -> None:
        """End everything when nobody can wait for it any more; from any thread."""
        if self._is_left_behind:
            return
        with contextlib.suppress(RuntimeError):  # The loop is closed, and the connection with it.
            self._loop.call_soon_threadsafe(self.abort)

    # Requests.

    def _expire(self, request: Request[Any], timeout: float) -> None:
        expire(request, timeout, self._trouble)
        self._give_up_if_stuck()

    def _sweep(self) -> None:
        now = monotonic()
        deadline = self._pipeline.sweep(now, self._timeout, self._trouble)
        self._sweep_timer = (
            None if deadline == math.inf else self._loop.call_later(deadline - now, self._sweep)
        )
        self._give_up_if_stuck()

    def _give_up_if_stuck(self) -> None:
        """End a connection on which a reply is overdue and everything else waits for it."""
        if self._connection is not None and self._pipeline.is_stuck:
            self._connection.give_up("a reply did not come in time")

    # Connections.

    async def _connect(self, servers: list[Server], timeout: float) -> None:
        """Connect to the first of `servers` that answers; who will never do so leaves the list."""
        errors: list[ConnectError] = []
        for server in list(servers):

            def make(server: Server = server) -> Connection:
                return Connection(server, self._pipeline, self._policy, self._lost)

            try:
                connection = await connect(server, make, limit(timeout))
            except ConnectError as error:
                errors.append(error)
                if error.status in _REFUSED:
                    servers.remove(server)
            else:
                self._take(connection, server)
                return
        raise ConnectError("; ".join(map(str, errors)), errors[-1].status) from errors[-1]

    def _take(self, connection: Connection, server: Server) -> None:
        # It is the first to be tried when the connection is lost, and then those behind it.
        at = self._servers.index(server)
        self._servers = self._servers[at:] + self._servers[:at]
        self._connections = [
            connection,
            *(other for other in self._connections if not other.is_closed),
        ]
        self._connection = connection
        if self._is_reconnecting:
            logger.info("connected to %s again", server)
        self._trouble = None
        connection.start()

    def _lost(self, connection: Connection) -> None:
        assert connection.ended is not None
        self._connection = None
        if self.ended is None:
            self._trouble = connection.ended
            logger.info("the connection to %s was lost: %s", self._servers[0], self._trouble)
            if self._policy.reconnect_timeout > 0:
                too_big = connection.close_code == CloseCode.MESSAGE_TOO_BIG
                self._pipeline.lost(connection.ended, too_big=too_big)
                if connection.was_of_use:
                    self._backoff.reset()
                self._reconnect()
                return
            self.ended = connection.ended
        self._pipeline.abandon(self.ended)

    def _reconnect(self) -> None:
        self._reconnecting = self._loop.create_task(self._keep_connecting())

    async def _keep_connecting(self) -> None:
        seconds = self._policy.reconnect_timeout
        servers = list(self._servers)
        try:
            async with asyncio.timeout(limit(seconds)):
                while servers:
                    await asyncio.sleep(self._backoff.delay())
                    try:
                        await self._connect(servers, self._policy.connect_timeout)
                    except ConnectError as error:
                        self._trouble = str(error)
                    else:
                        return
        except TimeoutError:
            # The next request starts over.
            reason = f"could not connect for {seconds:g} s: {self._trouble}"
        else:
            reason = self.ended = f"the client does not reconnect any more: {self._trouble}"
        self._pipeline.abandon(reason)
