"""The store on disk: what is written is there, whenever and however it is read again."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from ndb_protocol import NO_TOKEN, TOKEN_MAX
from ndb_protocol.messages import Expiry
from ndb_server.clock import Anchor
from ndb_server.engine.batch import ChangeSet, LoadCommit
from ndb_server.engine.edits import MapChange
from ndb_server.engine.record import SessionRow, row_of
from ndb_server.engine.session import NEVER, Session
from ndb_server.errors import StoreError
from ndb_server.maintenance.check import check_store
from ndb_server.storage.files import lock
from ndb_server.storage.log import records_of
from ndb_server.storage.schema import STORE_FILE, read_anchor, write_complete
from ndb_server.storage.store import LOCK_FILE, Store
from ndb_server.storage.wal_size import WalSize

from tests.support.engine_loads import pending_load
from tests.support.journaled_engine import START, OnDisk, content, on_disk, raw, write
from tests.support.waiting import BOUND, until

SLIDING = Expiry(duration=60, deleteSession=True, extendOnSetAdd=True, extendOnGet=True)
LARGE = {f"key{number:02}": Raw(b'"%b"' % (b"x" * 100)) for number in range(8)}


def packed(token: int, keys: bytes = b"{}", expiry: Expiry | None = None) -> SessionRow:
    deadline = NEVER if expiry is None else START + 1000 * expiry.duration
    return row_of(token, Session(expiry, deadline, keys))


def spread(token: int) -> SessionRow:
    return row_of(token, Session(None, NEVER, {}))


def changed(
    *rows: SessionRow,
    all_ended: bool = False,
    ended: list[int] | None = None,
    maps: dict[int, MapChange] | None = None,
) -> ChangeSet:
    return ChangeSet(all_ended, ended or [], list(rows), maps or {})


def removed(*keys: str) -> dict[str, None]:
    return dict.fromkeys(keys)


class Opened:
    """A store that is written to, on a folder that can be looked at as a crash would leave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder, "relaxed")
        self.store.start()
        self._copies = 0

    def write(self, *batches: ChangeSet) -> None:
        for batch in batches:
            assert write(self.store, batch) is None

    def compact(self) -> None:
        self.store.run_compacted(lambda: None)

    def after_a_crash(self) -> OnDisk:
        return on_disk(self.crashed())

    def crashed(self) -> Path:
        """Return a folder that is as this one, were the process killed now."""
        self._copies += 1
        copy = self.folder.with_name(f"{self.folder.name}-{self._copies}")
        # Read by a connection of this process, the file would lose its locks.
        subprocess.run(["cp", "-r", str(self.folder), str(copy)], check=True)
        return copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    opened = Opened(folder)
    try:
        yield opened
    finally:
        opened.store.close()


def test_what_was_written_is_there_after_a_crash_and_after_a_stop(folder: Path) -> None:
    opened = Opened(folder)
    opened.write(
        changed(
            packed(1),
            packed(TOKEN_MAX, b'{"a":1E400}', SLIDING),
            packed(2**63, b'{"a":1}', Expiry(duration=4_294_967_295)),
            spread(7),
            maps={
                7: MapChange.replace_all(LARGE),
                NO_TOKEN: MapChange.replace_all(raw(b="1.50", a="2")),
            },
        )
    )
    expected = (
        {
            1: (None, NEVER, {}),
            TOKEN_MAX: (SLIDING, START + 60_000, {"a": b"1E400"}),
            2**63: (
                Expiry(duration=4_294_967_295),
                START + 4_294_967_295_000,
                {"a": b"1"},
            ),
            7: (None, NEVER, {key: bytes(value) for key, value in LARGE.items()}),
        },
        {"b": b"1.50", "a": b"2"},
    )
    assert opened.after_a_crash() == expected
    opened.store.close()
    assert on_disk(folder) == expected


@pytest.mark.parametrize("key", ["", "\0", "nul\0inside", "'", "🌍 ключ", "\ud7ff", "a" * 100_000])
def test_any_key_is_kept(opened: Opened, key: str) -> None:
    opened.write(changed(maps={NO_TOKEN: MapChange({}, {key: Raw(b"1")})}))
    assert opened.after_a_crash() == ({}, {key: b"1"})


# The log and its compaction

MIX: list[ChangeSet] = [
    changed(
        packed(1, b'{"a":1}', SLIDING),
        packed(2),
        spread(3),
        spread(4),
        maps={
            3: MapChange.replace_all(LARGE),
            4: MapChange.replace_all(raw(a="1", b="2")),
            NO_TOKEN: MapChange({}, raw(a="1", b="2", c="3")),
        },
    ),
    # A key that is put in again stands at the end, and new ones behind it.
    changed(
        spread(3),
        maps={
            3: MapChange(removed("key01", "n"), raw(key01="1", n="2")),
            NO_TOKEN: MapChange(removed("a", "d"), raw(b="4", a="5", d="6")),
        },
    ),
    changed(packed(4, b'{"b":3}'), ended=[2]),
    changed(spread(3), maps={3: MapChange(removed("n"), raw(n="3"))}),
    # Every session ends, and some begin anew, as if loaded.
    changed(
        packed(1, b'{"z":1}'), spread(3), all_ended=True, maps={3: MapChange.replace_all(LARGE)}
    ),
    changed(
        packed(3),
        spread(5),
        maps={
            5: MapChange.replace_all(raw(b="1", a="2")),
            NO_TOKEN: MapChange(removed("b", "c", "x"), raw(c="7")),
        },
    ),
]


def plain(batches: list[ChangeSet]) -> OnDisk:
    """Make the changes one after the other in dictionaries."""
    sessions: dict[int, tuple[Expiry | None, int, dict[str, bytes]]] = {}
    maps: dict[int, dict[str, bytes]] = {NO_TOKEN: {}}
    for batch in batches:
        if batch.all_ended:
            sessions.clear()
            maps = {NO_TOKEN: maps[NO_TOKEN]}
        for token in batch.ended:
            sessions.pop(token, None)
            maps.pop(token, None)
        for row in batch.rows:
            token, keys = row[0], row[4]
            if keys is None:
                values = maps.setdefault(token, {})
            else:
                maps.pop(token, None)
                values = MIX_PACKED[bytes(keys)]
            expiry = SLIDING if row[1] else None
            sessions[token] = (expiry, NEVER if row[3] is None else row[3], values)
        for token, change in batch.maps.items():
            values = maps[token]
            if change.clear:
                values.clear()
            for key in change.removed:
                values.pop(key, None)
            values.update((key, bytes(value)) for key, value in change.put.items())
    return sessions, maps[NO_TOKEN]


MIX_PACKED = {b"{}": {}, b'{"a":1}': {"a": b"1"}, b'{"b":3}': {"b": b"3"}, b'{"z":1}': {"z": b"1"}}


def ordered(found: OnDisk) -> object:
    """Return what is on disk with its keys in their order."""
    sessions, keys = found
    return {
        token: (expiry, deadline, list(values.items()))
        for token, (expiry, deadline, values) in sessions.items()
    }, list(keys.items())


@pytest.mark.parametrize("count", range(1, len(MIX) + 1))
def test_the_log_is_read_as_what_it_says_and_compacting_it_changes_nothing(
    opened: Opened, count: int
) -> None:
    opened.write(*MIX[:count])
    expected = ordered(plain(MIX[:count]))
    assert ordered(opened.after_a_crash()) == expected
    opened.compact()
    assert ordered(opened.after_a_crash()) == expected


@pytest.mark.parametrize("count", range(1, len(MIX) + 1))
def test_compacting_after_each_batch_comes_to_the_same(opened: Opened, count: int) -> None:
    for batch in MIX[:count]:
        opened.write(batch)
        opened.compact()
    assert ordered(opened.after_a_crash()) == ordered(plain(MIX[:count]))


@pytest.mark.parametrize("split", range(len(MIX)))
def test_a_log_that_is_compacted_twice_changes_nothing(opened: Opened, split: int) -> None:
    opened.write(*MIX[:split])
    opened.compact()
    opened.write(*MIX[split:])
    crashed = opened.crashed()
    with closing(sqlite3.connect(crashed / STORE_FILE)) as database:
        log = database.execute("SELECT * FROM log").fetchall()
    assert len(log) == len(MIX) - split
    for _ in range(2):
        assert ordered(on_disk(crashed)) == ordered(plain(MIX))
        with closing(sqlite3.connect(crashed / STORE_FILE)) as database, database:
            assert database.execute("SELECT count(*) FROM log").fetchone() == (0,)
            database.executemany("INSERT INTO log VALUES (?, ?, ?)", log)


@pytest.mark.parametrize("steps", range(20))
@pytest.mark.parametrize("split", [1, 4])
def test_a_crash_between_the_steps_of_a_compaction_loses_nothing(
    folder: Path, steps: int, split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And neither do batches that come while the log is being compacted."""
    monkeypatch.setattr("ndb_server.storage.compaction._SESSIONS_PER_STEP", 1)
    # Each map is a step of its own.
    monkeypatch.setattr("ndb_server.storage.log.RECORD_SIZE", 4096)
    # Without its thread: the steps are taken here.
    store = Store(folder, "relaxed")
    for batch in MIX[:split]:
        assert store._commit(batch) is None
    compaction = store._compaction_steps()
    coming = list(MIX[split:])
    for _ in range(steps):
        next(compaction, None)
        if coming:
            assert store._commit(coming.pop(0)) is None
    while coming:
        assert store._commit(coming.pop(0)) is None
    copy = folder.with_name("crashed")
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    assert ordered(on_disk(copy)) == ordered(plain(MIX))
    # And if it goes on: what came meanwhile is compacted next.
    for _ in compaction:
        pass
    for _ in store._compaction_steps():
        pass
    assert ordered(content(store)) == ordered(plain(MIX))
    store.start()
    store.close()


def test_the_record_that_commits_a_load_has_the_names_that_stores_on_disk_have() -> None:
    commit = LoadCommit(1, 2, START, skipped=[4], keys_set=["a"], keys_removed=["b"])
    [(record, _)] = records_of(ChangeSet(False, [], [], {}, load=commit))
    load = {"number": 1, "parts": 2, "now": START, "without": [4], "there": ["a"], "gone": ["b"]}
    assert msgspec.to_builtins(record)["load"] == load


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("after", [changed(ended=[77]), changed(packed(77))])
def test_keys_of_a_session_that_comes_between_two_steps_are_not_compacted_without_it(
    folder: Path, steps: int, after: ChangeSet
) -> None:
    store = Store(folder, "relaxed")
    assert (
        store._commit(changed(packed(1), spread(2), maps={2: MapChange.replace_all(LARGE)})) is None
    )
    compaction = store._compaction_steps()
    for _ in range(steps):
        next(compaction, None)
    assert store._commit(changed(spread(77), maps={77: MapChange.replace_all(LARGE)})) is None
    for _ in compaction:
        pass
    assert check_store(folder / STORE_FILE) == []
    assert store._commit(after) is None
    copy = folder.with_name("crashed")
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    expected = {1, 2} if after.ended else {1, 2, 77}
    assert {*on_disk(copy)[0]} == expected
    assert check_store(copy / STORE_FILE) == []
    store.start()
    store.close()


@pytest.mark.parametrize("steps", range(6))
def test_independent_keys_keep_their_order_when_a_load_comes_between_steps_of_a_compaction(
    folder: Path, steps: int
) -> None:
    def put(*new: str) -> ChangeSet:
        change = MapChange(removed(*new), raw(**dict.fromkeys(new, "1")))
        return changed(maps={NO_TOKEN: change})

    store = Store(folder, "relaxed")
    assert store._commit(put("a")) is None
    compaction = store._compaction_steps()
    for _ in range(steps):
        next(compaction, None)
    assert store._commit(put("b")) is None
    to_load = pending_load({}, raw(b="2", c="2", d="2"))
    # As it is staged, "b" and "d" are there; as it counts, "b" and "c".
    staged = to_load.prepare_staging(raw(b="1", d="1"))()
    store._begin_load(1)
    for record, rows in records_of(staged):
        store._stage(1, record, rows)
    counts = to_load.commit(1, 1, START, [], raw(b="1", c="1"))
    assert store._commit(put("c")) is None
    assert store._commit(ChangeSet(False, [], [], {}, load=counts)) is None
    for _ in compaction:
        pass
    store.compact()
    assert [*content(store)[1]] == ["a", "b", "c", "d"]
    store.start()
    store.close()


def test_a_compaction_that_fails_is_made_again_and_leaves_no_keys_of_ended_sessions(
    folder: Path,
) -> None:
    store = Store(folder, "relaxed")
    for batch in (
        changed(spread(1), spread(2), maps={t: MapChange.replace_all(LARGE) for t in (1, 2)}),
        None,
        changed(packed(1), ended=[2]),
    ):
        if batch is None:
            store.compact()
        else:
            assert store._commit(batch) is None

    def deny(action: int, name: str | None, *_: object) -> int:
        # As if the disk were full when it is committed.
        is_commit = action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT"
        return sqlite3.SQLITE_DENY if is_commit else sqlite3.SQLITE_OK

    store._database.set_authorizer(deny)
    with pytest.raises(sqlite3.Error):
        store.compact()
    store._database.set_authorizer(None)
    store.compact()
    assert content(store) == ({1: (None, NEVER, {})}, {})
    store.start()
    store.close()


# What the file is


def test_a_file_that_is_no_store_is_refused_and_left_alone(folder: Path) -> None:
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        database.execute("CREATE TABLE mine (a)")
    before = (folder / STORE_FILE).read_bytes()
    with pytest.raises(StoreError, match="is not a store of NDB"):
        Store(folder)
    assert (folder / STORE_FILE).read_bytes() == before


@pytest.mark.parametrize("version", [1, 3])
def test_a_store_of_another_version_is_refused_and_left_alone(folder: Path, version: int) -> None:
    on_disk(folder)
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    before = (folder / STORE_FILE).read_bytes()
    with pytest.raises(StoreError, match=f"has version {version} of the tables; .* only 2"):
        Store(folder)
    assert (folder / STORE_FILE).read_bytes() == before


def overwritten(path: Path) -> None:
    path.write_bytes(b"This is no database, whatever its name says." * 100)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def unreadable_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO log VALUES (99, '{}', 1)")


@pytest.mark.parametrize("damage", [overwritten, cut, unreadable_log])
def test_a_damaged_file_is_refused_by_its_name_and_with_a_way_out(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    opened = Opened(folder)
    opened.write(changed(maps={NO_TOKEN: MapChange.replace_all(LARGE)}))
    opened.store.close()
    damage(folder / STORE_FILE)
    with pytest.raises(StoreError, match=rf"{folder / STORE_FILE} is damaged: .*--load.*--salvage"):
        Store(folder)
    # It is not held any more.
    (folder / STORE_FILE).unlink()
    assert on_disk(folder) == ({}, {})


def test_a_file_that_can_not_be_opened_is_not_called_damaged(folder: Path) -> None:
    (folder / STORE_FILE).mkdir()
    with pytest.raises(StoreError, match=rf"{folder / STORE_FILE} can't be used: Is a directory"):
        Store(folder)


def test_the_second_to_open_a_folder_is_told_which_process_has_it(folder: Path) -> None:
    opened = Opened(folder)
    opening = "import sys, pathlib; from ndb_server.storage.store import Store\n"
    opening += "from ndb_server.errors import StoreError\n"
    opening += "try: Store(pathlib.Path(sys.argv[1]))\nexcept StoreError as error: print(error)"
    command = [sys.executable, "-c", opening, str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"another server uses {folder}: process {os.getpid()}\n"
    opened.store.close()
    assert on_disk(folder) == ({}, {})


def test_tokens_and_settings_can_be_read_in_the_file(opened: Opened) -> None:
    opened.write(changed(packed(TOKEN_MAX, b'{"a":1}', SLIDING), packed(1)))
    opened.compact()
    with closing(sqlite3.connect(opened.crashed() / STORE_FILE)) as database:
        rows = database.execute("SELECT * FROM readable_sessions ORDER BY length(tkn)").fetchall()
    assert rows == [
        ("1", 0, 0, 0, 0, None, "{}"),
        (str(TOKEN_MAX), 60, 1, 1, 1, "2023-11-14 22:14:20.000", '{"a":1}'),
    ]


def test_the_file_shrinks_when_most_sessions_have_gone(opened: Opened) -> None:
    """At most a thousand free pages, or a quarter of all, are kept for what comes."""
    opened.write(
        *(
            changed(
                *(spread(token) for token in range(begin, begin + 50)),
                maps={
                    token: MapChange.replace_all(LARGE_500) for token in range(begin, begin + 50)
                },
            )
            for begin in range(1, 501, 50)
        )
    )
    opened.compact()
    assert size(opened.folder) > 20_000_000
    opened.write(changed(all_ended=True))
    opened.compact()
    assert size(opened.folder) < 1100 * 4096


def test_free_pages_are_given_back_a_thousand_in_a_transaction(opened: Opened) -> None:
    tokens = range(1, 201)
    maps = {token: MapChange.replace_all(LARGE_500) for token in tokens}
    opened.write(changed(*map(spread, tokens), maps=maps))
    opened.compact()
    pages = size(opened.folder) // 4096
    opened.write(changed(all_ended=True))
    statements: list[str] = []
    opened.store._database.set_trace_callback(statements.append)
    opened.compact()
    given_back = [each for each in statements if "incremental_vacuum" in each]
    assert 0 < len(given_back) <= pages // 1024


def test_whoever_waits_for_work_behind_a_compaction_is_told_that_it_failed(opened: Opened) -> None:
    def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        opened.store.run_compacted(work)
    opened.write(changed(packed(1)))


def test_a_batch_that_there_is_no_memory_for_is_refused_and_the_next_is_written(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ndb_server.storage.store.encode_into", no_memory)
    assert write(opened.store, changed(packed(1))) == "out of memory"
    monkeypatch.undo()
    opened.write(changed(packed(2)))
    sessions, _ = opened.after_a_crash()
    assert set(sessions) == {2}


def test_a_store_that_fails_says_so_and_lets_go_of_its_folder(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed = threading.Event()
    store = Store(folder, on_failed=failed.set)
    store.start()
    no_row: Any = object()
    store.write(changed(no_row), lambda _: None)
    assert failed.wait(BOUND)
    store.close()
    os.close(lock(folder / LOCK_FILE))
    [said] = caplog.messages
    assert said.startswith("the store failed\nTraceback")
    assert said.endswith("TypeError\n")


def test_the_files_stay_small_while_sessions_come_and_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is written: beside what lives, there are a log and some free pages."""
    monkeypatch.setattr("ndb_server.storage.store._COMPACT_AFTER", 2**20)
    opened = Opened(folder)
    largest = 0
    for begin in range(1, 2001, 20):
        tokens = range(begin, begin + 20)
        opened.write(
            changed(
                *(spread(token) for token in tokens),
                ended=[token - 20 for token in tokens],
                maps={token: MapChange.replace_all(LARGE_500) for token in tokens},
            )
        )
        files = [folder / STORE_FILE, folder / f"{STORE_FILE}-wal"]
        largest = max(largest, sum(path.stat().st_size for path in files))
    opened.store.close()
    # A hundred megabytes were written; one lives.
    assert largest < 40_000_000


def test_a_steady_small_change_does_not_make_the_write_ahead_log_grow(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a page of it: two thousand are eight times what it is compacted after."""
    monkeypatch.setattr("ndb_server.storage.store._COMPACT_AFTER", 2**20)
    monkeypatch.setattr("ndb_server.storage.wal_size.MEASURE_AFTER", 2**18)
    opened = Opened(folder)
    largest = 0
    for number in range(2000):
        opened.write(changed(maps={NO_TOKEN: MapChange({}, raw(n=str(number)))}))
        largest = max(largest, (folder / f"{STORE_FILE}-wal").stat().st_size)
    assert opened.after_a_crash() == ({}, {"n": b"1999"})
    opened.store.close()
    assert 2**20 < largest < 2 * 2**20


def test_a_store_that_another_process_has_locked_is_waited_for_once(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.store._run_in_thread(lambda: opened.store._database.execute("PRAGMA busy_timeout = 1"))
    statements: list[str] = []
    opened.store._database.set_trace_callback(statements.append)
    other = closing(sqlite3.connect(opened.folder / STORE_FILE, isolation_level=None))
    with other as database:
        database.execute("BEGIN IMMEDIATE")
        batch = changed(maps={NO_TOKEN: MapChange({}, raw(a="1"))})
        assert write(opened.store, batch) == "database is locked"
        assert sum(statement.startswith("INSERT INTO log") for statement in statements) == 1
        database.execute("ROLLBACK")
        opened.write(batch)
    assert opened.after_a_crash() == ({}, {"a": b"1"})


def test_a_write_ahead_log_that_begins_anew_may_be_shorter_than_it_was(folder: Path) -> None:
    log = WalSize(folder / "log")
    log.note_write(10_000)
    assert log.min_file_size > 0
    log.note_checkpoint(restarts=True)
    assert log.min_file_size == 0


def test_a_store_that_was_written_anew_is_synced_from_its_first_batch_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndb_server.storage.store._IDLE", 0.05)
    opened = Opened(folder)
    opened.write(*MIX)
    folder.rename(folder.with_name("elsewhere"))
    until(lambda: opened.store.needs_rewrite)
    whole = ChangeSet(True, [], [], {NO_TOKEN: MapChange.replace_all(raw(a="1"))}, complete=True)
    opened.write(whole)
    opened.write(changed(maps={NO_TOKEN: MapChange({}, raw(b="1"))}))
    until(lambda: opened.store._synced == opened.store._seq)
    opened.store.close()


# The anchor of the clock

FIRST, SECOND = Anchor(START, START + 1000), Anchor(START, START + 2000)


def kept_anchor(folder: Path) -> Anchor:
    with closing(sqlite3.connect(folder / STORE_FILE)) as database:
        return read_anchor(database)


def test_an_anchor_that_comes_while_another_is_written_is_on_disk_before_the_next_batch(
    opened: Opened,
) -> None:
    coming = [SECOND]

    def step(statement: str) -> None:
        # The store's thread is about to write the first.
        if statement.startswith("REPLACE INTO clock") and coming:
            opened.store.set_anchor(coming.pop())

    opened.store._database.set_trace_callback(step)
    opened.store.set_anchor(FIRST)
    opened.write(*MIX)
    assert not coming
    assert kept_anchor(opened.crashed()) == SECOND


def test_an_anchor_that_comes_while_the_store_is_written_anew_is_on_disk_before_the_next_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndb_server.storage.store._IDLE", 0.05)
    opened = Opened(folder)

    def step(path: Path, complete: ChangeSet, anchor: Anchor) -> None:
        write_complete(path, complete, anchor)
        opened.store.set_anchor(SECOND)

    monkeypatch.setattr("ndb_server.storage.store.write_complete", step)
    with closing(opened.store):
        opened.store.set_anchor(FIRST)
        opened.write(*MIX)
        folder.rename(folder.with_name("elsewhere"))
        until(lambda: opened.store.needs_rewrite)
        opened.write(
            ChangeSet(True, [], [], {NO_TOKEN: MapChange.replace_all(raw(a="1"))}, complete=True)
        )
        opened.write(changed(maps={NO_TOKEN: MapChange({}, raw(b="1"))}))
        assert kept_anchor(opened.crashed()) == SECOND


LARGE_500 = {f"key{number}": Raw(b'"%b"' % (b"x" * 1000)) for number in range(50)}


def size(folder: Path) -> int:
    return (folder / STORE_FILE).stat().st_size
