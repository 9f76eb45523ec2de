"""Expiry to the millisecond, what is left in memory, and the work that commands take."""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import pytest
from msgspec import UNSET, Raw
from ndb_protocol import COMMANDS, Extends, Status
from ndb_protocol import messages as m
from ndb_protocol.messages import Expiry
from ndb_server.engine.engine import Engine
from ndb_server.engine.keymap import unpack
from ndb_server.engine.session import Session
from ndb_server.errors import RefusedError

from tests.support.engine_loads import load_session

START = 1_700_000_000_000
SECOND = 1000
DAY = 24 * 3600 * SECOND


def run(engine: Engine, command: str, now: int, /, **params: Any) -> Any:
    return engine.handlers[command](COMMANDS[command].params(**params), now)


def new(engine: Engine, now: int, duration: int | None = None, **flags: bool) -> int:
    expiry = UNSET if duration is None else Expiry(duration=duration, **flags)
    token = run(engine, "SH_NEW", now, expiry=expiry).tkn
    assert isinstance(token, int)
    return token


def put(engine: Engine, token: int, now: int, *keys: str) -> None:
    run(engine, "SH_SET", now, tkn=token, keys={key: Raw(b"1") for key in keys})


def exists(engine: Engine, token: int, now: int) -> bool:
    return bool(run(engine, "SH_EXISTS", now, tkns=[token]).exist)


def counts(engine: Engine, now: int) -> tuple[int, int]:
    reply = run(engine, "SH_INFO_ALL", now)
    return reply.totalSessions, reply.totalKeys


def session_of(engine: Engine, token: int) -> Session:
    """Return a session as it is in memory."""
    return engine.everything()[0][token]


def held(engine: Engine) -> tuple[int, int, int]:
    """Return how many sessions, keys and entries of deadlines are in memory."""
    deadlines = engine._deadlines
    waiting = sum(map(len, deadlines._buckets.values()))
    entries = waiting + len(deadlines._open_bucket) + len(deadlines._late)
    assert len(deadlines._bucket_numbers) == len(deadlines._buckets)
    sessions, _ = engine.everything()
    return len(sessions), sum(len(unpack(each.keys)) for each in sessions.values()), entries


ON_A_SESSION = sorted(
    name
    for name, command in COMMANDS.items()
    if name in Engine().handlers and "tkn" in command.params.__struct_fields__
)

PARAMS: dict[str, Any] = {
    "SH_SET": {"keys": {"a": Raw(b"2")}},
    "SH_ADD": {"keys": {"a": Raw(b"2")}},
    "SH_CLEAR_SET": {"keys": {"a": Raw(b"[]")}},
    "SH_GET": {"keys": ["a"]},
    "SH_CONTAINS": {"keys": ["a"]},
    "SH_RMV": {"keys": ["b"]},
    "SH_FIND": {"path": "$", "rsp": "keys"},
    "SH_UPDATE": {"key": "a", "path": "$", "value": Raw(b"2")},
    "SH_ARR_APPEND": {"key": "a", "items": [Raw(b"2")]},
}
"""What each command takes beside a token, so that it succeeds on a session with an array at a."""


def with_array(engine: Engine, token: int, now: int) -> None:
    run(engine, "SH_SET", now, tkn=token, keys={"a": Raw(b"[1]")})


# Sessions


def test_a_session_lives_until_it_is_ended() -> None:
    engine = Engine()
    token = new(engine, START)
    assert exists(engine, token, START + 1000 * 365 * DAY)
    assert run(engine, "SH_END", START, tkn=token).tkn == token
    assert not exists(engine, token, START)


def test_a_token_in_use_is_not_given_again() -> None:
    tokens = iter([7, 7, 7, 8])
    engine = Engine(make_token=lambda: next(tokens))
    assert [new(engine, START), new(engine, START)] == [7, 8]


@pytest.mark.parametrize("name", ON_A_SESSION)
def test_a_command_on_a_session_that_is_not_there_is_refused_with_100(name: str) -> None:
    engine = Engine()
    ended = new(engine, START)
    run(engine, "SH_END", START, tkn=ended)
    for token in (0, 12345678901234, ended):
        with pytest.raises(RefusedError) as caught:
            run(engine, name, START, tkn=token, **PARAMS.get(name, {}))
        assert caught.value.status is Status.SESSION_NOT_EXIST
        assert "'tkn'" in caught.value.message
        assert token == 0 or str(token) not in caught.value.message


def test_the_keys_of_a_session_are_its_own() -> None:
    engine = Engine()
    one, other = new(engine, START), new(engine, START)
    put(engine, one, START, "a")
    run(engine, "KV_SET", START, keys={"b": Raw(b"1")})
    assert run(engine, "SH_KEYS", START, tkn=one).keys == ["a"]
    assert run(engine, "SH_KEYS", START, tkn=other).keys == []
    assert run(engine, "KV_KEYS", START).keys == ["b"]
    assert counts(engine, START) == (2, 1)


def test_ending_all_sessions_leaves_the_independent_keys() -> None:
    engine = Engine()
    for duration in (None, 1, 60):
        put(engine, new(engine, START, duration), START, "a")
    run(engine, "KV_SET", START, keys={"b": Raw(b"1")})
    assert run(engine, "SH_END_ALL", START).cnt == 3
    assert held(engine) == (0, 0, 0)
    assert run(engine, "KV_COUNT", START).cnt == 1


def test_a_stored_value_does_not_keep_its_message_alive() -> None:
    engine = Engine()
    token = new(engine, START)
    put(engine, token, START, "a")
    assert type(session_of(engine, token).keys) is bytes


# Expiry


@pytest.mark.parametrize("name", ON_A_SESSION)
def test_a_deleted_session_is_seen_expired_at_its_deadline_and_alive_a_millisecond_before(
    name: str,
) -> None:
    for at_deadline in (False, True):
        engine = Engine()
        token = new(engine, START, 60, deleteSession=True)
        with_array(engine, token, START)
        now = START + 60 * SECOND - (not at_deadline)
        params = {"tkn": token, **PARAMS.get(name, {})}
        if at_deadline:
            with pytest.raises(RefusedError) as caught:
                run(engine, name, now, **params)
            assert caught.value.status is Status.SESSION_NOT_EXIST
            assert held(engine)[:2] == (0, 0)
        else:
            assert run(engine, name, now, **params).st == Status.OK


@pytest.mark.parametrize("name", ["SH_KEYS", "SH_COUNT", "SH_GET", "SH_CONTAINS", "SH_FIND"])
def test_an_emptied_session_is_seen_empty_at_its_deadline_and_full_a_millisecond_before(
    name: str,
) -> None:
    for at_deadline in (False, True):
        engine = Engine()
        token = new(engine, START, 60)
        with_array(engine, token, START)
        now = START + 60 * SECOND - (not at_deadline)
        reply = run(engine, name, now, tkn=token, **PARAMS.get(name, {}))
        seen = reply.cnt if name == "SH_COUNT" else getattr(reply, COLLECTION[name])
        assert bool(seen) is not at_deadline


COLLECTION = {"SH_KEYS": "keys", "SH_GET": "keys", "SH_CONTAINS": "contains", "SH_FIND": "keys"}


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_the_counters_see_expiry_to_the_millisecond(off: int) -> None:
    engine = Engine()
    put(engine, new(engine, START, 60, deleteSession=True), START, "a", "b")
    put(engine, new(engine, START, 60), START, "c")
    assert counts(engine, START + 60 * SECOND + off) == ((2, 3) if off < 0 else (1, 0))


def test_an_untouched_session_is_emptied_once_per_period_counted_from_its_deadlines() -> None:
    engine = Engine()
    token = new(engine, START, 10)
    put(engine, token, START, "a")
    # Three deadlines pass, the third half a second ago.
    now = START + 30 * SECOND + 500
    info = run(engine, "SH_INFO", now, tkn=token)
    assert (info.keyCnt, info.expiry.remaining) == (0, 10)
    assert session_of(engine, token).deadline == START + 40 * SECOND
    put(engine, token, now, "b")
    assert run(engine, "SH_COUNT", START + 40 * SECOND - 1, tkn=token).cnt == 1
    assert run(engine, "SH_COUNT", START + 40 * SECOND, tkn=token).cnt == 0


@pytest.mark.parametrize("reaped", [True, False])
@pytest.mark.parametrize(("late", "left"), [(0, 10_000), (1, 9_999), (9_999, 1)])
def test_the_next_period_begins_at_the_deadline_however_late_it_is_noticed(
    reaped: bool, late: int, left: int
) -> None:
    engine = Engine()
    token = new(engine, START, 10)
    now = START + 50 * SECOND + late
    if reaped:
        engine.reap(now)
    assert exists(engine, token, now)
    assert session_of(engine, token).deadline - now == left


def test_a_duration_of_zero_never_expires() -> None:
    engine = Engine()
    token = new(engine, START, 0, deleteSession=True, extendOnGet=True)
    put(engine, token, START, "a")
    later = START + 1000 * 365 * DAY
    assert not engine.reap(later)
    assert run(engine, "SH_CONTAINS", later, tkn=token, keys=["a"]).contains == ["a"]
    info = run(engine, "SH_INFO", later, tkn=token)
    assert not info.expires
    assert info.expiry is UNSET
    assert held(engine) == (1, 1, 0)


def test_the_longest_duration_is_counted_exactly() -> None:
    engine = Engine()
    token = new(engine, START, m.DURATION_MAX, deleteSession=True)
    deadline = START + m.DURATION_MAX * SECOND
    assert exists(engine, token, deadline - 1)
    assert not exists(engine, token, deadline)


@pytest.mark.parametrize(
    ("passed", "remaining"),
    [(0, 10), (1, 10), (999, 10), (1000, 9), (1001, 9), (9000, 1), (9999, 1), (10_000, 10)],
)
def test_the_remaining_seconds_are_rounded_up(passed: int, remaining: int) -> None:
    engine = Engine()
    token = new(engine, START, 10)
    info = run(engine, "SH_INFO", START + passed, tkn=token)
    assert info.expiry.remaining == remaining


# Extension

EXTENDED_BY = {
    "SH_GET": "extendOnGet",
    **dict.fromkeys(
        ["SH_SET", "SH_ADD", "SH_CLEAR_SET", "SH_UPDATE", "SH_ARR_APPEND"], "extendOnSetAdd"
    ),
}


def test_the_table_names_the_commands_that_extend() -> None:
    extending = {name: row.extends.value for name, row in COMMANDS.items() if row.extends}
    assert extending == EXTENDED_BY
    assert {by.value for by in Extends} == {"extendOnGet", "extendOnSetAdd"}


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("flags", [(), ("extendOnGet",), ("extendOnSetAdd",)])
@pytest.mark.parametrize("name", [name for name in ON_A_SESSION if name != "SH_END"])
def test_a_command_extends_the_session_if_its_setting_says_so_and_only_then(
    name: str, flags: Iterable[str], delete: bool
) -> None:
    engine = Engine()
    token = new(engine, START, 60, deleteSession=delete, **dict.fromkeys(flags, True))
    with_array(engine, token, START)
    now = START + 60 * SECOND - 1
    assert run(engine, name, now, tkn=token, **PARAMS.get(name, {})).st == Status.OK
    begun = now if EXTENDED_BY.get(name, "never") in flags else START
    assert session_of(engine, token).deadline == begun + 60 * SECOND


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("SH_GET", {"keys": ["nowhere"]}),
        ("SH_GET", {"keys": []}),
        ("SH_SET", {"keys": {}}),
        ("SH_ADD", {"keys": {"a": Raw(b"2")}}),
        ("SH_CLEAR_SET", {"keys": {}}),
        ("SH_UPDATE", {"key": "a", "path": "$.nowhere", "value": Raw(b"2")}),
        ("SH_ARR_APPEND", {"key": "a", "items": []}),
    ],
)
def test_a_command_extends_even_if_it_found_and_stored_nothing(
    name: str, params: dict[str, Any]
) -> None:
    engine = Engine()
    token = new(engine, START, 60, extendOnGet=True, extendOnSetAdd=True)
    with_array(engine, token, START)
    assert run(engine, name, START + 1, tkn=token, **params).st == Status.OK
    assert session_of(engine, token).deadline == START + 1 + 60 * SECOND


@pytest.mark.parametrize(
    ("name", "params", "status"),
    [
        ("SH_UPDATE", {"key": "a", "path": "$[", "value": Raw(b"2")}, Status.PATH_INVALID),
        ("SH_UPDATE", {"key": "b", "path": "$", "value": Raw(b"2")}, Status.KEY_NOT_EXIST),
        ("SH_UPDATE", {"key": "odd", "path": "$", "value": Raw(b"2")}, Status.VALUE_TYPE_INVALID),
        ("SH_ARR_APPEND", {"key": "b", "items": [Raw(b"2")]}, Status.KEY_NOT_EXIST),
        ("SH_ARR_APPEND", {"key": "odd", "items": [Raw(b"2")]}, Status.VALUE_TYPE_INVALID),
        ("SH_ARR_APPEND", {"key": "a", "items": [], "name": "x"}, Status.VALUE_TYPE_INVALID),
    ],
)
def test_a_failed_command_neither_extends_nor_changes_anything(
    name: str, params: dict[str, Any], status: Status
) -> None:
    engine = Engine()
    token = new(engine, START, 60, extendOnGet=True, extendOnSetAdd=True)
    with_array(engine, token, START)
    run(engine, "SH_SET", START, tkn=token, keys={"odd": Raw(b"[1E400]")})
    try:
        failed = run(engine, name, START + 1, tkn=token, **params).st
    except RefusedError as refused:
        failed = refused.status
    assert failed == status
    session = session_of(engine, token)
    assert session.deadline == START + 60 * SECOND
    assert session.keys == b'{"a":[1],"odd":[1E400]}'


@pytest.mark.parametrize("name", EXTENDED_BY)
def test_nothing_revives_a_session_at_its_deadline(name: str) -> None:
    engine = Engine()
    token = new(engine, START, 1, deleteSession=True, extendOnGet=True, extendOnSetAdd=True)
    with_array(engine, token, START)
    for now in (START + SECOND, START + SECOND + 1):
        with pytest.raises(RefusedError):
            run(engine, name, now, tkn=token, **PARAMS[name])


def test_a_session_lives_as_long_as_it_is_extended_and_a_duration_more() -> None:
    engine = Engine()
    token = new(engine, START, 1, deleteSession=True, extendOnGet=True)
    now = START
    for _ in range(200):
        now += SECOND - 1
        engine.reap(now)
        run(engine, "SH_GET", now, tkn=token, keys=[])
        assert held(engine)[2] == 1
    assert not engine.reap(now + SECOND - 1)
    assert exists(engine, token, now + SECOND - 1)
    engine.reap(now + SECOND)
    assert held(engine) == (0, 0, 0)


# Memory


def test_reaping_gives_back_everything_of_expired_sessions_nobody_touches() -> None:
    engine = Engine()
    for n in range(1000):
        put(engine, new(engine, START + n * 17, 1 + n % 60, deleteSession=True), START, "a", "b")
    assert held(engine) == (1000, 2000, 1000)
    assert not engine.reap(START + 200 * SECOND)
    assert held(engine) == (0, 0, 0)
    assert counts(engine, START + 200 * SECOND) == (0, 0)


def test_reaping_gives_back_the_keys_of_emptied_sessions_nobody_touches() -> None:
    engine = Engine()
    for n in range(100):
        put(engine, new(engine, START, 1 + n % 60), START, "a", "b")
    for passed in range(60, 600, 60):
        assert not engine.reap(START + passed * SECOND)
        assert held(engine) == (100, 0, 100)


def test_the_entries_of_ended_sessions_go_at_their_deadlines() -> None:
    engine = Engine()
    for _ in range(100):
        run(engine, "SH_END", START, tkn=new(engine, START, 60))
    assert held(engine)[:2] == (0, 0)
    engine.reap(START + 60 * SECOND)
    assert held(engine) == (0, 0, 0)


def test_ending_and_loading_a_session_again_and_again_leaves_one_entry() -> None:
    engine = Engine()
    expiry = Expiry(duration=10)
    for n in range(100):
        load_session(engine, 5, expiry, {}, START + n * SECOND)
        run(engine, "SH_END", START + n * SECOND, tkn=5)
    load_session(engine, 5, expiry, {}, START + 100 * SECOND)
    engine.reap(START + 200 * SECOND)
    assert held(engine) == (1, 0, 1)


def test_a_session_loaded_as_never_expiring_leaves_no_entry_of_an_earlier_one() -> None:
    engine = Engine()
    load_session(engine, 5, Expiry(duration=10), {}, START)
    run(engine, "SH_END", START, tkn=5)
    load_session(engine, 5, None, {}, START)
    engine.reap(START + 10 * SECOND)
    assert held(engine) == (1, 0, 0)


def test_reaping_in_slices_does_at_most_the_limit_and_says_whether_more_may_be_due() -> None:
    engine = Engine()
    for _ in range(10):
        new(engine, START, 1, deleteSession=True)
    new(engine, START, 2, deleteSession=True)
    now = START + SECOND
    assert not engine.reap(START, 4)
    for left in (7, 3):
        assert engine.reap(now, 4)
        assert held(engine)[0] == left
    assert not engine.reap(now, 4)
    assert held(engine)[0] == 1
    assert engine.reap(now, 0)


@pytest.mark.parametrize("what", ["expired", "extended", "ended", "not due yet"])
def test_a_slice_of_reaping_is_as_much_work_among_many_of_one_deadline(what: str) -> None:
    def largest_slice(sessions: int) -> int:
        engine = Engine()
        due = START + SECOND
        for _ in range(sessions):
            token = new(engine, START, 1, deleteSession=True, extendOnSetAdd=True)
            if what == "extended":
                put(engine, token, due - 1, "a")
            elif what == "ended":
                run(engine, "SH_END", START, tkn=token)
        now = due - 1 if what == "not due yet" else due
        return max(calls(partial(engine.reap, now, 10)) for _ in range(sessions // 10))

    assert largest_slice(3000) < 1.1 * largest_slice(30)


def test_what_is_overdue_between_two_slices_is_seen_expired_all_the_same() -> None:
    engine = Engine()
    tokens = [new(engine, START, 1, deleteSession=True) for _ in range(10)]
    now = START + SECOND
    engine.reap(now, 1)
    assert run(engine, "SH_EXISTS", now, tkns=tokens).exist == []
    assert counts(engine, now) == (0, 0)
    assert run(engine, "SH_END_ALL", now).cnt == 0


# Saving and loading


def test_a_snapshot_is_of_its_moment() -> None:
    engine = Engine()
    token = new(engine, START, 60)
    put(engine, token, START, "a")
    snapshot = engine.snapshot(START)
    keys = engine.snapshot_keys()
    put(engine, token, START, "b")
    new(engine, START)
    run(engine, "KV_SET", START, keys={"c": Raw(b"1")})
    [(saved, session)] = list(snapshot)
    assert saved == token
    assert session == Session(Expiry(duration=60), START + 60 * SECOND, b'{"a":1}')
    assert keys == {}


def test_a_snapshot_has_no_expired_session_and_none_that_is_not_there() -> None:
    engine = Engine()
    gone = new(engine, START, 1, deleteSession=True)
    kept = new(engine, START)
    new(engine, START)
    chosen = engine.snapshot(START + SECOND, [gone, kept, kept, 99])
    assert [token for token, _ in chosen] == [kept]


def test_a_restored_session_gets_its_full_duration_and_an_existing_one_stays_as_it_is() -> None:
    engine = Engine()
    expiry = Expiry(duration=10, deleteSession=True)
    assert load_session(engine, 5, expiry, {"a": Raw(b"1")}, START)
    assert session_of(engine, 5).deadline == START + 10 * SECOND
    assert not load_session(engine, 5, None, {"b": Raw(b"1")}, START + 10 * SECOND - 1)
    assert run(engine, "SH_KEYS", START + 1, tkn=5).keys == ["a"]
    assert load_session(engine, 5, None, {"b": Raw(b"1")}, START + 10 * SECOND)
    assert run(engine, "SH_KEYS", START + DAY, tkn=5).keys == ["b"]
    assert counts(engine, START + DAY) == (1, 1)


# Work


class Unwalked(dict[int, Session]):
    """Sessions that nobody may look through."""

    def _walked(self, *_: object) -> NoReturn:
        raise AssertionError("somebody walks through the sessions")

    __iter__ = __reversed__ = keys = values = items = copy = __or__ = _walked


def calls(work: Callable[[], object]) -> int:
    """Count the calls, of Python and of C functions, that `work` makes."""
    made = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal made
        made += event in {"call", "c_call"}

    # hypothesis has the collector call it back, which would count when a collection falls in here.
    gc.disable()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return made


def crowded(sessions: int) -> Engine:
    """Return an engine with so many sessions of 2 keys each; they expire in a day, or never."""
    engine = Engine()
    for n in range(sessions):
        put(engine, new(engine, START, n % 2 * 86400), START, "a", "b")
    engine._sessions = Unwalked(engine.everything()[0])
    return engine


def never_walks() -> Iterator[tuple[str, Callable[[Engine, int], object]]]:
    """What is done, given an engine and the token of a session that is due in a second."""
    due = START + SECOND
    yield "SH_INFO_ALL", lambda engine, _: run(engine, "SH_INFO_ALL", START)
    yield "SH_END", lambda engine, token: run(engine, "SH_END", START, tkn=token)
    yield "SH_NEW", lambda engine, _: new(engine, START, 60)
    yield "expiry noticed", lambda engine, token: exists(engine, token, due)
    yield "expiry reaped", lambda engine, _: engine.reap(due)
    yield "expiry reaped by SH_INFO_ALL", lambda engine, _: counts(engine, due)
    yield "nothing to reap", lambda engine, _: engine.reap(START)
    yield "extension", lambda engine, token: put(engine, token, START, "a")


@pytest.mark.parametrize(
    ("what", "work"), list(never_walks()), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("delete", [True, False])
def test_the_work_is_the_same_among_10_and_10_000_sessions(
    delete: bool, what: str, work: Callable[[Engine, int], object]
) -> None:
    def measured(sessions: int) -> int:
        engine = crowded(sessions)
        token = new(engine, START, 1, deleteSession=delete, extendOnSetAdd=True)
        put(engine, token, START, "a")
        return calls(lambda: work(engine, token))

    # What is made once, for all sessions alike, is there by then.
    measured(10)
    assert measured(10) == measured(10_000), what


def test_expiring_many_sessions_takes_work_in_proportion() -> None:
    def per_session(sessions: int) -> float:
        engine = Engine()
        for n in range(sessions):
            put(engine, new(engine, START + n % 1000, 60, deleteSession=True), START, "a")
        return calls(lambda: engine.reap(START + 61 * SECOND)) / sessions

    assert per_session(10_000) < 1.1 * per_session(100)
