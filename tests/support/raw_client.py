"""A client that sees every byte: raw sockets, with frames made and read by `websockets`."""

import fcntl
import json
import os
import socket
import struct
import termios
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from ndb_protocol.conformance.wire import most_kept
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from tests.support.waiting import BOUND

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The key of RFC 6455, section 1.3, and what a server makes of it."""

UPGRADE = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def handshake(subprotocols: str | None = None, start: str = "GET / HTTP/1.1", **more: str) -> bytes:
    """Return an opening handshake; `more` replaces headers, an empty one leaves a header out."""
    headers = UPGRADE | {name.replace("_", "-"): value for name, value in more.items()}
    if subprotocols is not None:
        headers["Sec-WebSocket-Protocol"] = subprotocols
    lines = [start, *(f"{name}: {value}" for name, value in headers.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a frame as a client sends it: masked."""
    return Frame(opcode, data, fin).serialize(mask=True)


def text(message: str | dict[str, Any]) -> bytes:
    """Return a text message; a dict is a request to be encoded."""
    if isinstance(message, dict):
        message = json.dumps(message, ensure_ascii=False)
    return frame(Opcode.TEXT, message.encode())


def close(code: int = 1000, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, Close(code, reason).serialize())


def header(first: int, length: int) -> bytes:
    """Return the header alone of a masked frame that says it has `length` bytes."""
    if length < 126:
        return struct.pack("!BB4x", first, 0x80 | length)
    if length < 65536:
        return struct.pack("!BBH4x", first, 0xFE, length)
    return struct.pack("!BBQ4x", first, 0xFF, length)


class Frames:
    """Splits what a server sends into frames."""

    def __init__(self) -> None:
        self._reader = StreamReader()
        self._parser = self._parse()
        self._found: list[Frame] = []

    def _parse(self) -> Iterator[None]:
        while True:
            frame = yield from Frame.parse(self._reader.read_exact, mask=False)
            self._found.append(frame)

    def feed(self, data: bytes) -> list[Frame]:
        """Take in more bytes; return the frames that are complete now."""
        self._reader.feed_data(data)
        next(self._parser)
        found, self._found = self._found, []
        return found

    @property
    def incomplete(self) -> bytes:
        """What a frame has so far."""
        return bytes(self._reader.buffer)


def split(data: bytes) -> list[Frame]:
    """Return the frames that `data` is; there must be no rest."""
    frames = Frames()
    found = frames.feed(data)
    assert not frames.incomplete
    return found


def said(frame: Frame) -> str | tuple[int, str] | bytes:
    """Return what a frame says: text as str, close as its code and reason, a pong as bytes.

    A ping is its opcode and its payload.
    """
    data = bytes(frame.data)
    assert frame.fin
    if frame.opcode is Opcode.TEXT:
        return data.decode()
    if frame.opcode is Opcode.CLOSE:
        closing = Close.parse(data)
        return int(closing.code), closing.reason
    if frame.opcode is Opcode.PING:
        return int(frame.opcode), data.decode()
    assert frame.opcode is Opcode.PONG
    return data


class Wire:
    """A connection to a server, blocking. It answers pings, as clients do.

    Args:
        port: the server's port, or the path of its Unix socket.
        host: the server's address.
    """

    def __init__(self, port: int | Path, host: str = "127.0.0.1") -> None:
        if isinstance(port, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(BOUND)
            self.socket.connect(str(port))
        else:
            self.socket = socket.create_connection((host, port), timeout=BOUND)
        self._frames = Frames()
        self._received: list[Frame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until_arrived(self) -> None:
        """Wait until the server's side has everything sent, read or not."""
        deadline = time.monotonic() + BOUND
        while time.monotonic() < deadline:
            if fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)) == bytes(4):
                return
            os.sched_yield()
        raise TimeoutError("the server's side takes no more")

    def flood(self, data: bytes, witness: "Wire") -> None:
        """Send `data` again and again, until the server reads no more of it.

        That is when nothing leaves for it while it answers `witness` a hundred times.
        """
        self.socket.setblocking(False)
        sent = quiet = 0
        rest = memoryview(data)
        while quiet < 100:
            try:
                while sent < most_kept():
                    count = self.socket.send(rest)
                    rest = rest[count:] or memoryview(data)
                    sent += count
                    quiet = 0
            except BlockingIOError:
                pass
            assert sent < most_kept(), "the server reads without end"
            assert witness.request("KV_COUNT")["st"] == 1
            quiet += 1
        self.socket.settimeout(BOUND)

    def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers of the answer to the handshake."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, f"the server ended the connection after {data!r}"
            data += byte
        first, *lines = data.decode().split("\r\n")[:-2]
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)

    def upgrade(self, subprotocols: str | None = None) -> dict[str, str]:
        """Open the WebSocket connection; return the headers of the answer."""
        self.send(handshake(subprotocols))
        status, headers = self.head()
        assert status == 101
        assert headers["Sec-WebSocket-Accept"] == ACCEPT
        return headers

    def frame(self) -> Frame:
        """Return the next frame."""
        while not self._received:
            assert self._receive(), "the server ended the connection"
        return self._received.pop(0)

    def _receive(self) -> bool:
        """Wait for more; return whether there is any."""
        data = self.socket.recv(2**18)
        for found in self._frames.feed(data) if data else ():
            if found.opcode is Opcode.PING:
                # A test may take longer than a server lets a client be silent.
                with suppress(OSError):
                    self.send(frame(Opcode.PONG, bytes(found.data)))
            else:
                self._received.append(found)
        return bool(data)

    def said(self) -> str | tuple[int, str] | bytes:
        """Return what the next frame says."""
        return said(self.frame())

    def reply(self) -> dict[str, Any]:
        """Return the next message."""
        message = self.said()
        assert isinstance(message, str), message
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def replies(self, count: int) -> list[dict[str, Any]]:
        return [self.reply() for _ in range(count)]

    def request(self, command: str, **params: Any) -> dict[str, Any]:
        """Send a request and return the body of its reply."""
        self.send(text({command: params}))
        [(name, body)] = self.reply().items()
        assert name == f"{command}_RSP"
        assert isinstance(body, dict)
        return body

    def rest(self) -> list[str | tuple[int, str] | bytes]:
        """Return what the server says until it ends the connection, with a whole frame."""
        while self._receive():
            pass
        assert not self._frames.incomplete
        frames, self._received = self._received, []
        return [said(frame) for frame in frames]

    def reset(self) -> None:
        """End the connection as a client that was killed with data unread."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@contextmanager
def opened(port: int | Path, subprotocols: str | None = None) -> Iterator[Wire]:
    """Yield an open WebSocket connection."""
    with Wire(port) as wire:
        wire.upgrade(subprotocols)
        yield wire


@contextmanager
def all_opened(port: int, count: int) -> Iterator[list[Wire]]:
    """Yield many open WebSocket connections."""
    wires: list[Wire] = []
    try:
        for _ in range(count):
            wires.append(Wire(port))
            # At once: a server waits only so long for a handshake.
            wires[-1].upgrade()
        yield wires
    finally:
        for wire in wires:
            wire.socket.close()


def set_requests(numbers: Iterable[int]) -> bytes:
    """Return a request to store key "n", for each of the numbers."""
    return b"".join(text({"KV_SET": {"keys": {"n": number}}}) for number in numbers)
