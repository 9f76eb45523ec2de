"""Connections that come just as the server stops, and a server that can't go on."""

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ndb_server.server.server import Options, Server
from ndb_server.storage.files import lock
from ndb_server.storage.store import LOCK_FILE

from tests.support.event_loop_turns import turns
from tests.support.waiting import BOUND


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


def fail() -> None:
    raise LookupError


async def test_a_server_whose_journal_fails_is_broken_and_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(Options(port=0, data_dir=tmp_path))
    await server.start()
    server._later(0, fail)
    server._later(0, fail)
    async with asyncio.timeout(BOUND):
        assert str(await server.broken) == "the journal failed; the log has the cause"
    assert await server.stop()
    assert [said for said in caplog.messages if said.startswith("the journal failed\nTraceback")]
    os.close(lock(tmp_path / LOCK_FILE))


async def test_what_is_done_now_and_then_is_done_again_after_it_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(Options(port=0))
    await server.start()
    server._run_due(0, fail)
    assert not server._timers[fail].cancelled()
    assert await server.stop()
    assert server._timers[fail].cancelled()
    assert caplog.messages[-1].startswith("a periodic task failed\nTraceback")


async def test_a_server_whose_connections_cannot_be_ended_closes_its_files_still(
    tmp_path: Path,
) -> None:
    server = Server(Options(port=0, data_dir=tmp_path))
    await server.start()
    # What was closed already can't be closed.
    server._token_throttle.close()
    with pytest.raises(asyncio.InvalidStateError):
        await server.stop()
    os.close(lock(tmp_path / LOCK_FILE))
    for acceptor in server._acceptors:
        await acceptor.stop()
