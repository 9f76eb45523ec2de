"""The connection: a WebSocket client as an `asyncio.Protocol`.

`websockets.client.ClientProtocol` is the authority on the protocol: it does the opening handshake,
control frames, fragments, closing and every frame that is out of the ordinary. In front of it is a
short path for what nearly every frame is: a reply, whole, in one text frame.

ClientProtocol is fed the handshake line by line and then one frame at a time. Given a whole read
at once it would run past messages that stand before a close frame, and past what is ours to read.
"""

import asyncio
import contextlib
import logging
import ssl
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.uri import WebSocketURI, parse_uri

from .core import Pipeline
from .errors import ConnectError, ConnectionLost, RequestTimeout
from .frames import FINAL_TEXT, MASKED, frame_bounds, mask_keys, text_frame

CLOSE_TIMEOUT = 5.0
"""How long the server may take to end the connection after a close frame, in seconds."""

_WRITE_COUNT = 16
"""Requests of one turn of the event loop leave in one write, but no more than so many at once: the
server answers the first while the last are being made, and one client gets half as much again."""

_WRITE_SIZE = 256 * 1024
"""Requests are joined into writes of about this many bytes, with a look at back-pressure after."""

# What websockets logs at DEBUG are frames and headers, and these carry tokens.
_websocket_logger = logging.getLogger("ndb.websocket")
_websocket_logger.setLevel(logging.INFO)


async def connect(uri: str, timeout: float | None) -> "Connection":
    """Return an open connection to the server at `uri`.

    Args:
        uri: ``ws://HOST:PORT/``, or ``wss://…`` for TLS.
        timeout: the most that all of it may take, in seconds; None = no limit.

    Raises:
        ValueError: `uri` is not the URI of a WebSocket server.
        ConnectError: no connection could be made; says what failed.
    """
    try:
        address = parse_uri(uri)
    except InvalidURI as error:
        # Not the error itself: it repeats the URI, which may hold a password.
        raise ValueError(f"not a WebSocket URI: {error.msg}; use ws://HOST:PORT/") from None
    where = f"can't connect to {address.host}:{address.port}"
    connection = Connection(address)
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=ssl.create_default_context() if address.secure else None,
            )
            try:
                await connection.opened
            finally:
                if not connection.is_open:
                    connection.abort()
    except (OSError, UnicodeError) as error:
        reason = f"no answer within {timeout:g} s" if limit.expired() else error
        raise ConnectError(f"{where}: {reason}") from error
    if connection.ended is not None:
        raise ConnectError(f"{where}: {connection.ended}")
    return connection


class Connection(asyncio.Protocol):
    """One connection to a server, from its opening handshake to its end.

    Attributes:
        opened: done when the opening handshake is, whether it succeeded or not.
        ended: why no requests can be made any more; None while they can.
    """

    def __init__(self, address: WebSocketURI) -> None:
        self._loop = asyncio.get_running_loop()
        # A reply is as large as what was stored: no limit.
        self._websocket = ClientProtocol(address, max_size=None, logger=_websocket_logger)
        self._transport: asyncio.Transport  # From `connection_made` on.
        self._pipeline: Pipeline[asyncio.Future[str]] = Pipeline()
        self._mask_keys = mask_keys()
        # Bytes that could not be processed yet, and how many there must be to go on.
        self._unread = bytearray()
        self._needed = 0
        self._fragments: list[bytes] = []
        self._flush_is_due = False
        self._paused = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.ended: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return (
            self._websocket.state is State.OPEN
            and self.ended is None
            and not self._loop.is_closed()
        )

    async def ask(self, message: bytes, timeout: float | None) -> str:
        """Send a request and return the text of its reply.

        Raises:
            ConnectionLost: the connection has ended, or ended before the reply came.
            RequestTimeout: the reply did not come within `timeout` seconds.
        """
        if self.ended is not None:
            raise ConnectionLost(self.ended, maybe_executed=False)
        waiter: asyncio.Future[str] = self._loop.create_future()
        self._pipeline.add(message, waiter)
        if self._pipeline.unsent >= _WRITE_COUNT:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        if timeout is None:
            return await waiter
        timer = self._loop.call_later(timeout, self._expire, waiter, timeout)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close the connection (RFC 6455, section 7.1.2).

        Requests made before are sent, and replies that come before the server's close frame are
        delivered. The server has `CLOSE_TIMEOUT` to end the connection; then this side does.
        """
        if self._loop.is_closed():
            return
        try:
            if self.ended is None:
                self._flush()
                self.ended = "the client was closed"
                self._websocket.send_close(CloseCode.NORMAL_CLOSURE)
                self._write_control()
            await asyncio.shield(self._closed)
        finally:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        # A transport that closed with something still to write can't be aborted afterwards.
        if not self._closed.done():
            self._transport.abort()

    def abandon(self) -> None:
        """End the connection when nobody can wait for it any more; from any thread."""
        with contextlib.suppress(RuntimeError):  # The loop is closed, and the connection with it.
            self._loop.call_soon_threadsafe(self.abort)

    def fail(self, code: CloseCode, reason: str) -> None:
        """Fail the connection because of what the server sent (RFC 6455, section 7.1.7)."""
        self._websocket.fail(code, reason)
        self._write_control()
        self._finish(f"the server broke the protocol: {reason}")

    def _flush(self) -> None:
        self._flush_is_due = False
        while (
            self.ended is None
            and not self._paused
            and (messages := self._pipeline.take(_WRITE_SIZE))
        ):
            self._transport.write(b"".join(map(text_frame, messages, self._mask_keys)))

    def _expire(self, waiter: asyncio.Future[str], timeout: float) -> None:
        if not waiter.done():
            sent = self._pipeline.is_sent(waiter)
            waiter.set_exception(RequestTimeout(timeout, maybe_executed=sent))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._websocket.send_request(self._websocket.connect())
        self._write_control()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        # Most replies come whole in one read. Of a large one, nothing is copied until it is whole.
        unread = self._unread
        if unread:
            unread += data
            if len(unread) < self._needed:
                return
            data = bytes(unread)
            unread.clear()
        unread += memoryview(data)[self._take(data) :]

    def _take(self, data: bytes) -> int:
        """Process the frames at the beginning of `data`; return how many bytes they have."""
        self._needed = start = 0
        while start < len(data):
            if self._websocket.state is State.CONNECTING:
                # What follows the last line of the handshake are frames.
                stop = data.find(b"\n", start) + 1 or len(data)
                self._feed(data[start:stop])
            else:
                bounds = frame_bounds(data, start)
                if bounds is None:
                    break
                payload, stop = bounds
                if stop > len(data):
                    self._needed = stop - start
                    break
                if data[start] == FINAL_TEXT and data[start + 1] < MASKED and not self._fragments:
                    self._answer(data[payload:stop])
                else:
                    self._feed(data[start:stop])
            start = stop
        return start

    def eof_received(self) -> None:
        self._websocket.receive_eof()
        self._take_stock()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._finish(f"the connection broke: {exc}")
        self._websocket.receive_eof()
        self._finish(self._why() or "the connection was aborted")
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._closed.set_result(None)

    # What the server sent.

    def _feed(self, data: bytes) -> None:
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
        self._take_stock()

    def _take_stock(self) -> None:
        """Do what ClientProtocol asks for after it was fed."""
        self._write_control()
        if reason := self._why():
            self._finish(reason)
        elif self._websocket.state is State.OPEN and not self.opened.done():
            self.opened.set_result(None)

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self.fail(CloseCode.UNSUPPORTED_DATA, "a reply is a text message, not a binary one")
        elif frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._answer(message)

    def _answer(self, message: bytes) -> None:
        try:
            text = message.decode()
        except UnicodeDecodeError as error:
            self.fail(CloseCode.INVALID_DATA, f"a reply is not UTF-8: {error.reason}")
            return
        waiter = self._pipeline.answered()
        if waiter is None:
            self.fail(CloseCode.PROTOCOL_ERROR, "a reply came that answers no request")
        elif not waiter.done():
            waiter.set_result(text)

    def _write_control(self) -> None:
        """Write what ClientProtocol has to send, and see to it that a closing connection ends."""
        transport, websocket = self._transport, self._websocket
        for data in websocket.data_to_send():
            if data:
                transport.write(data)
            else:
                transport.close()
        if websocket.close_expected() and self._close_timer is None:
            self._close_timer = self._loop.call_later(CLOSE_TIMEOUT, transport.abort)

    def _why(self) -> str | None:
        """Return why nothing more is to be read, if so."""
        websocket = self._websocket
        if isinstance(websocket.handshake_exc, InvalidStatus):
            response = websocket.handshake_exc.response
            status = f"{response.status_code} {response.reason_phrase}"
            return f"the server answered the WebSocket handshake with HTTP {status}"
        if websocket.handshake_exc is not None:
            return f"the WebSocket handshake failed: {websocket.handshake_exc}"
        if websocket.close_rcvd is not None:
            return f"the server closed the connection: {websocket.close_rcvd}"
        if isinstance(websocket.parser_exc, EOFError):
            return "the server ended the connection without a close frame"
        if websocket.parser_exc is not None:
            return f"the server broke the protocol: {websocket.parser_exc}"
        return None

    def _finish(self, reason: str) -> None:
        """Tell everyone who waits that nothing more will come."""
        self.ended = self.ended or reason
        if not self.opened.done():
            self.opened.set_result(None)
        for maybe_executed, waiters in zip((True, False), self._pipeline.abandon(), strict=True):
            for waiter in waiters:
                waiter.set_exception(ConnectionLost(self.ended, maybe_executed=maybe_executed))
