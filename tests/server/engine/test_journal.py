"""What waits for which batch, and what is left of one that can't be written."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from ndb_protocol import NO_TOKEN, Status
from ndb_protocol.messages import SaveSessions
from ndb_server.engine.batch import ChangeSet
from ndb_server.engine.edits import Edit
from ndb_server.engine.engine import Engine
from ndb_server.engine.record import unsigned
from ndb_server.engine.session import NEVER, Session
from ndb_server.errors import RefusedError
from ndb_server.interfaces import CommitGate
from ndb_server.limits import Limits
from ndb_server.storage.dataset_commands import DatasetCommands
from ndb_server.storage.datasets import DatasetFolder
from ndb_server.storage.store import Store

from tests.support.engine_loads import pending_load
from tests.support.journal_replica import Replica
from tests.support.journaled_engine import START, Durable, body

LARGE = {f"key{number}": "x" * 100 for number in range(8)}
"""Keys beyond what is packed."""

FULL = "database or disk is full"


@pytest.fixture
def durable() -> Durable:
    return Durable()


@pytest.fixture
def token(durable: Durable) -> int:
    """A session that is on disk."""
    token = durable.new()
    durable.settle()
    return token


def instead(durable: Durable, hold: CommitGate | None, number: int = 0) -> dict[str, Any]:
    assert hold is not None
    assert hold.batch.committed is False
    return body(hold.reply_if_undone(number, durable.now))


def test_a_change_and_who_sees_it_wait_and_nobody_else_does(durable: Durable, token: int) -> None:
    other = durable.new()
    durable.settle()
    _, changed = durable.ask_held("SH_SET", tkn=token, keys={"a": 1})
    reply, seen = durable.ask_held("SH_GET", tkn=token, keys=["a"])
    assert reply["keys"] == {"a": 1}
    for hold in (changed, seen, durable.ask_held("SH_INFO_ALL")[1]):
        assert hold is not None
        assert hold.batch.committed is None
    assert durable.ask_held("SH_GET", tkn=other, keys=["a"])[1] is None
    assert durable.ask_held("KV_COUNT")[1] is None
    durable.settle()
    assert changed is not None
    assert changed.batch.committed
    assert durable.ask_held("SH_GET", tkn=token, keys=["a"])[1] is None


def test_what_changes_while_a_batch_is_written_waits_for_the_next(
    durable: Durable, token: int
) -> None:
    _, first = durable.ask_held("SH_SET", tkn=token, keys={"a": 1})
    durable.disk.end_turn()
    _, second = durable.ask_held("SH_SET", tkn=token, keys={"a": 2})
    assert first is not None
    assert second is not None
    durable.disk.done()
    assert (first.batch.committed, second.batch.committed) == (True, None)
    durable.disk.done()
    assert second.batch.committed


def test_after_the_end_of_all_a_session_waits_for_that_and_not_for_what_it_was_before(
    durable: Durable, token: int
) -> None:
    durable.ask("SH_SET", tkn=token, keys={"a": 1})
    durable.disk.end_turn()
    _, ended = durable.ask_held("SH_END_ALL")
    reply, seen = durable.ask_held("SH_COUNT", tkn=token)
    assert reply["st"] == 100
    assert ended is not None
    assert seen is not None
    assert seen.batch is ended.batch


def test_the_independent_keys_wait_for_their_own_change_after_the_end_of_all(
    durable: Durable, token: int
) -> None:
    _, first = durable.ask_held("KV_SET", keys={"a": 1})
    durable.disk.end_turn()
    durable.ask("SH_END_ALL")
    _, seen = durable.ask_held("KV_COUNT")
    assert first is not None
    assert seen is not None
    assert seen.batch is first.batch


def test_changes_that_can_not_be_written_are_answered_202_and_reads_are_read_again(
    durable: Durable, token: int
) -> None:
    durable.ask("SH_SET", tkn=token, keys={"a": 1})
    durable.settle()
    _, first = durable.ask_held("SH_SET", tkn=token, keys={"a": 2})
    durable.disk.end_turn()
    _, second = durable.ask_held("SH_SET", tkn=token, keys={"a": 3})
    _, seen = durable.ask_held("SH_GET", tkn=token, keys=["a"])
    durable.disk.done(FULL)
    for hold in (first, second):
        assert instead(durable, hold)["st"] == 202
    assert instead(durable, seen)["keys"] == {"a": 1}
    assert durable.ask_held("SH_GET", tkn=token, keys=["a"])[1] is None


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("SH_SET", {"keys": {"key1": 1, "new": 1}}),
        ("SH_ADD", {"keys": {"new": 1}}),
        ("SH_RMV", {"keys": ["key1", "key2"]}),
        ("SH_CLEAR", {}),
        ("SH_CLEAR_SET", {"keys": {"new": 1}}),
        ("SH_UPDATE", {"key": "key1", "path": "$", "value": 1}),
        ("SH_END", {}),
    ],
)
@pytest.mark.parametrize("stored", [{"key1": "1", "key2": "2"}, LARGE], ids=["packed", "map"])
def test_a_change_that_is_undone_leaves_keys_and_counts_as_they_were(
    durable: Durable, token: int, stored: dict[str, str], command: str, params: dict[str, Any]
) -> None:
    durable.ask("SH_SET", tkn=token, keys=stored)
    durable.settle()
    before = durable.ask("SH_INFO_ALL")
    assert before["totalKeys"] == len(stored)
    # Twice, in a batch and in that behind it.
    durable.ask(command, tkn=token, **params)
    durable.disk.end_turn()
    durable.ask(command, tkn=token, **params)
    durable.ask("SH_SET", tkn=token, keys={"more": 1})
    durable.disk.done(FULL)
    assert durable.ask("SH_GET", tkn=token, keys=[*stored, "new", "more"])["keys"] == stored
    assert durable.ask("SH_INFO", tkn=token)["keyCnt"] == len(stored)
    assert durable.ask("SH_INFO_ALL") == before


def test_the_end_of_all_that_is_undone_leaves_what_was_changed_before_and_after_it_undone(
    durable: Durable, token: int
) -> None:
    durable.ask("SH_SET", tkn=token, keys=LARGE)
    durable.ask("KV_SET", keys={"a": 1})
    durable.settle()
    before = durable.ask("SH_INFO_ALL")
    durable.ask("SH_SET", tkn=token, keys={"new": 1, "key1": 1})
    durable.ask("KV_SET", keys={"a": 2})
    durable.ask("SH_END_ALL")
    durable.ask("KV_SET", keys={"a": 3})
    after = durable.new()
    durable.ask("SH_END_ALL")
    durable.settle(FULL)
    assert durable.ask("SH_GET", tkn=token, keys=[*LARGE, "new"])["keys"] == LARGE
    assert durable.ask("SH_EXISTS", tkns=[token, after])["exist"] == [token]
    assert durable.ask("SH_INFO_ALL") == before
    assert durable.ask("KV_GET", keys=["a"])["keys"] == {"a": 1}


def test_keys_that_were_removed_are_written_in_the_order_in_which_undoing_put_them_back(
    durable: Durable, token: int
) -> None:
    durable.ask("SH_SET", tkn=token, keys=LARGE)
    durable.settle()
    durable.ask("SH_RMV", tkn=token, keys=["key0"])
    durable.settle(FULL)
    in_memory = durable.ask("SH_KEYS", tkn=token)["keys"]
    assert sorted(in_memory) == list(LARGE)
    durable.disk.retry()
    changed = durable.disk.done()
    # Their names alone are written: however large the values, it is little.
    assert (changed.maps, changed.moved) == ({}, {token: {"key0": None}})
    assert in_memory[-1] == "key0"


def test_while_nothing_can_be_written_it_is_tried_again_once_at_a_time(
    durable: Durable, token: int
) -> None:
    for _ in range(10):
        durable.ask("SH_SET", tkn=token, keys={"a": 1})
        durable.settle(FULL)
    assert len(durable.disk.retries) == 1
    durable.disk.retry()
    durable.settle(FULL)
    assert len(durable.disk.retries) == 1


def test_changes_that_there_is_no_memory_to_write_are_undone_and_nobody_waits(
    durable: Durable, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hold = durable.ask_held("SH_SET", tkn=token, keys={"a": 1})

    def no_memory() -> None:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(durable.engine, "everything", no_memory)
        durable.disk.end_turn()
    assert instead(durable, hold)["st"] == 202
    assert durable.journal.last_error == "out of memory"
    durable.disk.retry()
    durable.settle()
    assert durable.ask("SH_GET", tkn=token, keys=["a"])["keys"] == {}
    assert durable.ask("SH_SET", tkn=token, keys={"b": 1})["st"] == 1


def test_trouble_is_logged_once_and_its_end_too(
    durable: Durable, token: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        durable.ask("SH_SET", tkn=token, keys={"a": 1})
        durable.settle(FULL)
    durable.disk.retry()
    # Nobody asks for anything, and it is found that it works again.
    durable.settle()
    assert durable.disk.retries == []
    assert [record.getMessage() for record in caplog.records] == [
        f"changes can't be made durable and are refused: {FULL}",
        "changes are durable again",
    ]


def test_a_change_of_a_session_that_is_refused_again_and_again_leaves_nothing_behind(
    durable: Durable,
) -> None:
    token = durable.new(duration=2_592_000)
    durable.settle()
    entries = calendar(durable)
    for _ in range(50):
        durable.now += 100
        durable.ask("SH_SET", tkn=token, keys={"a": 1})
        durable.settle(FULL)
    assert calendar(durable) == entries


def calendar(durable: Durable) -> int:
    return sum(map(len, durable.engine._deadlines._buckets.values()))


def test_the_deadline_that_an_undone_change_moved_is_put_back(durable: Durable) -> None:
    token = durable.new(duration=10, extendOnSetAdd=True, deleteSession=True)
    durable.settle()
    durable.now += 9000
    durable.ask("SH_SET", tkn=token, keys={"a": 1})
    # Its entry in the calendar comes up, and moves on.
    durable.now += 1000
    durable.engine.reap(durable.now)
    assert durable.ask("SH_INFO_ALL")["totalSessions"] == 1
    durable.settle(FULL)
    assert durable.ask("SH_INFO_ALL")["totalSessions"] == 0


def test_a_deadline_that_a_read_moved_is_waited_for_by_nobody_and_not_undone(
    durable: Durable,
) -> None:
    token = durable.new(duration=80, extendOnGet=True)
    durable.settle()
    durable.now += 20_000
    assert durable.ask_held("SH_GET", tkn=token, keys=[])[1] is None
    durable.settle(FULL)
    assert durable.ask("SH_INFO", tkn=token)["expiry"]["remaining"] == 80
    durable.disk.retry()
    changed = durable.disk.done()
    [row] = changed.rows
    assert (unsigned(row[0]), row[3]) == (token, durable.now + 80_000)


def settled(durable: Durable) -> ChangeSet:
    """Let what has changed be written, and return what that was."""
    durable.disk.end_turn()
    return durable.disk.done()


def test_reading_is_writing_eight_times_in_a_duration_at_most(durable: Durable) -> None:
    token = durable.new(duration=80, extendOnGet=True)
    [row] = settled(durable).rows
    last, written = row[3], 0
    for _ in range(800):
        durable.now += 1000
        durable.ask("SH_GET", tkn=token, keys=[])
        durable.disk.end_turn()
        if durable.disk.writing is not None:
            [row] = durable.disk.done().rows
            last = row[3]
            written += 1
        # What is on disk is less than an eighth of the duration behind.
        assert last is not None
        assert durable.now + 80_000 - last < 10_000
    assert 60 <= written <= 80


@pytest.mark.parametrize("written", [True, False])
async def test_a_save_waits_for_what_it_saves_and_is_refused_if_that_is_undone(
    durable: Durable, token: int, tmp_path: Path, written: bool
) -> None:
    store = Store(tmp_path, "relaxed")
    store.start()
    datasets = DatasetCommands(
        durable.engine, tmp_path, lambda: durable.now, store, durable.journal
    )
    save = datasets.handlers["SH_SAVE"]
    durable.ask("SH_SET", tkn=token, keys={"a": 1})
    saving = asyncio.ensure_future(save(SaveSessions(name="a", tkns=[token]), durable.now))
    await asyncio.sleep(0)
    durable.settle(None if written else FULL, store)
    if written:
        assert (await saving).st == Status.SAVE_COMPLETE
    else:
        with pytest.raises(RefusedError, match=f"not durable: {FULL}") as refused:
            await saving
        assert refused.value.status == Status.SAVE_ERROR
    assert DatasetFolder(tmp_path).has("sessions", "a") == written
    datasets.close()
    store.close()


def test_a_load_that_is_undone_leaves_what_was_there_and_what_came_behind_it_is_undone_too() -> (
    None
):
    replica = Replica()
    engine = Engine(journal=replica.journal)
    replica.journal.engine = engine
    engine.edit_keys(Edit({"a": Raw(b"1"), "c": Raw(b"1")}))
    replica.settle()
    for _ in range(2):
        engine.load(pending_load({5: (None, b'{"k":1}')}, {"a": Raw(b"2"), "b": Raw(b"2")}), 0)
        engine.edit_keys(Edit({"c": Raw(b"3"), "d": Raw(b"3")}))
        assert len(engine.everything()[0]) == 1
        replica.send()
        replica.fail()
        assert engine.everything() == ({}, {"a": Raw(b"1"), "c": Raw(b"1")})
        assert engine.totals == (0, 0, 2)
    replica.settle()
    assert (replica.sessions, replica.keys) == ({}, {NO_TOKEN: {"a": b"1", "c": b"1"}})


def test_a_load_is_a_batch_of_its_own_between_what_came_before_it_and_what_came_after() -> None:
    durable = Durable()
    durable.ask("KV_SET", keys={"a": 1})
    batch = durable.engine.load(pending_load({5: (None, b"{}")}), START, (1, 0))
    durable.ask("KV_SET", keys={"b": 1})
    written = []
    durable.disk.end_turn()
    while durable.disk.writing is not None:
        written.append(durable.disk.done())
    assert [(each.load is not None, [*each.maps]) for each in written] == [
        (False, [NO_TOKEN]),
        (True, []),
        (False, [NO_TOKEN]),
    ]
    assert batch is not None
    assert batch.committed


class Full(dict[int, Session]):
    """Sessions for which there is no memory."""

    def update(self, *_: object, **__: object) -> None:
        raise MemoryError


def test_a_load_that_there_is_no_memory_for_leaves_what_others_change_in_that_turn() -> None:
    durable = Durable()
    durable.ask("KV_SET", keys={"a": 1})
    durable.engine._sessions = Full()
    with pytest.raises(MemoryError):
        durable.engine.load(pending_load({5: (None, b"{}")}, {"b": Raw(b"2")}), START, (1, 0))
    assert durable.engine.everything() == ({}, {"a": Raw(b"1")})
    durable.ask("KV_SET", keys={"c": 3})
    assert len(durable.journal.pending) == 2
    written = []
    durable.disk.end_turn()
    while durable.disk.writing is not None:
        written.append(durable.disk.done())
    assert [each.load for each in written] == [None, None]
    assert [[*each.maps[NO_TOKEN].put] for each in written] == [["a"], ["c"]]
    assert durable.engine.totals == (0, 0, 2)


def test_what_moved_in_a_map_that_is_gone_once_all_is_undone_did_not_move() -> None:
    durable = Durable()
    durable.ask("KV_SET", keys={"a": 1, "b": 1, "c": 1})
    durable.settle()
    durable.ask("KV_CLEAR_SET", keys={"a": 1})
    durable.disk.end_turn()
    durable.ask("KV_RMV", keys=["a"])
    durable.ask("KV_SET", keys={"a": 1})
    durable.disk.done(FULL)
    durable.disk.end_turn()
    assert durable.ask("KV_KEYS")["keys"] == ["a", "b", "c"]
    durable.disk.retry()
    assert durable.disk.done().moved == {}


MANY = {f"key{number}": "x" * 515 for number in range(15)}
"""Keys for which no session may stay, where 10,000 bytes may be taken."""


def test_a_session_that_makes_room_is_gone_from_disk_too(tmp_path: Path) -> None:
    durable = Durable(limits=Limits(memory=10_000, evict=True))
    store = Store(tmp_path, "relaxed")
    store.start()
    token = durable.new(duration=60)
    durable.settle(store=store)
    durable.ask("KV_SET", keys=MANY)
    assert durable.engine.evictions == 1
    # Who is told that it has gone waits until that is sure.
    assert durable.ask_held("SH_COUNT", tkn=token)[1] is not None
    durable.settle(store=store)
    store.run_compacted(lambda: None)
    sessions, keys = store.read()
    assert [*sessions] == []
    assert len(keys) == 15
    store.close()


def test_a_session_that_made_room_for_what_is_undone_is_there_again_and_goes_again() -> None:
    durable = Durable(limits=Limits(memory=10_000, evict=True))
    token = durable.new(duration=60)
    durable.settle()
    taken = durable.engine.memory
    for evicted in (1, 2):
        durable.ask("KV_SET", keys=MANY)
        assert durable.engine.evictions == evicted
        durable.settle(FULL)
        assert durable.engine.memory == taken
        assert durable.ask("SH_EXISTS", tkns=[token])["exist"] == [token]


def test_sessions_whose_end_is_undone_can_make_room_still() -> None:
    durable = Durable(limits=Limits(memory=10_000, evict=True))
    durable.new(duration=60)
    durable.settle()
    taken = durable.engine.memory
    durable.ask("SH_END_ALL")
    assert durable.engine.memory == 0
    durable.settle(FULL)
    assert durable.engine.memory == taken
    durable.ask("KV_SET", keys=MANY)
    assert durable.engine.evictions == 1


def test_what_is_on_disk_is_there_whatever_the_limits() -> None:
    durable = Durable(limits=Limits(memory=1000, sessions=1, keys=1))
    values = {f"key{number}": Raw(b"1") for number in range(20)}
    for token in (1, 2):
        durable.engine.restore_session(token, Session(None, NEVER, dict(values)), durable.now)
    durable.engine.restore_keys(dict(values))
    assert durable.engine.totals == (2, 40, 20)
    assert durable.engine.memory > 1000
    assert durable.ask("SH_NEW")["st"] == Status.SESSION_NEW_FAIL
