"""Servers that do what a proper one never would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.support.waiting import BOUND

HOST = "127.0.0.1"
NDB = {"serverVersion": "1", "persistEnabled": False, "protocol": 1}
"""What a server tells of itself that keeps the promises of the protocol."""
NEMESISDB = {"serverVersion": "0.7.4", "persistEnabled": False}


@asynccontextmanager
async def peer(
    handler: Callable[[ServerConnection], Awaitable[None]],
    ssl: SSLContext | None = None,
    info: dict[str, Any] = NDB,
) -> AsyncIterator[str]:
    """Run a server of `websockets` that has told what it can do, and yield its URL."""

    async def greet_and_handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(reply("SV_INFO", **info))
        await handler(connection)

    async with serve(greet_and_handle, HOST, 0, ssl=ssl, compression=None) as server:
        [socket] = server.sockets
        scheme = "ws" if ssl is None else "wss"
        yield f"{scheme}://{'localhost' if ssl else HOST}:{socket.getsockname()[1]}/"


@asynccontextmanager
async def listening(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
) -> AsyncIterator[int]:
    """Give each TCP connection to `connected`, and yield the port."""
    server = await asyncio.start_server(connected, HOST, 0)
    [listener] = server.sockets
    try:
        yield listener.getsockname()[1]
    finally:
        # Up to Python 3.11, a connection that is being accepted as the server closes is left
        # open. So no more are accepted first, and those that are get their two turns.
        asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        server.close()


class RawPeer:
    """The server's end of one TCP connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.websocket = ServerProtocol(max_size=None)

    async def handshake(self) -> bytes:
        """Read the handshake and return the answer to it, which is not sent."""
        request = await self.event()
        assert isinstance(request, Request)
        self.websocket.send_response(self.websocket.accept(request))
        return b"".join(self.websocket.data_to_send())

    async def accept(self) -> None:
        """Do the handshake, and say what the server can do."""
        await self.send(await self.handshake())
        await self.greet()

    async def greet(self, info: dict[str, Any] = NDB) -> None:
        assert await self.request() == ("SV_INFO", {})
        await self.send(text(reply("SV_INFO", **info)))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def event(self) -> Any:
        """Return the next thing that the client sent."""
        while not (events := self.websocket.events):
            data = await self.reader.read(65536)
            assert data, "the client ended the connection"
            self.websocket.receive_data(data)
        return events.pop(0)

    async def request(self) -> tuple[str, dict[str, Any]]:
        """Return the name and the parameters of the next request."""
        frame = await self.event()
        assert frame.opcode is Opcode.TEXT
        [(name, params)] = msgspec.json.decode(frame.data).items()
        return name, params


@asynccontextmanager
async def raw_peer(handler: Callable[[RawPeer], Awaitable[None]]) -> AsyncIterator[str]:
    """Run a TCP server that gives each connection to `handler`, and yield its WebSocket URL.

    In the end every handler must have finished, and what one raised is raised.
    """
    handlers: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(RawPeer(reader, writer))
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        handlers.append(asyncio.create_task(handle(reader, writer)))

    try:
        async with listening(connected) as port:
            yield f"ws://{HOST}:{port}/"
            async with asyncio.timeout(BOUND):
                await asyncio.gather(*handlers)
    finally:
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        # A handler that was cancelled before it began has not closed its own.
        for writer in writers:
            writer.close()


def frame(opcode: Opcode, data: bytes, **bits: bool) -> bytes:
    """Return a frame as a server sends it."""
    return Frame(opcode, data, **bits).serialize(mask=False)


def text(message: str) -> bytes:
    return frame(Opcode.TEXT, message.encode())


def reply(name: str, **body: Any) -> str:
    """Return the reply to command `name`."""
    return msgspec.json.encode({f"{name}_RSP": {"st": 1, **body}}).decode()
