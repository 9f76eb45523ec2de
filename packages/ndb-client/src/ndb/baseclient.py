"""The base of every asyncio client: a channel that is opened and closed, and requests on it."""

import math
import ssl as tls
from typing import Self, TypeVar

from .channel import Channel
from .core import Request
from .errors import InvalidState
from .policy import DEFAULT_POLICY, ConnectionPolicy
from .servers import Credentials, Uris, parse_servers

T = TypeVar("T")


class BaseClient:
    """A client with one connection to a server. It reconnects when the connection is lost.

    Any number of coroutines of one event loop may use it at the same time: their requests are
    pipelined. Cancelling one request does not affect the others. Another event loop, thread or
    process must open its own client.

    Args:
        uri: the default URI for `open`: ``ws://HOST:PORT/``, ``wss://…`` for TLS, or
            ``ws+unix:///PATH`` for a Unix socket. If there are several, the client uses the first
            that answers, and after a lost connection the next that answers. A name and a secret
            in the URI (``ws://NAME:SECRET@HOST:PORT/``) are sent like `credentials`.
        timeout: the default timeout of a request, in seconds; None = that of the policy.
            `math.inf` means no limit.
        credentials: a tuple of a name and its secret, sent as HTTP Basic; or a token as str, sent
            as Bearer.
        ssl: the TLS context, with trusted CAs and a client certificate if needed; by default the
            client trusts the CAs of the system.
        policy: the timeouts, and what to do when the connection is lost.
    """

    def __init__(
        self,
        uri: Uris | None = None,
        *,
        timeout: float | None = None,
        credentials: Credentials | None = None,
        ssl: tls.SSLContext | None = None,
        policy: ConnectionPolicy = DEFAULT_POLICY,
    ) -> None:
        self.uri = uri
        self.timeout = _seconds(timeout)
        self._credentials = credentials
        self._ssl = ssl
        self._policy = policy
        self._channel: Channel | None = None
        self._opening = False

    async def open(self, uri: Uris | None = None, *, timeout: float | None = None) -> bool:
        """Connect to a server. Each URI is tried once; a failure is final.

        Args:
            uri: one URI or several, as the client takes; by default the client's.
            timeout: the most that this may take, in seconds, shared out equally among several URIs;
                by default the client's, or what the policy has as `connect_timeout` for each.

        Returns:
            True. What fails raises.

        Raises:
            ConnectError: no connection could be made; says what failed.
            InvalidState: the client is open already. It is while it reconnects, too. It is not
                where the event loop in which it was opened has ended, or in a forked process.
            ValueError: `uri` is not the URI of a WebSocket server, or the credentials are none.
        """
        try:
            servers = parse_servers(self.uri if uri is None else uri, self._credentials, self._ssl)
        except (TypeError, ValueError) as error:
            # Without its frames, for they hold the credentials.
            raise error.with_traceback(None) from None
        if self._opening or (self._channel is not None and self._channel.is_open):
            raise InvalidState("the client is already open; close() it first")
        limit = self.timeout if self.timeout is not None else self._policy.request_timeout
        channel = Channel(servers, self._policy, limit)
        self._opening = True
        try:
            await channel.open(_seconds(timeout) if timeout is not None else self.timeout)
        finally:
            self._opening = False
        self._channel = channel
        if uri is not None:
            self.uri = uri
        return True

    async def close(self) -> None:
        """Close the connection if there is one, and stop reconnecting.

        Replies that come before the server closes it too are delivered; every other request that
        waits raises `ConnectionLost`. The client may be opened again.

        Raises:
            InvalidState: it was opened in another event loop, which goes on. Close it there.
        """
        channel, self._channel = self._channel, None
        if channel is not None:
            try:
                await channel.close()
            except InvalidState:
                self._channel = channel
                raise

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        # Absent if the constructor was never run.
        channel: Channel | None = getattr(self, "_channel", None)
        if channel is not None:
            channel.abandon()

    async def _run(self, request: Request[T], timeout: float | None) -> T:
        request.message = request.encode()
        channel = self._channel
        if channel is None:
            raise InvalidState("the client is not open; open() it first")
        if timeout is None:
            result: T = await channel.ask(request)
        else:
            result = await channel.ask_within(request, _seconds(timeout))
        return result


N = TypeVar("N", float, float | None)


def _seconds(timeout: N) -> N:
    if timeout is not None and (not isinstance(timeout, int | float) or math.isnan(timeout)):
        raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
    return timeout
