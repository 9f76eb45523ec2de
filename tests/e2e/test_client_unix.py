"""The client over a Unix socket: what it does over TCP, it does there."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop
from ndb import ConnectError, KvClient, SessionClient

from tests.support.credentials import added
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path leaves room: that of a socket has at most 107 bytes."""
    with TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_sessions_are_used_over_a_unix_socket(
    start_server: StartServer, folder: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    server = start_server("--unix", str(folder / "a b:c.sock"))

    async def use() -> None:
        async with SessionClient(server.url) as client:
            session = await client.create_session()
            await client.set({"a": 1}, session)
            assert await client.get(["a"], session) == {"a": 1}

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(use())


async def test_a_connection_is_made_again_over_a_unix_socket(
    start_server: StartServer, folder: Path
) -> None:
    arguments = ("--unix", str(folder / "ndb.sock"), "--data-dir", str(folder / "data"))
    server = start_server(*arguments)
    async with KvClient(server.url) as client:
        await client.set({"a": 1})
        server.kill()
        start_server(*arguments)
        assert await client.get(["a"]) == {"a": 1}


async def test_a_unix_socket_may_be_one_of_several_servers(
    start_server: StartServer, folder: Path
) -> None:
    nowhere = f"ws+unix://{folder}/nowhere.sock"
    server = start_server("--unix", str(folder / "ndb.sock"), "--host", "127.0.0.1")
    async with KvClient([nowhere, server.url, f"ws+unix://{folder}/ndb.sock"]) as client:
        await client.set({"a": 1})
    with pytest.raises(ConnectError, match=f"can't connect to {folder}/nowhere.sock: .*No such"):
        await KvClient(nowhere).open()


async def test_credentials_are_shown_over_a_unix_socket(
    start_server: StartServer, folder: Path
) -> None:
    auth_file = folder / "credentials"
    secret = added(auth_file, "ada", "kv")
    server = start_server("--unix", str(folder / "ndb.sock"), "--auth-file", str(auth_file))
    async with KvClient(server.url, credentials=secret) as client:
        await client.set({"a": 1})
    with_name = server.url.replace("://", f"://ada:{secret}@")
    async with KvClient(with_name) as client:
        assert await client.get(["a"]) == {"a": 1}
    with pytest.raises(ConnectError, match="requires credentials"):
        await KvClient(server.url).open()


def test_a_server_is_measured_over_a_unix_socket(start_server: StartServer, folder: Path) -> None:
    server = start_server("--unix", str(folder / "ndb.sock"))
    options = ["--seconds=0.1", "--clients=2", "--sessions=10"]
    done = subprocess.run(
        [sys.executable, "-m", "ndb", "bench", "--json", "--url", server.url, *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=BOUND,
    )
    total = json.loads(done.stdout)["total"]
    assert total["requests"] > 0
    assert total["errors"] == {}
