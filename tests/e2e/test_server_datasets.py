"""A server process that saves and loads while others ask."""

import itertools
import select
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from websockets.frames import Opcode

from tests.support.raw_client import Wire, close, frame, opened, text
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND, until

LARGE = "x" * 4_000_000
SAVE = text({"KV_SAVE": {"name": "a"}})
LOAD = text({"KV_LOAD": {"name": "a"}})
COUNT = text({"KV_COUNT": {}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(start_server: StartServer, folder: Path) -> Server:
    return filled(start_server, folder)


def filled(start_server: StartServer, folder: Path) -> Server:
    """Start a server with so many keys that a save takes a while."""
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as client:
        client.request("KV_SET", keys={"which": "first"})
        assert client.request("KV_SAVE", name="a")["st"] == 121
        for number in range(6):
            assert client.request("KV_SET", keys={str(number): LARGE}) == {"st": 1}
        client.request("KV_SET", keys={"which": "second"})
    return server


def datasets(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "datasets" / "keys" / "a").iterdir())


def can_be_read(client: Wire) -> bool:
    return bool(select.select([client.socket], [], [], 0)[0])


@pytest.mark.parametrize(("request_", "status"), [(SAVE, 121), (LOAD, 141)], ids=["save", "load"])
def test_others_are_answered_while_a_client_saves_or_loads(
    server: Server, request_: bytes, status: int
) -> None:
    with opened(server.port) as client, opened(server.port) as other:
        if status == 141:
            client.request("KV_SAVE", name="a")

        def answered_meanwhile() -> int:
            client.send(request_)
            client.until_arrived()
            answered = 0
            while not can_be_read(client):
                assert other.request("KV_COUNT")["cnt"] == 7
                answered += 1
            [body] = client.reply().values()
            assert body["st"] == status
            # The last one may have been answered after it.
            return answered - 1

        # On a busy machine this may be too late to ask, but not each time.
        until(lambda: answered_meanwhile() > 0)


def test_others_see_all_of_a_load_or_nothing_of_it(start_server: StartServer, folder: Path) -> None:
    server = start_server("--data-dir", str(folder), "--durability", "relaxed")
    new = text({"SH_NEW": {"expiry": {"duration": 1000}}})
    with opened(server.port) as client, opened(server.port) as other:
        client.send(new * 3000)
        tokens = [reply["SH_NEW_RSP"]["tkn"] for reply in client.replies(3000)]
        client.request("SH_SET", tkn=tokens[0], keys={"a": 1})
        client.request("KV_SET", keys={str(number): 1 for number in range(3000)})
        assert client.request("SH_SAVE", name="a")["sessions"] == 3000
        assert client.request("KV_SAVE", name="a")["keys"] == 3000
        client.request("SH_END_ALL")
        client.request("KV_CLEAR")
        client.send(text({"SH_LOAD": {"name": "a"}}) + LOAD)
        seen: tuple[int, ...] = ()
        while seen != (3000, 1, 3000, 3000) or not can_be_read(client):
            every = other.request("SH_INFO_ALL")
            exist = other.request("SH_EXISTS", tkns=tokens)["exist"]
            keys = other.request("KV_COUNT")["cnt"]
            seen = (every["totalSessions"], every["totalKeys"], len(exist), keys)
            assert seen[:2] in {(0, 0), (3000, 1)}
            assert {*seen[2:]} <= {0, 3000}
        assert client.reply()["SH_LOAD_RSP"]["sessions"] == 3000
        assert client.reply()["KV_LOAD_RSP"]["keys"] == 3000


def test_pings_are_answered_while_a_save_runs_and_requests_behind_it_in_order(
    server: Server,
) -> None:
    with opened(server.port) as client:
        client.send(SAVE + frame(Opcode.PING, b"1") + COUNT + SAVE + LOAD + COUNT + close())
        assert client.said() == b"1"
        names = [next(iter(client.reply())) for _ in range(5)]
        assert names == [
            "KV_SAVE_RSP",
            "KV_COUNT_RSP",
            "KV_SAVE_RSP",
            "KV_LOAD_RSP",
            "KV_COUNT_RSP",
        ]
        assert client.rest() == [(1000, "")]


def test_two_clients_save_one_name_at_once(
    server: Server, start_server: StartServer, folder: Path
) -> None:
    with opened(server.port) as client, opened(server.port) as other:
        for each in (client, other):
            each.send(SAVE)
        for each in (client, other):
            body = each.reply()["KV_SAVE_RSP"]
            assert (body["st"], body["keys"]) == (121, 7)
    assert datasets(folder) == ["000001.sqlite", "000002.sqlite", "000003.sqlite"]
    for name in datasets(folder)[1:]:
        path = folder / "datasets" / "keys" / name / "000001.sqlite"
        path.parent.mkdir()
        (folder / "datasets" / "keys" / "a" / name).rename(path)
        assert_loaded(start_elsewhere(start_server, folder, name), "second", 7)


def start_elsewhere(start_server: StartServer, folder: Path, name: str) -> Server:
    """Start a server that has the datasets of `folder` and nothing else, and load one."""
    elsewhere = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder / "datasets", elsewhere / "datasets")
    return start_server("--data-dir", str(elsewhere), "--load", name)


def assert_loaded(server: Server, which: str, count: int) -> None:
    with opened(server.port) as client:
        assert client.request("KV_GET", keys=["which"])["keys"] == {"which": which}
        assert client.request("KV_COUNT")["cnt"] == count


def until_it_saves(folder: Path) -> None:
    """Wait until the second save is under way; or over, if this machine is that busy."""
    until(lambda: {"000002.partial", "000002.sqlite"} & {*datasets(folder)})


def test_a_server_killed_while_it_saves_leaves_what_was_saved_before(
    start_server: StartServer, tmp_path: Path
) -> None:
    folders = (tmp_path / str(number) for number in itertools.count())

    def killed_while_it_saves() -> Path | None:
        folder = next(folders)
        server = filled(start_server, folder)
        with opened(server.port) as client:
            client.send(SAVE)
            until_it_saves(folder)
            server.kill()
        return folder if "000002.sqlite" not in datasets(folder) else None

    folder = until(killed_while_it_saves)
    assert folder is not None
    assert datasets(folder) == ["000001.sqlite", "000002.partial"]
    assert_loaded(start_elsewhere(start_server, folder, "a"), "first", 1)
    with opened(start_server("--data-dir", str(folder)).port) as client:
        client.request("KV_CLEAR_SET", keys={"which": "third"})
        assert client.request("KV_SAVE", name="a")["st"] == 121
    assert datasets(folder) == ["000001.sqlite", "000002.sqlite"]
    assert_loaded(start_elsewhere(start_server, folder, "a"), "third", 1)


def test_a_server_told_to_stop_while_it_saves_completes_the_save(
    server: Server, start_server: StartServer, folder: Path
) -> None:
    with opened(server.port) as client:
        client.send(SAVE + COUNT)
        until_it_saves(folder)
        server.process.send_signal(signal.SIGTERM)
        assert client.reply()["KV_SAVE_RSP"]["st"] == 121
        assert client.reply() == {"KV_COUNT_RSP": {"st": 1, "cnt": 7}}
        assert client.said() == (1001, "server is shutting down")
        client.send(close(1001))
        assert client.rest() == []
        client.socket.close()
    assert server.process.wait(BOUND) == 0
    assert_loaded(start_elsewhere(start_server, folder, "a"), "second", 7)


def test_a_client_killed_while_it_saves_disturbs_nobody(server: Server, folder: Path) -> None:
    client = Wire(server.port)
    client.upgrade()
    client.send(SAVE + COUNT)
    until_it_saves(folder)
    client.reset()
    with opened(server.port) as other:
        # The one thread that saves does one after the other.
        assert other.request("KV_SAVE", name="a")["st"] == 121
    assert datasets(folder) == ["000001.sqlite", "000002.sqlite", "000003.sqlite"]
