"""One end of a WebSocket connection that sees every frame and can send any frame, valid or not.

``websockets`` implements the protocol: it does the handshake, answers pings and close frames, and
detects violations of RFC 6455 by the other end. Data is read only on request, so a test can let an
end stop reading.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Self

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from .conversation import Mismatch
from .lengths import WIDTHS, Lengths
from .scenarios import RawFrame

_READ_SIZE = 2**16
_BUFFER_SIZE = 2**18

_MAXIMA = ("/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem")
"""Files whose last number is how far Linux may let a socket's buffers grow (tcp(7))."""

_ELSEWHERE = 2**26
"""Bytes that another machine's system, which can't be asked, is taken to keep of a connection."""


def most_kept() -> int:
    """Return more bytes than the systems on both ends keep of a connection that nobody reads."""
    kept = _ELSEWHERE
    for path in map(Path, _MAXIMA):
        with contextlib.suppress(OSError):
            kept += int(path.read_text().split()[-1])
    return kept


class Unreachable(Exception):
    """There is no server to check."""


class Refused(Mismatch):
    """The server refused an opening handshake.

    Args:
        status: the HTTP status with which it did.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the server refused the opening handshake with HTTP status {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """A server to check.

    Attributes:
        uri: where it is, and the credentials that it is shown.
        context: how to use TLS; None without it.
    """

    uri: WebSocketURI
    context: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, ca: Path | None = None) -> Self:
        """Return the server at `url`.

        Args:
            url: where it is, perhaps with a name and its secret.
            ca: file of the certificates, as PEM, by which the server's has to be signed; None for
                those that the system trusts.

        Raises:
            Unreachable: that is no URL of a WebSocket server, or no file of certificates. No
                message holds the credentials.
        """
        try:
            uri = parse_uri(url)
        except InvalidURI as error:
            raise Unreachable(f"not a WebSocket URL: {error.msg}; use ws://HOST:PORT/") from None
        except ValueError:
            # It repeats what it can't read, which may be the secret.
            raise Unreachable(
                "not a WebSocket URL: its host, port or credentials are wrong; use "
                "ws://NAME:SECRET@HOST:PORT/, and percent-encode special characters in "
                "credentials (%2F)"
            ) from None
        if not uri.secure and ca is not None:
            raise Unreachable("--ca is given, but the URL is not encrypted; use wss://HOST:PORT/")
        try:
            context = ssl.create_default_context(cafile=ca) if uri.secure else None
        except OSError as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise Unreachable(f"can't use {ca}: {reason or 'not a PEM file'}") from None
        return cls(uri, context)

    def __str__(self) -> str:
        scheme = "ws" if self.context is None else "wss"
        return f"{scheme}://{self.uri.host}:{self.uri.port}{self.uri.path}"

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, before any handshake but that of TLS.

        Raises:
            Unreachable: nobody is there.
        """
        try:
            return await asyncio.open_connection(self.uri.host, self.uri.port, ssl=self.context)
        except OSError as error:
            raise Unreachable(f"can't connect to {self}: {error}") from None


def raw_frame(frame: RawFrame, message_size: int = 0) -> bytes:
    """Return the bytes of a frame that may be wrong.

    Args:
        frame: what it is like.
        message_size: the server's `limits.messageSize`.
    """
    opcode = frame.opcode if isinstance(frame.opcode, int) else _OPCODES[frame.opcode]
    payload = bytes.fromhex(frame.hex) or frame.text.encode()
    if frame.pad is not None:
        payload = payload.ljust(message_size + frame.pad)
    # `Frame` takes no opcode that has no meaning: the first byte is put in afterwards.
    data = Frame(Opcode.TEXT, payload).serialize(mask=frame.masked)
    first = bytes([opcode | frame.fin << 7 | frame.rsv1 << 6])
    if not frame.length:
        return first + data[1:]
    length = bytes.fromhex(frame.length)
    second = bytes([data[1] & 0x80 | _FORMS[len(length)]])
    return first + second + length + data[2 + WIDTHS.get(data[1] & 0x7F, 0) :]


_FORMS = {width: form for form, width in WIDTHS.items()}


_OPCODES = {
    "continuation": Opcode.CONT,
    "text": Opcode.TEXT,
    "binary": Opcode.BINARY,
    "close": Opcode.CLOSE,
    "ping": Opcode.PING,
    "pong": Opcode.PONG,
}


class End:
    """One end of a connection.

    Args:
        protocol: websockets' implementation of this end.
        reader: what the other end sends.
        writer: what it is sent.
    """

    def __init__(
        self, protocol: Protocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._protocol = protocol
        self._reader = reader
        self._writer = writer
        self._messages: deque[str] = deque()
        self._fragments: list[bytes] = []
        self._pongs: deque[bytes] = deque()
        self._at_eof = False
        self._lengths = Lengths()

    @classmethod
    async def connect(cls, target: Target, offer: Sequence[str]) -> Self:
        """Open a connection to a server.

        Raises:
            Unreachable: there is none.
            Refused: it does not let us in.
            Mismatch: what is there does not open a WebSocket connection.
        """
        protocol = ClientProtocol(
            target.uri, subprotocols=[Subprotocol(name) for name in offer] or None, max_size=None
        )
        streams = await target.open()
        end = cls(protocol, *streams)
        end._bound_buffers()
        try:
            protocol.send_request(protocol.connect())
            end._flush()
            while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
                await end._read()
            if isinstance(protocol.handshake_exc, InvalidStatus):
                raise Refused(protocol.handshake_exc.response.status_code)
            if protocol.handshake_exc is not None:
                raise Mismatch(f"the opening handshake failed: {protocol.handshake_exc}")
        except BaseException:  # Nobody else knows of it, whatever ends the wait.
            end.drop()
            raise
        return end

    @classmethod
    async def accept(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        subprotocols: Sequence[str],
        refuse: int | None,
    ) -> Self:
        """Open a client's connection, or refuse it with an HTTP status.

        Raises:
            Mismatch: what the client sends is no opening handshake.
        """
        protocol = ServerProtocol(
            subprotocols=[Subprotocol(name) for name in subprotocols],
            select_subprotocol=lambda _, offered: next(
                (name for name in offered if name in subprotocols), None
            ),
            max_size=None,
        )
        end = cls(protocol, reader, writer)
        try:
            protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        except BaseException:  # As in `connect`.
            end.drop()
            raise
        request = next(iter(protocol.events_received()), None)
        if not isinstance(request, Request):
            end.drop()
            raise Mismatch(f"no opening handshake: {protocol.handshake_exc}")
        protocol.send_response(
            protocol.accept(request) if refuse is None else protocol.reject(refuse, "not now\n")
        )
        end._flush()
        if refuse is not None:
            end.drop()
        return end

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on."""
        return self._protocol.subprotocol

    def _bound_buffers(self) -> None:
        # What the system takes in by itself, an end that does not read has taken.
        socket = self._writer.get_extra_info("socket")
        for option in (SO_RCVBUF, SO_SNDBUF):
            socket.setsockopt(SOL_SOCKET, option, _BUFFER_SIZE)

    async def write(self, data: bytes, piece: int = 0) -> None:
        """Send bytes, in pieces of `piece` bytes."""
        for start in range(0, len(data), piece or len(data) or 1):
            self._writer.write(data[start : start + piece] if piece else data)
            # If the other end is gone, reading tells why.
            with contextlib.suppress(OSError):
                await self._writer.drain()

    @property
    def unsent(self) -> int:
        """How many bytes wait here to be sent."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def is_gone(self) -> bool:
        """Whether the connection was found to be over: nothing can be sent any more."""
        return self._writer.transport.is_closing()

    def _flush(self) -> None:
        # Without waiting: it is little, and the other end may be waiting to be read.
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
            elif self._writer.can_write_eof():
                with contextlib.suppress(OSError):
                    self._writer.write_eof()

    async def _read(self) -> None:
        """Take in what has come, and answer what must be answered.

        Raises:
            Mismatch: the other end breaks RFC 6455.
        """
        try:
            data = await self._reader.read(_READ_SIZE)
        except OSError:
            data = b""
        protocol = self._protocol
        if data:
            self._feed(data)
        else:
            self._at_eof = True
            protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._flush()
        error = protocol.parser_exc
        if error is not None and not isinstance(error, EOFError):
            raise Mismatch(f"the other end broke RFC 6455: {error}")

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        start = 0
        while start < len(data) and protocol.state is State.CONNECTING:
            # What follows the last line of the handshake are frames.
            stop = data.find(b"\n", start) + 1 or len(data)
            protocol.receive_data(data[start:stop])
            start = stop
        frames = data[start:]
        if not frames:
            return
        if reason := self._lengths.violation(frames):
            raise Mismatch(f"the other end broke RFC 6455: {reason}")
        protocol.receive_data(frames)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._pongs.append(bytes(frame.data))
        elif frame.opcode is Opcode.BINARY:
            raise Mismatch("a binary message came")
        elif frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                try:
                    self._messages.append(b"".join(self._fragments).decode())
                except UnicodeDecodeError as error:
                    raise Mismatch(f"a message is not UTF-8: {error}") from None
                self._fragments.clear()

    @property
    def _ending(self) -> str:
        closing = self._protocol.close_rcvd
        if closing is not None:
            return f"the other end closed the connection: {closing}"
        return "the other end ended the connection without a close frame" if self._at_eof else ""

    async def message(self) -> str:
        """Return the next message.

        Raises:
            Mismatch: none comes any more.
        """
        if not await self.has_message():
            raise Mismatch(self._ending)
        return self._messages.popleft()

    async def has_message(self) -> bool:
        """Wait for the next message, which is kept; return whether one came before the end."""
        while not self._messages and not self._ending:
            await self._read()
        return bool(self._messages)

    async def pong(self) -> bytes:
        """Return the payload of the next pong.

        Raises:
            Mismatch: none comes any more.
        """
        while not self._pongs:
            if ending := self._ending:
                raise Mismatch(ending)
            await self._read()
        return self._pongs.popleft()

    async def ended(self) -> None:
        """Wait until the other end closes or ends the connection."""
        while not self._ending:
            await self._read()

    async def closed(self) -> tuple[int, str]:
        """Wait until the other end closes; return its code and reason.

        Raises:
            Mismatch: a message came instead, or the connection ended without a close frame.
        """
        self._nothing_more()
        while not self._ending:
            await self._read()
            self._nothing_more()
        closing = self._protocol.close_rcvd
        if closing is None:
            raise Mismatch(self._ending)
        return int(closing.code), closing.reason

    @property
    def close_code(self) -> int | None:
        """The code with which the other end closed; None if it did not."""
        closing = self._protocol.close_rcvd
        return None if closing is None else int(closing.code)

    async def cut_off(self) -> int:
        """Read until the connection is over; return how many messages came."""
        while not self._at_eof:
            await self._read()
        count = len(self._messages)
        self._messages.clear()
        return count

    def _nothing_more(self) -> None:
        if self._messages:
            raise Mismatch(f"an unexpected message: {self._messages[0][:500]}")

    def send_close(self, code: int) -> None:
        """Send a close frame with a code."""
        self._protocol.send_close(code)
        self._flush()

    async def close(self) -> None:
        """Close the connection, unless it is closed.

        Raises:
            Mismatch: a message came that nobody asked for.
        """
        if self._protocol.state is State.OPEN:
            self.send_close(CloseCode.NORMAL_CLOSURE)
            await self.ended()
        self.drop()
        self._nothing_more()

    def drop(self) -> None:
        """End the connection as it is."""
        self._writer.close()
