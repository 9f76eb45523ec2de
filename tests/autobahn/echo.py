"""An echo for the Autobahn test suite, on our transport or on ``websockets``' own server.

Usage: python -m tests.autobahn.echo PORT [--plain]

Port 0 takes any free one. The URL is printed once connections are accepted.
"""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import suppress

from ndb_server.websocket.connection import MAX_MESSAGE_SIZE, Connection, Timeouts
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

HOST = "127.0.0.1"


class Echo(Connection):
    """Sends binary messages back too, which the commands have no use for."""

    def _answer_binary(self, message: bytes) -> None:
        self._write([Frame(Opcode.BINARY, message).serialize(mask=False)])


def same(messages: Sequence[bytes], _: int, __: bool) -> tuple[Sequence[bytes], None]:
    return messages, None


async def send_back(connection: ServerConnection) -> None:
    # That the suite breaks the protocol, or closes before it is answered, is no failure of ours.
    with suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def main(port: int, *, plain: bool) -> None:
    server: Server | asyncio.Server
    if plain:
        server = await serve(send_back, HOST, port, compression=None, max_size=MAX_MESSAGE_SIZE)
    else:
        connections: set[Connection] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: Echo(same, lambda: 0, b"", connections, Timeouts()), HOST, port
        )
    [listening] = server.sockets
    print(f"ws://{HOST}:{listening.getsockname()[1]}/", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn.echo")
    parser.add_argument("port", type=int)
    parser.add_argument("--plain", action="store_true", help="on websockets' own server")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.port, plain=arguments.plain))
