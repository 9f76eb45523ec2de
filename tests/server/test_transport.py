"""Connections on real sockets, in the loop of the test, which decides on how their bytes are cut."""

import asyncio
import fcntl
import logging
import socket
import struct
import termios
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ndb_protocol.messages import Reply
from ndb_server.dispatch import NOT_TEXT, Dispatcher
from ndb_server.engine import Engine
from ndb_server.transport import MAX_MESSAGE_SIZE, Connection, Respond, Timeouts, text_frame
from websockets.frames import Frame, Opcode

from tests.e2e.exchanges import ANSWERED, BROKEN, COUNT, COUNTED, COUNTED_ONE, DONE, SET, Exchange, Said
from tests.e2e.wire import BOUND, Frames, close, frame, handshake, header, said, split, text

TIMEOUTS = Timeouts()


class Peer:
    """A client's end of a connection, and the server's `Connection`."""

    def __init__(self, connection: Connection, ours: socket.socket, theirs: socket.socket) -> None:
        self.connection = connection
        self.socket = ours
        self._server_end = theirs
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._received: list[Frame] = []

    async def send(self, *pieces: bytes) -> None:
        """Send `pieces`, each of which the server reads before the next one is sent."""
        for piece in pieces:
            await self._loop.sock_sendall(self.socket, piece)
            await until(self._read)

    def _read(self) -> bool:
        return (
            self._server_end.fileno() < 0
            or fcntl.ioctl(self._server_end, termios.FIONREAD, bytes(4)) == bytes(4)
        )

    async def receive(self) -> bytes:
        async with asyncio.timeout(BOUND):
            return await self._loop.sock_recv(self.socket, 2**18)

    async def rest(self) -> bytes:
        """Return what the server sends until it ends its side."""
        data = b""
        while piece := await self.receive():
            data += piece
        return data

    async def head(self) -> bytes:
        """Return the answer to the handshake, without its date."""
        data = b""
        async with asyncio.timeout(BOUND):
            while not data.endswith(b"\r\n\r\n"):
                data += await self._loop.sock_recv(self.socket, 1)
        return dateless(data)

    async def said(self) -> Said:
        """Return what the next frame says."""
        while not self._received:
            data = await self.receive()
            assert data, "the server ended the connection"
            self._received = self._frames.feed(data)
        return said(self._received.pop(0))

    async def said_until_end(self) -> list[Said]:
        """Return what the server says until it ends its side, with a whole frame."""
        found = self._received + self._frames.feed(await self.rest())
        assert not self._frames.incomplete
        return [said(frame) for frame in found]

    async def end(self) -> None:
        """End the connection, and wait until the server has seen it."""
        self.socket.close()
        async with asyncio.timeout(BOUND):
            await asyncio.shield(self.connection.closed)


def dateless(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"Date: "))


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until `condition` holds."""
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0)


class Clock:
    """The event loop's clock, which stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what was to happen meanwhile happen."""
        self.now += seconds
        # Timers that are due run in the next turn, what they wake in the one after it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


def commands() -> Respond:
    """Return what answers with the commands of an empty engine, KV_KEYS a turn of the loop late."""
    engine = Engine()

    async def keys(params: Any, now: int) -> Reply:
        await asyncio.sleep(0)
        return engine.handlers["KV_KEYS"](params, now)

    dispatcher = Dispatcher({**engine.handlers, "KV_KEYS": keys})
    return lambda message, text_tokens: dispatcher.dispatch(message, 0, text_tokens=text_tokens)


def echo(message: bytes, _: bool) -> bytes:
    return message


@asynccontextmanager
async def connected(
    respond: Respond = echo, connections: set[Connection] | None = None
) -> AsyncIterator[Peer]:
    """Yield the client's end of a TCP connection that has sent nothing yet."""
    listed = set() if connections is None else connections
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    ours, theirs = ends
    _, connection = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: Connection(respond, NOT_TEXT, listed, TIMEOUTS), theirs
    )
    peer = Peer(connection, ours, theirs)
    assert connection in listed
    try:
        yield peer
    finally:
        await peer.end()
    assert connection not in listed


@asynccontextmanager
async def opened(
    respond: Respond = echo, connections: set[Connection] | None = None
) -> AsyncIterator[Peer]:
    """Yield the client's end of a connection that is open."""
    async with connected(respond, connections) as peer:
        await peer.send(handshake())
        assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
        yield peer


# Bytes cut anywhere

Cuts = Callable[[bytes], Iterator[list[bytes]]]


def whole(data: bytes) -> Iterator[list[bytes]]:
    yield [data]


def at_every_position(data: bytes) -> Iterator[list[bytes]]:
    for position in range(1, len(data)):
        yield [data[:position], data[position:]]


def byte_by_byte(data: bytes) -> Iterator[list[bytes]]:
    yield [data[position : position + 1] for position in range(len(data))]


CUTS = pytest.mark.parametrize("cuts", [whole, at_every_position, byte_by_byte])

LATER = text({"KV_KEYS": {}})
LATER_ANSWERED = '{"KV_KEYS_RSP":{"st":1,"keys":["a"]}}'

WAITING = [
    Exchange(
        "requests behind one that takes a thread",
        SET + LATER + COUNT + LATER + COUNT + close(),
        [DONE, LATER_ANSWERED, COUNTED_ONE, LATER_ANSWERED, COUNTED_ONE, (1000, "")],
    ),
    *(
        exchange._replace(
            name=f"a request that takes a thread, then {exchange.name}",
            sent=exchange.sent.replace(SET, SET + LATER, 1),
            received=[DONE, LATER_ANSWERED, *exchange.received[1:]],
        )
        for exchange in BROKEN
        # A ping may be answered before the request that it stands behind.
        if not any(isinstance(reply, bytes) for reply in exchange.received)
    ),
]


@CUTS
@pytest.mark.parametrize(
    "exchange", [*ANSWERED, *BROKEN, *WAITING], ids=lambda exchange: exchange.name
)
async def test_an_exchange_has_one_outcome_however_its_bytes_are_cut(
    exchange: Exchange, cuts: Cuts
) -> None:
    for pieces in cuts(exchange.sent):
        async with opened(commands()) as peer:
            await peer.send(*pieces)
            assert await peer.said_until_end() == exchange.received, pieces


HANDSHAKES = {
    "frames in the segment of the handshake": handshake() + SET + COUNT + close(),
    "text tokens": handshake("ndb.v1.text") + COUNT + close(),
    "an unknown subprotocol": handshake("chat") + close(),
    "a version that is unknown": handshake(Sec_WebSocket_Version="12"),
    "no key": handshake(Sec_WebSocket_Key=""),
    "a method other than GET": handshake(start="POST / HTTP/1.1") + b"body",
    "a request of plain HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an old version of HTTP": handshake(start="GET / HTTP/1.0"),
    "what is no HTTP": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "a header that is none": b"GET / HTTP/1.1\r\nno header\r\n\r\n",
}


@pytest.mark.parametrize("sent", HANDSHAKES.values(), ids=HANDSHAKES.keys())
async def test_a_handshake_has_one_outcome_however_its_bytes_are_cut(sent: bytes) -> None:
    outcomes = set()
    for cuts in (whole, at_every_position, byte_by_byte):
        for pieces in cuts(sent):
            async with connected(commands()) as peer:
                await peer.send(*pieces)
                outcomes.add(dateless(await peer.rest()))
    assert len(outcomes) == 1
