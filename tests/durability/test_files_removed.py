"""A data folder that is removed or replaced, or a file in it, under a running server."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from ndb_server.storage.files import lock
from ndb_server.storage.store import LOCK_FILE

from tests.support.http_client import get
from tests.support.raw_client import Wire, opened
from tests.support.refused_changes import AGAIN, REFUSED, everything
from tests.support.server_process import Server, StartServer
from tests.support.waiting import until

LOST = f"{REFUSED}: the data folder or a file of the store was removed or replaced"

LARGE = {f"key{number}": "x" * 100 for number in range(8)}


def folder_removed(folder: Path) -> None:
    shutil.rmtree(folder)


def folder_moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def folder_replaced(folder: Path) -> None:
    folder_moved_away(folder)
    folder.mkdir()
    (folder / "ndb.sqlite").write_text("somebody else's")


def file_removed(folder: Path) -> None:
    (folder / "ndb.sqlite").unlink()


def every_file_removed(folder: Path) -> None:
    for path in folder.glob("ndb*"):
        path.unlink()


def file_replaced(folder: Path) -> None:
    copy = folder / "copy"
    shutil.copy(folder / "ndb.sqlite", copy)
    copy.replace(folder / "ndb.sqlite")


def file_written_over(folder: Path) -> None:
    other = folder.with_name("other.sqlite")
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE mine (a)")
    shutil.copyfile(other, folder / "ndb.sqlite")


def file_cut(folder: Path) -> None:
    with (folder / "ndb.sqlite").open("r+b") as file:
        file.truncate(4096)


def log_removed(folder: Path) -> None:
    (folder / "ndb.sqlite-wal").unlink()


def log_cut(folder: Path) -> None:
    with (folder / "ndb.sqlite-wal").open("r+b") as file:
        file.truncate(0)


def lock_removed(folder: Path) -> None:
    (folder / "ndb.lock").unlink()


LOSSES = [
    folder_removed,
    folder_moved_away,
    folder_replaced,
    file_removed,
    every_file_removed,
    file_replaced,
    file_written_over,
    file_cut,
    log_removed,
    log_cut,
    lock_removed,
]


def filled(wire: Wire) -> list[int]:
    """Make sessions and keys; return the tokens."""
    tokens = [wire.request("SH_NEW", expiry={"duration": 1000})["tkn"] for _ in range(3)]
    wire.request("SH_SET", tkn=tokens[0], keys={"a": 1})
    wire.request("SH_SET", tkn=tokens[1], keys=LARGE)
    assert wire.request("KV_SET", keys=LARGE | {"b": 2})["st"] == 1
    return tokens


@pytest.mark.parametrize("lose", LOSSES)
def test_a_store_that_is_lost_is_noticed_and_written_anew(
    start_server: StartServer, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as wire:
        tokens = filled(wire)
        before = everything(wire, tokens)
        lose(folder)
        # Nobody has to write for it to be noticed.
        until(lambda: AGAIN in server.stderr)
        assert server.stderr.count(LOST) == 1
        assert get(server.port, "/readyz")[0] == 200
        assert wire.request("SH_SET", tkn=tokens[0], keys={"a": 2})["st"] == 1
        assert wire.request("SH_SET", tkn=tokens[0], keys={"a": 1})["st"] == 1
        assert everything(wire, tokens) == before
        assert wire.request("SH_SAVE", name="after")["sessions"] == 3
    server.kill()
    with opened(start_server("--data-dir", str(folder)).port) as wire:
        assert everything(wire, tokens) == before


def test_what_stood_in_the_place_of_the_store_is_kept(
    start_server: StartServer, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    folder_replaced(folder)
    until(lambda: AGAIN in server.stderr)
    assert (folder / "ndb.sqlite.replaced-1").read_text() == "somebody else's"
    assert f"is kept as {folder / 'ndb.sqlite.replaced-1'}" in server.stderr


@pytest.fixture
def lost(start_server: StartServer, tmp_path: Path) -> Server:
    """A server whose folder is gone, and can't be made again."""
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as wire:
        wire.request("KV_SET", keys={"a": 1})
    folder_moved_away(folder)
    folder.write_text("in the way")
    until(lambda: LOST in server.stderr)
    return server


def test_as_long_as_it_cannot_be_written_anew_changes_are_refused(
    lost: Server, start_server: StartServer, tmp_path: Path
) -> None:
    with opened(lost.port) as wire:
        assert wire.request("KV_SET", keys={"a": 2})["st"] == 202
        assert wire.request("KV_GET", keys=["a"])["keys"] == {"a": 1}
        assert wire.request("KV_SAVE", name="a")["st"] == 123
        status, _, body = get(lost.port, "/readyz")
        assert (status, str(tmp_path) in body) == (503, False)
        (tmp_path / "data").unlink()
        until(lambda: AGAIN in lost.stderr)
        assert wire.request("KV_SET", keys={"b": 2})["st"] == 1
    lost.kill()
    with opened(start_server("--data-dir", str(tmp_path / "data")).port) as wire:
        assert wire.request("KV_GET", keys=["a", "b"])["keys"] == {"a": 1, "b": 2}


def test_a_server_that_is_told_to_stop_writes_it_anew_before(
    lost: Server, start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "data").unlink()
    lost.stop()
    with opened(start_server("--data-dir", str(tmp_path / "data")).port) as wire:
        assert wire.request("KV_GET", keys=["a"])["keys"] == {"a": 1}


def test_a_folder_that_another_server_has_is_not_written(
    start_server: StartServer, tmp_path: Path
) -> None:
    named, other = tmp_path / "data", tmp_path / "other"
    for folder in (tmp_path / "first", other):
        folder.mkdir(mode=0o700)
    named.symlink_to(tmp_path / "first")
    server = start_server("--data-dir", str(named))
    # From one moment to the next it is a folder that somebody holds.
    held = lock(other / LOCK_FILE)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").replace(named)
    with opened(server.port) as wire:
        until(lambda: wire.request("KV_SET", keys={"b": 1})["st"] == 202)
        until(lambda: f"{REFUSED}: another process uses the data folder" in server.stderr)
        assert [path.name for path in other.iterdir()] == [LOCK_FILE]
        os.close(held)
        until(lambda: AGAIN in server.stderr)
        assert wire.request("KV_SET", keys={"b": 1})["st"] == 1
