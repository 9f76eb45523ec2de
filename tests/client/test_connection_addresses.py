"""A server whose name has several addresses, some of which do not answer (RFC 8305)."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import uvloop
from ndb import ConnectError, KvClient

from tests.support.misbehaving_servers import HOST
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

NAME = "ndb.example"


@pytest.fixture
def server(start_server: StartServer) -> Server:
    return start_server("--allow-host", NAME)


def with_addresses(base: type[Any], addresses: list[str], port: int) -> type[Any]:
    """Return the kind of event loop that `base` is, for which `NAME` has `addresses`."""

    class Resolving(base):  # type: ignore[misc]
        async def getaddrinfo(self, host: Any, *args: Any, **options: Any) -> Any:
            if host != NAME:
                # uvloop asks for the address of an address.
                return await super().getaddrinfo(host, *args, **options)
            assert options["type"] == socket.SOCK_STREAM
            return [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
                for address in addresses
            ]

    return Resolving


LOOPS = pytest.mark.parametrize(
    "loop", [asyncio.SelectorEventLoop, uvloop.Loop], ids=["asyncio", "uvloop"]
)


@pytest.fixture
def black_hole(server: Server) -> Iterator[str]:
    """Give an address on which the server's port answers nobody: who connects waits for minutes."""
    address = "127.0.0.2"
    with ExitStack() as held:
        listener = held.enter_context(closing(socket.socket()))
        listener.bind((address, server.port))
        listener.listen(0)
        while True:
            # As long as the kernel takes them.
            filling = held.enter_context(closing(socket.socket()))
            filling.settimeout(0.2)
            try:
                filling.connect((address, server.port))
            except TimeoutError:
                break
        yield address


@LOOPS
def test_an_address_that_answers_is_found_behind_those_that_do_not(
    server: Server, black_hole: str, loop: type[Any]
) -> None:
    async def main() -> None:
        async with KvClient(f"ws://{NAME}:{server.port}/") as client:
            assert await client.count() == 0

    addresses = [black_hole, black_hole, HOST]
    with asyncio.Runner(loop_factory=with_addresses(loop, addresses, server.port)) as runner:
        runner.run(main())


@LOOPS
def test_open_ends_in_time_where_no_address_answers(
    server: Server, black_hole: str, loop: type[Any]
) -> None:
    async def main() -> None:
        async with asyncio.timeout(BOUND):
            with pytest.raises(ConnectError, match=rf"{NAME}:{server.port}: no answer within 1 s"):
                await KvClient().open(f"ws://{NAME}:{server.port}/", timeout=1)

    with asyncio.Runner(loop_factory=with_addresses(loop, [black_hole] * 2, server.port)) as runner:
        runner.run(main())


@LOOPS
def test_open_says_why_each_address_was_of_no_use(server: Server, loop: type[Any]) -> None:
    async def main() -> None:
        with pytest.raises(ConnectError, match=r"127\.0\.0\.3.*127\.0\.0\.4"):
            await KvClient().open(f"ws://{NAME}:{server.port}/")

    addresses = ["127.0.0.3", "127.0.0.4"]
    with asyncio.Runner(loop_factory=with_addresses(loop, addresses, server.port)) as runner:
        runner.run(main())


@LOOPS
def test_what_a_server_says_to_whom_it_refuses_is_told(
    start_server: StartServer, loop: type[Any]
) -> None:
    port = start_server().port

    async def main() -> None:
        with pytest.raises(ConnectError, match=r"HTTP 403 Forbidden.*--allow-host allows a name"):
            await KvClient(f"ws://{NAME}:{port}/").open()

    with asyncio.Runner(loop_factory=with_addresses(loop, [HOST], port)) as runner:
        runner.run(main())
