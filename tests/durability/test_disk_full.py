"""A server whose disk is full, or fails, and works again."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.credentials import added
from tests.support.mounted_disks import mounted
from tests.support.opening_handshakes import admitted
from tests.support.process_memory import peak_bytes
from tests.support.raw_client import Wire, opened, text
from tests.support.refused_changes import AGAIN, REFUSED, everything
from tests.support.server_process import StartServer
from tests.support.system_call_faults import faults
from tests.support.waiting import BOUND, until

LARGE = {f"key{number}": "x" * 100 for number in range(8)}
"""Keys beyond what is packed."""


class Fill:
    """A file that takes the room there is."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "fill"

    def begin(self) -> None:
        # Not written, and after what waits to be: ext4 counts what it is just writing twice, and
        # would say too early that it is full.
        subprocess.run(["sync", "--file-system", self._path.parent], check=True)
        with self._path.open("wb") as file:
            size = 0
            for step in (2**16, 2**12):
                try:
                    while True:
                        os.posix_fallocate(file.fileno(), size, step)
                        size += step
                except OSError:
                    pass

    def end(self) -> None:
        self._path.unlink()


def write_and_read(wire: Wire, token: int, numbers: Iterator[int], count: int) -> list[int]:
    """Send pairs of changes and reads, all at once; return the status of each change.

    A read tells of the last change that was acknowledged, and no reply is lost or out of order.
    """
    [before] = wire.request("SH_GET", tkn=token, keys=["n"])["keys"].values()
    chosen = list(itertools.islice(numbers, count))
    get = text({"SH_GET": {"tkn": token, "keys": ["n"]}})
    for number in chosen:
        keys = {"n": number, "large": "x" * 20_000}
        wire.send(text({"SH_SET": {"tkn": token, "keys": keys}}) + get)
    statuses = []
    for number in chosen:
        [(name, body)] = wire.reply().items()
        assert name == "SH_SET_RSP"
        statuses.append(body["st"])
        if body["st"] == 1:
            before = number
        else:
            assert body["st"] == 202
            assert "could not be made durable" in body["m"]
        assert wire.reply() == {"SH_GET_RSP": {"st": 1, "keys": {"n": before}}}
    return statuses


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_a_full_disk_refuses_writes_and_nothing_else_until_there_is_room(
    small_disk: Path, start_server: StartServer, durability: str
) -> None:
    folder = small_disk / "data"
    arguments = ("--data-dir", str(folder), "--durability", durability)
    server = start_server(*arguments)
    fill = Fill(small_disk)
    with opened(server.port) as wire, opened(server.port) as other:
        sliding = wire.request("SH_NEW", expiry={"duration": 1000, "extendOnGet": True})["tkn"]
        spread = wire.request("SH_NEW")["tkn"]
        ended = wire.request("SH_NEW")["tkn"]
        tokens = [sliding, spread, ended]
        for token in tokens:
            wire.request("SH_SET", tkn=token, keys=LARGE | {"n": 0})
        wire.request("KV_SET", keys={"a": 1, "b": 2})
        assert wire.request("KV_SAVE", name="a")["st"] == 121
        numbers = itertools.count(1)
        fill.begin()
        until(lambda: write_and_read(wire, spread, numbers, 20)[-1] == 202)
        before = everything(other, tokens)
        for command, params in [
            ("SH_NEW", {}),
            ("SH_NEW", {"expiry": {"duration": 1}}),
            ("SH_END", {"tkn": ended}),
            ("SH_SET", {"tkn": sliding, "keys": {"n": "x" * 100_000}}),
            ("SH_RMV", {"tkn": sliding, "keys": ["key7"]}),
            ("SH_CLEAR_SET", {"tkn": spread, "keys": {"n": "x" * 100_000}}),
            ("KV_SET", {"keys": {"a": "x" * 100_000}}),
            ("KV_CLEAR", {}),
            ("SH_END_ALL", {}),
        ]:
            # What is small may find room in what the file has already. So it goes with what is
            # large, and behind it: what is in front may be read, and written, before the rest.
            for _ in range(3):
                wire.send(text({"KV_SET": {"keys": {"c": "x" * 10**5}}}) + text({command: params}))
                [[_], [changed]] = [reply.values() for reply in wire.replies(2)]
                assert changed["st"] == 202, (command, changed)
        assert everything(other, tokens) == before
        assert wire.request("KV_SAVE", name="a")["st"] == 123
        assert wire.request("SH_SAVE", name="a", tkns=[spread])["st"] == 123
        saved = sorted(path.name for path in (folder / "datasets").rglob("*.*"))
        assert saved == ["000001.sqlite"]
        assert server.stderr.count(REFUSED) == 1
        assert server.stderr.count("WARNING") <= 1
        fill.end()
        # Nobody has to write: it finds out by itself.
        until(lambda: AGAIN in server.stderr)
        assert set(write_and_read(wire, spread, numbers, 20)) == {1}
        assert wire.request("SH_END", tkn=ended)["st"] == 1
        assert wire.request("SH_RMV", tkn=sliding, keys=["key0"])["st"] == 1
        after = everything(other, tokens)
    server.kill()
    server = start_server(*arguments)
    with opened(server.port) as wire:
        assert everything(wire, tokens) == after


def test_a_server_is_not_started_on_a_full_disk_and_says_why(
    small_disk: Path, start_server: StartServer
) -> None:
    server = start_server("--data-dir", str(small_disk))
    with opened(server.port) as wire:
        wire.request("KV_SET", keys={"a": 1})
    server.kill()
    fill = Fill(small_disk)
    fill.begin()
    # The room of the files that a restart makes smaller first is not enough for it.
    status, said = refused_to_start("--data-dir", str(small_disk))
    assert (status, said.count("\n")) == (2, 1)
    assert "damaged" not in said
    assert str(small_disk) in said
    assert "No space left on device" in said
    # Nor with a new store.
    status, said = refused_to_start("--data-dir", str(small_disk / "new"))
    assert (status, said.count("\n")) == (2, 1)
    assert "No space left on device" in said
    fill.end()
    with opened(start_server("--data-dir", str(small_disk)).port) as wire:
        assert wire.request("KV_GET", keys=["a"])["keys"] == {"a": 1}


def refused_to_start(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ndb_server", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("calls", "error"),
    [("pwrite64", "EROFS"), ("fdatasync,fsync", "EIO"), ("pwrite64", "EIO")],
    ids=["read-only", "sync fails", "write fails"],
)
def test_a_disk_that_fails_refuses_writes_until_it_works_and_brings_none_of_them_back(
    start_server: StartServer, tmp_path: Path, calls: str, error: str
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    with opened(server.port) as wire:
        token = wire.request("SH_NEW")["tkn"]
        wire.request("SH_SET", tkn=token, keys={"n": 0})
        numbers = itertools.count(1)
        with faults(server, calls, f"error={error}"):
            assert set(write_and_read(wire, token, numbers, 20)) == {202}
            assert wire.request("SH_END", tkn=token)["st"] == 202
        before = everything(wire, [token])
        assert server.stderr.count(REFUSED) == 1
        until(lambda: AGAIN in server.stderr)
        assert wire.request("SH_SET", tkn=token, keys={"m": 1})["st"] == 1
        assert wire.request("SH_RMV", tkn=token, keys=["m"])["st"] == 1
        assert everything(wire, [token]) == before
    server.kill()
    with opened(start_server("--data-dir", str(tmp_path)).port) as wire:
        assert everything(wire, [token]) == before


@pytest.mark.parametrize("options", [(), ("--slow-ms", "100")], ids=["plain", "watched"])
def test_what_a_client_may_not_do_is_answered_with_14_whatever_the_disk_does(
    start_server: StartServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = tmp_path / "credentials"
    secret = added(file, "web", "app")
    data_dir = str(tmp_path / "data")
    server = start_server("--data-dir", data_dir, "--auth-file", str(file), *options)
    with admitted(server.port, secret) as wire:
        token = wire.request("SH_NEW")["tkn"]
        requests: list[dict[str, Any]] = [
            {"SH_SET": {"tkn": token, "keys": {"n": 1}}},
            {"KV_SET": {"keys": {"n": 1}}},
            {"KV_GET": {"keys": ["n"]}},
            {"SH_END_ALL": {}},
            {"SH_GET": {"tkn": token, "keys": ["n"]}},
        ]
        with faults(server, "fdatasync,fsync", "error=EIO"):
            wire.send(b"".join(text(request) for request in requests))
            statuses = [body["st"] for reply in wire.replies(5) for body in reply.values()]
        assert statuses == [202, 14, 14, 14, 1]


@pytest.mark.parametrize("calls", ["fdatasync,fsync", "pwrite64"])
def test_what_was_refused_is_not_there_if_the_server_is_killed_before_the_disk_works_again(
    start_server: StartServer, tmp_path: Path, calls: str
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    with opened(server.port) as wire:
        assert wire.request("KV_SET", keys={"n": 0})["st"] == 1
        with faults(server, calls, "error=EIO"):
            assert wire.request("KV_SET", keys={"n": 1})["st"] == 202
            server.kill()
    with opened(start_server("--data-dir", str(tmp_path)).port) as wire:
        assert wire.request("KV_GET", keys=["n"])["keys"] == {"n": 0}


def test_a_slow_disk_does_not_make_replies_pile_up(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    large = "x" * 4_000_000
    with opened(server.port) as wire:
        wire.request("KV_SET", keys={"large": large})
        get = text({"KV_GET": {"keys": ["large"]}})
        with faults(server, "fdatasync,fsync", "delay_enter=1000000"):
            wire.send(text({"KV_SET": {"keys": {"n": 1}}}) + get * 100)
            assert wire.reply() == {"KV_SET_RSP": {"st": 1}}
            for _ in range(100):
                assert wire.reply()["KV_GET_RSP"]["keys"] == {"large": large}
        assert peak_bytes(server.pid) < 250_000 * 1024


def test_the_second_server_on_a_folder_is_told_which_process_has_it(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    said = f"ndb-server: another server uses {tmp_path}: process {server.pid}\n"
    assert refused_to_start("--data-dir", str(tmp_path)) == (2, said)
    with opened(server.port) as wire:
        assert wire.request("KV_SET", keys={"a": 1})["st"] == 1
    server.kill()
    with opened(start_server("--data-dir", str(tmp_path)).port) as wire:
        assert wire.request("KV_GET", keys=["a"])["keys"] == {"a": 1}


def test_when_sessions_have_expired_the_files_are_small_again(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--data-dir", str(tmp_path), "--durability", "relaxed")
    keys = {f"key{number}": "x" * 1000 for number in range(10)}
    new = text({"SH_NEW": {"expiry": {"duration": 2, "deleteSession": True}}})
    with opened(server.port) as wire:

        def has_filled_it() -> bool:
            wire.send(new * 100)
            tokens = [reply["SH_NEW_RSP"]["tkn"] for reply in wire.replies(100)]
            wire.send(b"".join(text({"SH_SET": {"tkn": tkn, "keys": keys}}) for tkn in tokens))
            wire.replies(100)
            # Some may have expired before they had keys.
            return sum(sizes(tmp_path)) > 40_000_000

        until(has_filled_it)
        until(lambda: wire.request("SH_INFO_ALL")["totalSessions"] == 0)
        # A thousand free pages are kept for what comes.
        until(lambda: sizes(tmp_path)[0] < 1100 * 4096)
        # What SQLite keeps of its own log, once it begins it anew: PRAGMA journal_size_limit.
        until(
            lambda: (
                wire.request("KV_SET", keys={"a": 1}) == {"st": 1} and sizes(tmp_path)[1] <= 2**26
            )
        )


def sizes(folder: Path) -> tuple[int, int]:
    return (folder / "ndb.sqlite").stat().st_size, (folder / "ndb.sqlite-wal").stat().st_size


def test_a_server_is_not_started_where_no_file_can_be_made_and_says_why(
    tmp_path: Path, start_server: StartServer
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=6m,nr_inodes=5,mode=0700"
    with mounted(disk, "-t", "tmpfs", "-o", options, "tmpfs"):
        for number in range(4):
            (disk / str(number)).touch()
            status, said = refused_to_start("--data-dir", str(disk))
            if "No space left on device" in said:
                assert (status, said.count("\n")) == (2, 1)
                break
        else:
            pytest.fail("it was never full")
        (disk / "0").unlink()
        for path in disk.iterdir():
            path.unlink()
        start_server("--data-dir", str(disk)).stop()
