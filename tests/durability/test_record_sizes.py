"""No record of the log grows with the data: large ones are split, and what is undone is little."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw
from ndb_protocol import NO_TOKEN
from ndb_server.engine.batch import ChangeSet
from ndb_server.engine.edits import MapChange
from ndb_server.storage.log import RECORD_SIZE
from ndb_server.storage.store import Store

from tests.support.engine_loads import pending_load
from tests.support.journaled_engine import START, Durable, content, on_disk, write

ONE = 100_000
"""Characters of a value."""

MANY = {f"key{number}": "x" * ONE for number in range(50)}
"""Keys that come to several times what a record may have."""

FEW_PAGES = 64
"""Pages of 4 KiB that a full disk has left: too few for a large batch, enough for a small one."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, "relaxed")
    store.start()
    try:
        yield store
    finally:
        store.close()


def largest(store: Store, table: str) -> int:
    """Return how large the largest record in a table is, and let it be compacted then."""
    found: list[int] = []

    def look() -> None:
        select = f"SELECT coalesce(max(length(CAST(changes AS BLOB))), 0) FROM {table}"
        found.extend(*store._database.execute(select))

    store._run_in_thread(look)
    return found[0]


def fill(store: Store, *, full: bool) -> None:
    """Let the file grow no more, as on a full disk, or let it again."""

    def limit() -> None:
        [(pages,)] = store._database.execute("PRAGMA page_count")
        most = pages + FEW_PAGES if full else 2**31 - 2
        store._database.execute(f"PRAGMA max_page_count = {most}").fetchall()

    store._run_in_thread(limit)


@pytest.fixture
def uncompacted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written stays in the log."""
    monkeypatch.setattr(store, "_compact_some", lambda *, is_idle: None)


@pytest.mark.usefixtures("uncompacted")
@pytest.mark.parametrize("token", [NO_TOKEN, 5])
def test_a_batch_of_any_size_is_written_as_records_of_a_bounded_size(
    store: Store, token: int, tmp_path: Path
) -> None:
    values = {key: Raw(b'"%s"' % value.encode()) for key, value in MANY.items()}
    names = {f"{number:0100}": Raw(b"1") for number in range(20_000)}
    rows = [(number, 0, 0, None, Raw(b'{"a":"%s"}' % (b"x" * 300))) for number in range(10, 9000)]
    spread = [(5, 0, 0, None, None)]
    store_batches = [
        ChangeSet(False, [], [*spread, *rows], {token: MapChange.replace_all(values | names)}),
        ChangeSet(False, [], [], {token: MapChange(dict.fromkeys(names), {"last": Raw(b"1")})}),
        ChangeSet(False, [*range(10, 9000)], [], {}),
    ]
    for batch in store_batches:
        assert write(store, batch) is None
        assert 10_000 < largest(store, "log") <= 2 * RECORD_SIZE
    store.run_compacted(lambda: None)
    sessions, keys = content(store)
    assert list(sessions) == [5]
    found = keys if token == NO_TOKEN else sessions[5][2]
    assert found == {key: bytes(value) for key, value in values.items()} | {"last": b"1"}


@pytest.mark.usefixtures("uncompacted")
def test_a_load_of_any_size_is_staged_as_records_of_a_bounded_size(
    store: Store, tmp_path: Path
) -> None:
    values = {key: Raw(b'"%s"' % value.encode()) for key, value in MANY.items()}
    to_load = pending_load({5: (None, values)}, values)
    parts = store.stage(1, to_load.prepare_staging({}))
    assert parts > 2 * len(values) * ONE // RECORD_SIZE
    assert largest(store, "loading") <= RECORD_SIZE + ONE
    assert largest(store, "log") == 0
    durable = Durable()
    durable.engine.load(to_load, START, (1, parts))
    durable.settle(store=store)
    assert largest(store, "log") < 1000
    store.run_compacted(lambda: None)
    sessions, keys = content(store)
    assert sessions[5][2] == keys == {key: bytes(value) for key, value in values.items()}


def test_a_load_that_was_broken_off_takes_no_room_once_the_store_is_opened_again(
    store: Store, tmp_path: Path
) -> None:
    store.stage(
        1, pending_load({}, {key: Raw(b'"%s"' % (b"x" * ONE)) for key in MANY}).prepare_staging({})
    )
    copy = tmp_path.with_name(f"{tmp_path.name}-killed")
    assert os.spawnlp(os.P_WAIT, "cp", "cp", "-r", str(tmp_path), str(copy)) == 0
    opened = Store(copy)
    with opened.transaction() as database:
        assert database.execute("SELECT count(*) FROM loading").fetchall() == [(0,)]
    assert content(opened) == ({}, {})
    opened.close()


def test_a_removal_that_cannot_be_written_costs_little_afterwards_however_large_the_rest_is(
    store: Store, tmp_path: Path
) -> None:
    durable = Durable()
    token = durable.new()
    for kind, of in (("SH", {"tkn": token}), ("KV", {})):
        assert durable.ask(f"{kind}_SET", **of, keys=MANY)["st"] == 1
    durable.settle(store=store)
    fill(store, full=True)
    for kind, of in (("SH", {"tkn": token}), ("KV", {})):
        durable.ask(f"{kind}_RMV", **of, keys=["key7"])
        durable.ask(f"{kind}_SET", **of, keys={"large": "x" * 10 * FEW_PAGES * 4096})
    durable.settle(store=store)
    assert durable.journal.last_error == "database or disk is full"
    # The disk is as full as it was: what fits is written.
    for kind, of in (("SH", {"tkn": token}), ("KV", {})):
        durable.ask(f"{kind}_SET", **of, keys={"small": 1})
    durable.settle(store=store)
    assert durable.journal.last_error is None
    fill(store, full=False)
    in_memory = durable.ask("SH_KEYS", tkn=token)["keys"], durable.ask("KV_KEYS")["keys"]
    assert in_memory == ([*(key for key in MANY if key != "key7"), "key7", "small"],) * 2
    store.close()
    sessions, keys = on_disk(tmp_path)
    assert (list(sessions[token][2]), list(keys)) == in_memory
