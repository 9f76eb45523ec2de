"""The connection: a WebSocket client as an `asyncio.Protocol`.

`websockets.client.ClientProtocol` is the authority on the protocol: it does the opening handshake,
control frames, fragments, closing and every frame that is out of the ordinary. In front of it is a
short path for what nearly every frame is: a reply, whole, in one text frame.

ClientProtocol is fed the handshake line by line and then one frame at a time. Given a whole read
at once it would run past messages that stand before a close frame, and past what is ours to read.
"""

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable
from typing import cast

from aiohappyeyeballs import start_connection
from ndb_protocol import DEFAULT_PORT
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from .core import Capabilities, OutOfStep, Pipeline
from .errors import ConnectError, NdbException
from .frames import FINAL_TEXT, MASKED, frame_bounds, mask_keys, text_frame
from .greeting import GREETING, read_greeting
from .handshakes import no_handshake, reason_of, refusal_of
from .policy import ConnectionPolicy, Keepalive, Verdict
from .servers import Server

CLOSE_TIMEOUT = 5.0
"""How long the server may take to end the connection after a close frame, in seconds."""

_NO_PORT = f"the URI has no port; the default port of a server is {DEFAULT_PORT}"

_NEXT_ADDRESS = 0.25
"""Seconds until the next address of a host is tried beside those that have not answered yet: the
Connection Attempt Delay of RFC 8305, section 5."""

_WRITE_COUNT = 16
"""Requests of one turn of the event loop leave in one write, but no more than so many at once: the
server answers the first while the last are being made, and one client gets half as much again."""

_WRITE_SIZE = 256 * 1024
"""Requests are joined into writes of about this many bytes, with a look at back-pressure after."""

_READ_SIZE = 64 * 1024

_LARGE = 2**16
"""A frame that is larger may take its time: while more of it comes, the server is alive. Of any
other the whole has to come: its length may be wrong, and it never will."""

_ABSURD = 2**40
"""A frame of so many bytes can't be meant: its length is wrong."""

# What websockets logs at DEBUG are frames and headers, and these carry tokens.
_websocket_logger = logging.getLogger("ndb.websocket")
_websocket_logger.setLevel(logging.INFO)


async def connect(
    server: Server, make: Callable[[], "Connection"], timeout: float | None
) -> "Connection":
    """Return an open connection to `server`.

    The name of the server is looked up each time.

    Args:
        server: where to.
        make: makes the connection.
        timeout: the most that all of it may take, in seconds; None = no limit.

    Raises:
        ConnectError: no connection could be made; says what failed.
    """
    connection = make()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await _begin(server, connection)
            try:
                await connection.opened
            except BaseException:  # Nobody else knows of it, whatever ends the wait.
                connection.abort()
                raise
    except (OSError, UnicodeError, RuntimeError) as error:
        # RuntimeError is uvloop's word for some addresses, and asyncio's where no thread can be
        # started to look up the name.
        reason = f"no answer within {timeout:g} s" if limit.expired() else reason_of(error, server)
        raise _refused(server, reason) from error
    if connection.ended is not None:
        connection.abort()
        raise _refused(server, connection.ended, connection.status)
    return connection


def _refused(server: Server, reason: str, status: int | None = None) -> ConnectError:
    hint = "" if server.names_port else f"; {_NO_PORT}"
    return ConnectError(f"can't connect to {server}: {reason}{hint}", status)


async def _begin(server: Server, connection: "Connection") -> None:
    """Make the TCP connection, and the TLS connection on it.

    Raises:
        OSError, UnicodeError, RuntimeError: it can't be made.
    """
    loop = asyncio.get_running_loop()
    if server.path is not None:
        await loop.create_unix_connection(lambda: connection, server.path)
        return
    host, port = server.address.host, server.address.port
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # uvloop's `create_connection` tries one address after the other, each for minutes.
    connected = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS)
    if not server.address.secure:
        await loop.create_connection(lambda: connection, sock=connected)
        return
    context = server.ssl or ssl.create_default_context()
    await loop.create_connection(
        lambda: connection, sock=connected, ssl=context, server_hostname=host
    )


class Connection(asyncio.Protocol, asyncio.BufferedProtocol):
    """One connection to a server, from its opening handshake to its end.

    Behind the handshake it asks what the server can do. Other requests are sent once it is told to
    `start`.

    It is both kinds of protocol, and each event loop takes the one that it is the faster with. The
    buffer that asyncio makes for each read of a `Protocol` is mapped and unmapped each time; uvloop
    has one buffer of its own.

    Args:
        server: where to.
        pipeline: the requests.
        policy: for how long the server may be silent.
        lost: is called when no replies can come any more, if `start` was.

    Attributes:
        opened: done when requests can be made, or it is certain that they can't.
        capabilities: what the server can do; as little as can be until it has told.
        ended: why no requests can be made any more; None while they can.
        was_of_use: the server sent a whole frame beside the one that ended the connection.
    """

    def __init__(
        self,
        server: Server,
        pipeline: Pipeline,
        policy: ConnectionPolicy,
        lost: Callable[["Connection"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        # A reply is as large as what was stored: no limit.
        self._websocket = ClientProtocol(server.address, max_size=None, logger=_websocket_logger)
        self._transport: asyncio.Transport  # From `connection_made` on.
        self._pipeline = pipeline
        self._policy = policy
        self._lost = lost
        self._mask_keys = mask_keys()
        self._buffer = memoryview(bytearray(_READ_SIZE))
        # Bytes that could not be processed yet, and how many there must be to go on.
        self._unread = bytearray()
        # Of its answer to the opening handshake.
        self._first_bytes = b""
        self._needed = 0
        self._fragments: list[bytes] = []
        self._reading = True
        self._started = False
        self._flush_is_due = False
        self._paused = False
        self._keepalive = Keepalive(policy)
        self._heard = False
        # For the next look at whether the server lives, and then for it to end the connection.
        self._timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # What takes the next reply.
        self._has_greeted = False
        self._deliver: Callable[[str], None] = self._greeted
        self.capabilities = Capabilities(pipelining=False)
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.ended: str | None = None
        self.was_of_use = False

    @property
    def is_closed(self) -> bool:
        """Whether the TCP connection has ended."""
        return self._closed.done()

    @property
    def status(self) -> int | None:
        """The HTTP status with which the server refused the opening handshake, if it did."""
        refusal = self._websocket.handshake_exc
        return refusal.response.status_code if isinstance(refusal, InvalidStatus) else None

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that the server sent, if it did."""
        return None if self._websocket.close_rcvd is None else self._websocket.close_rcvd.code

    def start(self) -> None:
        """Send what there is to send, and watch over the connection from now on."""
        self._started = True
        self._heard = False
        self._pipeline.connected(self.capabilities)
        self._watch()
        self._flush()

    def wake(self, unsent: int) -> None:
        """See to it that requests are sent.

        Args:
            unsent: how many there are.
        """
        if unsent >= _WRITE_COUNT:
            self._flush()
        else:
            self._flush_soon()

    async def close(self) -> None:
        """Close the connection (RFC 6455, section 7.1.2).

        Requests made before are sent, as far as the server is known to answer them, and replies
        that come before its close frame are delivered. The server has `CLOSE_TIMEOUT` to end the
        connection; then this side does.
        """
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
        if self._timer is not None:
            self._timer.cancel()
        # A transport that closed with something still to write can't be aborted afterwards.
        if not self._closed.done():
            self._transport.abort()

    def give_up(self, reason: str) -> None:
        """End the connection because nothing more is to be had of it."""
        self._finish(reason)

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        while (
            self.ended is None
            and not self._paused
            and (messages := self._pipeline.take(_WRITE_SIZE))
        ):
            self._transport.write(b"".join(map(text_frame, messages, self._mask_keys)))

    def _watch(self) -> None:
        if (delay := self._keepalive.delay) != math.inf:
            self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        heard, self._heard = self._heard, False
        self.was_of_use = self.was_of_use or heard
        verdict = self._keepalive.look(heard)
        if verdict is Verdict.DEAD:
            silence = self._policy.ping_timeout
            self._finish(f"the server did not answer a ping within {silence:g} s")
            return
        if verdict is Verdict.PING:
            self._websocket.send_ping(b"")
            self._write_control()
        self._watch()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._websocket.connect()
        if self._server.authorization is not None:
            request.headers["Authorization"] = self._server.authorization
        self._websocket.send_request(request)
        self._write_control()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        # Most replies come whole in one read. Of a large one, nothing is copied until it is whole.
        unread = self._unread
        if unread:
            unread += data
            if len(unread) < self._needed:
                if self._needed > _LARGE:
                    self._heard = True
                return
            data = bytes(unread)
            unread.clear()
        taken = self._take(data)
        if taken or self._needed > _LARGE:
            self._heard = True
        unread += memoryview(data)[taken:]

    def _take(self, data: bytes) -> int:
        """Process the frames at the beginning of `data`; return how many bytes they have."""
        self._needed = start = 0
        size = len(data)
        if self._websocket.state is State.CONNECTING:
            self._first_bytes = self._first_bytes or data[:2]
        while self._reading and start < size and self._websocket.state is State.CONNECTING:
            # What follows the last line of the handshake are frames.
            stop = data.find(b"\n", start) + 1 or size
            self._feed(data[start:stop])
            start = stop
        while self._reading and start < size:
            try:
                bounds = frame_bounds(data, start)
            except ValueError as error:
                self._fail(CloseCode.PROTOCOL_ERROR, str(error))
                break
            if bounds is None:
                break
            payload, stop = bounds
            if stop > size:
                self._needed = stop - start
                if self._needed > _ABSURD:
                    self._fail(CloseCode.MESSAGE_TOO_BIG, f"a frame of {self._needed} bytes")
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
        if self._timer is not None:
            self._timer.cancel()
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
        elif self._websocket.state is State.OPEN and not self._has_greeted:
            self._has_greeted = True
            self._transport.write(text_frame(GREETING, next(self._mask_keys)))

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._fail(
                CloseCode.UNSUPPORTED_DATA, "a reply must be a text message, not a binary message"
            )
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
            self._fail(CloseCode.INVALID_DATA, f"a reply is not UTF-8: {error.reason}")
            return
        try:
            self._deliver(text)
        except OutOfStep as error:
            self._fail(CloseCode.PROTOCOL_ERROR, str(error))

    def _greeted(self, reply: str) -> None:
        try:
            self.capabilities = read_greeting(reply)
        except NdbException as error:
            self._fail(CloseCode.PROTOCOL_ERROR, str(error))
            return
        pipelining = self.capabilities.pipelining
        self._deliver = self._pipeline.answer if pipelining else self._answer_and_go_on
        if not self.opened.done():
            self.opened.set_result(None)

    def _answer_and_go_on(self, reply: str) -> None:
        self._pipeline.answer(reply)
        # Behind what was read together: what is there already is no reply to the next request.
        self._flush_soon()

    def _write_control(self) -> None:
        """Write what ClientProtocol has to send."""
        transport, websocket = self._transport, self._websocket
        for data in websocket.data_to_send():
            if data:
                transport.write(data)
            else:
                # Not at once: TLS would read on first, and what that makes of the connection may
                # be its end, which both event loops log with a traceback.
                self._loop.call_soon(transport.close)
        if websocket.close_expected():
            self._leave()

    def _leave(self) -> None:
        """See to it that the connection ends."""
        if not self._leaving:
            self._leaving = True
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Fail the connection because of what the server sent (RFC 6455, section 7.1.7)."""
        if self._reading:
            # A close frame has room for 123 bytes of it (RFC 6455, section 5.5).
            self._websocket.fail(code, reason.encode()[:123].decode(errors="ignore"))
            self._write_control()
            self._finish(f"the server violated the protocol: {reason}")

    def _why(self) -> str | None:
        """Return why nothing more is to be read, if so."""
        websocket = self._websocket
        if isinstance(websocket.handshake_exc, InvalidStatus):
            return refusal_of(websocket.handshake_exc.response, self._server)
        if websocket.handshake_exc is not None:
            return no_handshake(websocket.handshake_exc, self._first_bytes, self._server)
        if websocket.close_rcvd is not None:
            return f"the server closed the connection: {websocket.close_rcvd}"
        if isinstance(websocket.parser_exc, EOFError):
            return "the server ended the connection without a close frame"
        if websocket.parser_exc is not None:
            return f"the server violated the protocol: {websocket.parser_exc}"
        return None

    def _finish(self, reason: str) -> None:
        """Tell whoever it concerns that nothing more will come."""
        if not self._reading:
            return
        self._reading = False
        self.ended = self.ended or reason
        if self._websocket.close_rcvd is not None:
            self._leave()
        else:
            # Not even for the closing handshake: what is on its way to a server that has not closed
            # would be executed, and that after it was sent again on another connection.
            self.abort()
        if not self.opened.done():
            self.opened.set_result(None)
        if self._started:
            self.was_of_use = self.was_of_use or self._heard
            self._lost(self)
