"""Connections that come just as the server stops."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest
from ndb_server.server import Options, Server

from tests.e2e.wire import BOUND
from tests.server.test_transport import turns


async def stop_after(count: int, server: Server) -> bool:
    await turns(count)
    return await server.stop()


@pytest.mark.parametrize("comes", range(20))
@pytest.mark.parametrize("for_operators", [False, True], ids=["client", "operator"])
async def test_a_connection_that_comes_as_the_server_stops_is_ended_in_order(
    comes: int, for_operators: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    troubles: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    # asyncio is silent otherwise about what it fails to accept.
    loop.set_debug(True)
    server = Server(Options(port=0, ops_port=0))
    with caplog.at_level("INFO", "ndb_server.server"):
        urls = [await server.start(), caplog.messages[0].split()[-1]]
    port = int(urls[for_operators].rstrip("/").rsplit(":")[-1])
    with socket.socket() as client:
        stopping = loop.create_task(stop_after(5, server))
        await turns(comes)
        with suppress(ConnectionRefusedError):
            client.connect(("127.0.0.1", port))
        assert await stopping
        client.setblocking(False)
        async with asyncio.timeout(BOUND):
            # Or it was not accepted at all.
            with suppress(OSError):
                assert await loop.sock_recv(client, 1) == b""
    assert troubles == []
