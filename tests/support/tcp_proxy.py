"""A TCP proxy between a client and a server, to which things happen when a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from random import Random

from ndb.frames import frame_bounds

from tests.support.misbehaving_servers import HOST, listening
from tests.support.waiting import BOUND

SIZE = 2**16


class Way(Enum):
    """Which way bytes go."""

    TO_SERVER = auto()
    TO_CLIENT = auto()


class Fault(Enum):
    """What happens to the bytes that go one way next, and to their connection.

    What is corrupted is what a receiver can notice: any bit of the first two bytes of a frame
    (FIN, reserved bits, opcode, mask bit, length), any bit of a masking key, or the UTF-8 of a
    payload; and any bit of the opening handshake. Two things are left out, for which WebSocket
    leaves it to TCP's checksum or to TLS: a bit of a payload that is text before and after, and
    the bit of the opcode that makes a message a ping or a pong, which nobody expects a reply to.
    """

    CUT = auto()
    """They are lost, and both connections are ended."""
    STALL = auto()
    """They and all that follow on their connection, both ways, wait until told to go on."""
    SPLIT = auto()
    """They go on one by one."""
    CORRUPT_FIRST = auto()
    """A bit of the first byte is not what it was."""
    CORRUPT_LENGTH = auto()
    """A bit of the second byte is not what it was."""
    CORRUPT_MASK = auto()
    """A bit of the masking key is not what it was; without one, of the first byte."""
    CORRUPT_UTF8 = auto()
    """The payload is not UTF-8 any more."""

    @property
    def corrupts(self) -> bool:
        return self.name.startswith("CORRUPT")


_CONTROL = 0x08
"""The bit of an opcode that makes a message a control frame (RFC 6455, section 5.2)."""


def corrupt(fault: Fault, data: bytes, random: Random) -> bytes:
    """Return `data`, which begins with a frame or is an opening handshake, as `fault` leaves it."""
    changed = bytearray(data)
    if data.startswith((b"GET ", b"HTTP")) or len(data) < 2:
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(changed)
    bounds = frame_bounds(data, 0)
    payload, end = bounds if bounds is not None else (len(data), len(data))
    end = min(end, len(data))
    masked = bool(data[1] & 0x80)
    if fault is Fault.CORRUPT_LENGTH:
        changed[1] ^= 1 << random.randrange(8)
    elif fault is Fault.CORRUPT_UTF8 and payload < end:
        # Everything that is sent here is ASCII: one byte beyond is no UTF-8, masked or not.
        changed[random.randrange(payload, end)] ^= 0x80
    elif fault is Fault.CORRUPT_MASK and masked and payload < end:
        changed[random.randrange(payload - 4, payload)] ^= 1 << random.randrange(8)
    else:
        changed[0] ^= random.choice([1 << bit for bit in range(8) if 1 << bit != _CONTROL])
    return bytes(changed)


class Proxy:
    """What stands between.

    Attributes:
        port: where the server is, for connections to come.
        connections: how many there have been.
    """

    def __init__(self, port: int, random: Random) -> None:
        self.port = port
        self._random = random
        self._fault: tuple[Fault, Way] | None = None
        self._happened = asyncio.Event()
        self._stalled: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    def inject(self, fault: Fault, way: Way) -> None:
        """Let `fault` happen to what goes that way next."""
        self._fault = fault, way
        self._happened.clear()

    async def happened(self) -> None:
        """Wait until the fault has happened."""
        async with asyncio.timeout(BOUND):
            await self._happened.wait()

    def go_on(self) -> None:
        """End every stall."""
        while self._stalled:
            self._stalled.pop().set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step does nothing, not even this.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        flows = asyncio.Event()
        flows.set()
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self.port)
            writers.append(server_writer)
            # What is read from the client waits here, so that its end is seen during a stall.
            arrived: asyncio.Queue[bytes] = asyncio.Queue()

            async def to_server() -> None:
                while data := await arrived.get():
                    await flows.wait()
                    await self._pass_on(data, server_writer, Way.TO_SERVER, writers, flows)

            async def to_client() -> None:
                while data := await server_reader.read(SIZE):
                    await flows.wait()
                    await self._pass_on(data, writer, Way.TO_CLIENT, writers, flows)
                writer.close()

            ways = [asyncio.create_task(to_server()), asyncio.create_task(to_client())]
            try:
                while data := await reader.read(SIZE):
                    arrived.put_nowait(data)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            # Bytes of a client that has left are not delivered any more, as in a network.
            for one in writers:
                one.transport.abort()

    async def _pass_on(
        self,
        data: bytes,
        writer: asyncio.StreamWriter,
        way: Way,
        writers: list[asyncio.StreamWriter],
        flows: asyncio.Event,
    ) -> None:
        if self._fault is not None and self._fault[1] is way:
            fault, self._fault = self._fault[0], None
            self._happened.set()
            if fault is Fault.CUT:
                for one in writers:
                    one.transport.abort()
                return
            if fault is Fault.STALL:
                flows.clear()
                self._stalled.append(flows)
                await flows.wait()
            elif fault is Fault.SPLIT:
                for byte in data:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0)
                return
            else:
                data = corrupt(fault, data, self._random)
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def proxied(port: int, random: Random) -> AsyncIterator[tuple[Proxy, str]]:
    """Run a proxy in front of the server at `port`; yield it and the URL of its own."""
    proxy = Proxy(port, random)
    async with listening(proxy.connected) as own:
        try:
            yield proxy, f"ws://{HOST}:{own}/"
        finally:
            await proxy.close()
