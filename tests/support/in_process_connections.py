"""Connections on real sockets in the loop of the test, with the server's end in its hands."""

import asyncio
import fcntl
import select
import socket
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from ndb_server.dispatch.dispatcher import NOT_TEXT
from ndb_server.interfaces import Respond
from ndb_server.websocket.connection import Admission, Connection, Timeouts
from websockets.frames import Frame

from tests.support.event_loop_turns import until
from tests.support.raw_client import Frames, handshake, said
from tests.support.websocket_exchanges import Said

TIMEOUTS = Timeouts()

BUFFER = 212_992 // 2
"""Bytes that the system is to keep of what one end has sent and the other has not read: half of
what Linux does unless it is told otherwise, as it takes twice of what it is told (socket(7))."""


class Peer:
    """A client's end of a connection, and the server's `Connection`."""

    def __init__(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        ours: socket.socket,
        theirs: socket.socket,
    ) -> None:
        self.connection = connection
        self.transport = transport
        self.socket = ours
        self._server_end = theirs
        self._frames = Frames()
        self._received: list[Frame] = []

    async def send(self, *pieces: bytes) -> None:
        """Send `pieces`, each of which the server reads before the next one is sent."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                await until(lambda: any(select.select([], [self.socket], [], 0)))
                rest = rest[self.socket.send(rest) :]
            await until(self._read)

    def _read(self) -> bool:
        return self._server_end.fileno() < 0 or fcntl.ioctl(
            self._server_end, termios.FIONREAD, bytes(4)
        ) == bytes(4)

    async def receive(self, most: int = 2**18) -> bytes:
        await until(lambda: any(select.select([self.socket], [], [], 0)))
        return self.socket.recv(most)

    async def rest(self) -> bytes:
        """Return what the server sends until it ends its side."""
        data = b""
        while piece := await self.receive():
            data += piece
        return data

    async def head(self) -> bytes:
        """Return the answer to the handshake, without its date."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += await self.receive(1)
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

    def let_little_be_sent(self) -> None:
        """Have the system buffer so little that the server notices at once who does not read."""
        self._server_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    async def end(self) -> None:
        """End the connection, and wait until the server has seen it."""
        self.socket.close()
        await until(self.connection.closed.done)


def dateless(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"Date: "))


def echo(messages: Sequence[bytes], _: int, __: bool) -> tuple[Sequence[bytes], None]:
    return messages, None


@asynccontextmanager
async def connected(
    respond: Respond = echo,
    connections: set[Connection] | None = None,
    admit_client: Callable[[str], Admission | None] | None = None,
) -> AsyncIterator[Peer]:
    """Yield the client's end of a TCP connection that has sent nothing yet."""
    listed = set() if connections is None else connections
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        # What the system takes in, who does not read has taken, and it may be let take much.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    ours, theirs = ends
    transport, connection = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: Connection(
            respond, lambda: 0, NOT_TEXT, listed, TIMEOUTS, admit_client=admit_client
        ),
        theirs,
    )
    peer = Peer(connection, transport, ours, theirs)
    assert connection in listed
    try:
        yield peer
    finally:
        await peer.end()
    assert connection not in listed


@asynccontextmanager
async def opened(
    respond: Respond = echo,
    connections: set[Connection] | None = None,
    admit_client: Callable[[str], Admission | None] | None = None,
) -> AsyncIterator[Peer]:
    """Yield the client's end of a connection that is open."""
    async with connected(respond, connections, admit_client) as peer:
        await peer.send(handshake())
        assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
        yield peer
