"""Stores with real damage: what a server says of them, and what can be kept of them."""

import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from ndb_server.errors import StoreError
from ndb_server.maintenance.check import check_store
from ndb_server.maintenance.salvage import salvage
from ndb_server.storage.schema import STORE_FILE

from tests.support.command_line import run
from tests.support.data_folders import fill, stored
from tests.support.raw_client import opened
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND

PAGE = 4096
Damage = Callable[[bytearray], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some hundred pages of sessions and keys."""
    folder = tmp_path_factory.mktemp("sound") / "data"
    fill(folder, 2000)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    return folder


def lines(folder: Path) -> set[bytes]:
    return set(stored(folder))


def damage(folder: Path, change: Damage) -> None:
    content = bytearray((folder / STORE_FILE).read_bytes())
    change(content)
    (folder / STORE_FILE).write_bytes(content)


def zeroed(*pages: int) -> Damage:
    def change(content: bytearray) -> None:
        for number in pages:
            content[(number - 1) * PAGE : number * PAGE] = bytes(PAGE)

    return change


def flipped(*positions: int) -> Damage:
    def change(content: bytearray) -> None:
        for at in positions:
            content[at] ^= 0xFF

    return change


def cut(content: bytearray) -> None:
    del content[len(content) // 2 + 1000 :]


def pages_of(path: Path, table: str) -> tuple[int, set[int]]:
    """Return the root of a table, and the pages that hold its rows."""
    with closing(sqlite3.connect(path)) as database:
        [(root,)] = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    content = path.read_bytes()
    leaves: set[int] = set()
    waiting = [root]
    while waiting:
        number = waiting.pop()
        page = content[(number - 1) * PAGE : number * PAGE]
        if page[0] == 13:
            leaves.add(number)
            continue
        assert page[0] == 5
        for at in range(int.from_bytes(page[3:5], "big")):
            cell = int.from_bytes(page[12 + 2 * at : 14 + 2 * at], "big")
            waiting.append(int.from_bytes(page[cell : cell + 4], "big"))
        waiting.append(int.from_bytes(page[8:12], "big"))
    return root, leaves


def test_a_sound_store_is_left_as_it_is(folder: Path) -> None:
    before = (folder / STORE_FILE).read_bytes()
    assert salvage(folder) == []
    assert (folder / STORE_FILE).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["ndb.lock", STORE_FILE]


@pytest.mark.parametrize(
    "change",
    [
        zeroed(1),
        zeroed(2),
        flipped(0, 1),
        flipped(68),
        flipped(100),
        flipped(103, 104),
    ],
    ids=["first page", "pointer map", "magic", "application_id", "tree", "cells"],
)
def test_damage_to_what_is_no_row_loses_none(folder: Path, change: Damage) -> None:
    before = lines(folder)
    damage(folder, change)
    assert salvage(folder)
    assert lines(folder) == before
    assert check_store(folder / STORE_FILE) == []


@pytest.mark.parametrize("table", ["sessions", "keys"])
def test_a_table_that_has_lost_its_root_loses_no_row(folder: Path, table: str) -> None:
    before = lines(folder)
    root, _ = pages_of(folder / STORE_FILE, table)
    damage(folder, zeroed(root))
    assert f"1 pages could not be read completely: {root}" in salvage(folder)
    assert lines(folder) == before


@pytest.mark.parametrize("byte", [0, 1, 3, 4, 5, 6])
def test_a_page_with_a_flipped_byte_in_its_header_loses_no_row(folder: Path, byte: int) -> None:
    before = lines(folder)
    _, leaves = pages_of(folder / STORE_FILE, "sessions")
    [some, *_] = sorted(leaves)
    damage(folder, flipped((some - 1) * PAGE + byte))
    salvage(folder)
    assert lines(folder) == before


def test_zeroed_pages_in_the_middle_lose_the_rows_on_them_alone(folder: Path) -> None:
    before = lines(folder)
    _, leaves = pages_of(folder / STORE_FILE, "sessions")
    lost = sorted(leaves)[5:8]
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        [(sessions,)] = database.execute("SELECT count(*) FROM sessions")
    on_them = sum((folder / STORE_FILE).read_bytes()[(n - 1) * PAGE + 4] for n in lost)
    damage(folder, zeroed(*lost))
    said = salvage(folder)
    assert f"{sessions - on_them} sessions and 50 independent keys were kept" in said
    assert any(line.startswith("3 pages could not be read") for line in said)
    kept = lines(folder)
    assert kept < before
    assert len(kept) == len(before) - on_them
    assert check_store(folder / STORE_FILE) == []


def test_a_file_that_was_cut_keeps_what_is_left(folder: Path) -> None:
    before = lines(folder)
    last = len((folder / STORE_FILE).read_bytes()) // PAGE
    damage(folder, cut)
    said = salvage(folder)
    assert any(line.endswith(f"-{last}") for line in said)
    kept = lines(folder)
    assert len(before) / 3 < len(kept) < len(before)
    # Of a large session's keys, each has a row of its own.
    large = re.compile(rb'{"tkn":"[0-9]{1,2}"')
    assert {line for line in kept if not large.match(line)} <= before


def test_rows_that_cannot_be_read_are_told_without_a_token(folder: Path) -> None:
    before = lines(folder)
    token = 7919 * 2**40
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        database.execute("UPDATE sessions SET keys = 'x' WHERE tkn = ?", (token,))
        database.execute("UPDATE keys SET value = '[' WHERE key = 'key 7'")
        database.execute("INSERT INTO log VALUES (41, 'x', 1), (42, '{}', 1)")
        [(id,)] = database.execute("SELECT id FROM keys WHERE key = 'key 7'")
        database.commit()
    said = salvage(folder)
    assert "1 sessions could not be read" in said
    assert f"1 rows of the table keys could not be read: {id}" in said
    assert "2 rows of the table log could not be read: 41-42" in said
    assert str(token) not in "\n".join(said)
    lost = before - lines(folder)
    assert len(lost) == 2


def test_keys_whose_session_is_lost_are_kept_beside_the_store(
    capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    before = lines(folder)
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        database.execute("DELETE FROM sessions WHERE tkn = 3")
        database.commit()
    said = salvage(folder)
    beside = folder / f"{STORE_FILE}.damaged-1-keys.jsonl"
    assert str(beside) in said[-1]
    assert check_store(folder / STORE_FILE) == []
    [lost] = before - lines(folder)
    assert beside.read_bytes() == lost + b"\n"
    assert run(capfd, "import", beside, "--data-dir", folder)[0] == 0
    assert lines(folder) == before


def test_what_was_deleted_does_not_come_back(folder: Path) -> None:
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        # Some builds of SQLite wipe what is deleted.
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("DELETE FROM sessions WHERE tkn > 0 AND keys IS NOT NULL")
        database.execute("DELETE FROM keys WHERE tkn = 0")
        database.commit()
    before = lines(folder)
    for change in (flipped(100), zeroed(1)):
        damage(folder, change)
        assert salvage(folder)
        assert lines(folder) == before


def test_what_is_only_in_the_write_ahead_log_is_kept(
    tmp_path: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as client:
        client.request("KV_SET", keys={"motd": "hello"})
        tkn = client.request("SH_NEW")["tkn"]
        client.request("SH_SET", tkn=tkn, keys={"a": "x" * 5000})
        client.request("SH_SET", tkn=tkn, keys={"b": 1})
    server.kill()
    before = lines(folder)
    assert len(before) == 2
    assert (folder / f"{STORE_FILE}-wal").stat().st_size > 0
    path = folder / STORE_FILE
    with closing(sqlite3.connect(path)) as database:
        # The server may have checkpointed, so what the damage hits is written to the log once more.
        [(version,)] = database.execute("PRAGMA user_version")
        database.execute(f"PRAGMA user_version = {version}")
        # Every page of the file that is in the log too is read from there.
        damage(folder, flipped(0))
        database.execute("INSERT INTO log VALUES (1000, 'x', 1)")
        database.commit()
        kept_as = salvage_while_open(folder)
    assert lines(folder) == before
    assert kept_as.exists()


def salvage_while_open(folder: Path) -> Path:
    """Salvage while the damaged file is open, so that its write-ahead log is not put into it."""
    said = salvage(folder)
    assert "1 rows of the table log could not be read: 1000" in said
    kept_as = folder / f"{STORE_FILE}.damaged-1"
    assert (folder / f"{STORE_FILE}.damaged-1-wal").exists()
    return kept_as


def test_a_write_ahead_log_of_garbage_is_passed_over(folder: Path) -> None:
    before = lines(folder)
    garbage = random.Random(1).randbytes(3 * PAGE)
    _, leaves = pages_of(folder / STORE_FILE, "keys")
    damage(folder, flipped((min(leaves) - 1) * PAGE))
    for wal in (garbage, b"\x37\x7f\x06\x82" + garbage, b""):
        (folder / f"{STORE_FILE}-wal").write_bytes(wal)
        salvage(folder)
        assert lines(folder) == before


@pytest.mark.parametrize("seed", range(6))
def test_no_damage_whatever_makes_salvage_fail_or_leaves_damage(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    before = lines(folder)

    def change(content: bytearray) -> None:
        for _ in range(30):
            content[chance.randrange(len(content))] = chance.randrange(256)

    damage(folder, change)
    salvage(folder)
    assert check_store(folder / STORE_FILE) == []
    # What is not the same was on one of thirty bytes' rows, or says so.
    assert len(before - lines(folder)) <= 30 * 4


def test_a_file_of_which_nothing_can_be_read_is_left_alone(folder: Path) -> None:
    garbage = random.Random(1).randbytes(10 * PAGE)
    (folder / STORE_FILE).write_bytes(garbage)
    with pytest.raises(StoreError, match="nothing in"):
        salvage(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["ndb.lock", STORE_FILE]
    assert (folder / STORE_FILE).read_bytes() == garbage


def test_a_store_of_another_version_is_not_salvaged(folder: Path) -> None:
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        database.execute("PRAGMA user_version = 9")
        database.commit()
    with pytest.raises(StoreError, match="version 9"):
        salvage(folder)


# End to end


def test_a_server_refuses_a_damaged_store_and_starts_with_what_can_be_read(
    folder: Path, start_server: StartServer
) -> None:
    before = lines(folder)
    _, leaves = pages_of(folder / STORE_FILE, "sessions")
    damage(folder, zeroed(sorted(leaves)[4]))
    damaged = (folder / STORE_FILE).read_bytes()
    process = subprocess.run(
        [sys.executable, "-m", "ndb_server", "--port", "0", "--data-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    refusal = process.stderr.splitlines()[-1]
    assert refusal.startswith(f"ndb-server: {folder / STORE_FILE} is damaged: ")
    assert "page" in refusal.lower()
    assert "--load a dataset" in refusal
    assert "--salvage" in refusal
    server = start_server("--data-dir", str(folder), "--salvage")
    kept_as = folder / f"{STORE_FILE}.damaged-1"
    assert kept_as.read_bytes() == damaged
    [kept] = re.findall(r"([0-9]+) sessions and 50 independent keys were kept", server.stderr)
    with opened(server.port) as client:
        assert client.request("SH_INFO_ALL")["totalSessions"] == int(kept)
        assert client.request("KV_COUNT")["cnt"] == 50
    server.stop()
    assert lines(folder) < before
    # Damage there is none any more, so nothing more is done.
    again = start_server("--data-dir", str(folder), "--salvage")
    assert "damaged" not in again.stderr
