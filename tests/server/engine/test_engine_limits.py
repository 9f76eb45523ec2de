"""How much there may be in the engine, and who makes room."""

from typing import Any

import pytest
from msgspec import UNSET, Raw
from ndb_protocol import COMMANDS, Status
from ndb_protocol.messages import Expiry
from ndb_server.engine.engine import Engine
from ndb_server.engine.size_estimate import SESSION_BYTES
from ndb_server.errors import RefusedError
from ndb_server.limits import (
    UNLIMITED,
    Limits,
)

NOW = 1_700_000_000_000


def run(engine: Engine, command: str, now: int = NOW, /, **params: Any) -> Any:
    return engine.handlers[command](COMMANDS[command].params(**params), now)


def new(engine: Engine, duration: int | None = None, now: int = NOW) -> int:
    expiry = UNSET if duration is None else Expiry(duration=duration, deleteSession=True)
    token = run(engine, "SH_NEW", now, expiry=expiry).tkn
    assert isinstance(token, int)
    return token


def keys(count: int, size: int = 10, first: int = 0) -> dict[str, Raw]:
    return {
        f"key{number:05}": Raw(b'"%s"' % (b"x" * size)) for number in range(first, first + count)
    }


def refused(engine: Engine, command: str, now: int = NOW, /, **params: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        run(engine, command, now, **params)
    return caught.value


STORING = ["SET", "ADD", "CLEAR_SET"]


@pytest.mark.parametrize("command", STORING)
def test_a_session_has_so_many_keys_and_no_more(command: str) -> None:
    engine = Engine(limits=Limits(keys=10))
    token = new(engine)
    run(engine, "SH_SET", tkn=token, keys=keys(9))
    run(engine, "SH_SET", tkn=token, keys=keys(10))
    many = keys(11) if command == "CLEAR_SET" else keys(1, first=10)
    refusal = refused(engine, f"SH_{command}", tkn=token, keys=many)
    assert refusal.status is Status.LIMIT_EXCEEDED
    assert refusal.message == "'keys' would make 11 keys in the session; 10 are allowed"
    assert run(engine, "SH_COUNT", tkn=token).cnt == 10
    assert engine.limits_reached == {"keys": 1}
    # What is there can still be written, and what is gone makes room.
    run(engine, f"SH_{command}", tkn=token, keys=keys(10, 20))
    run(engine, "SH_RMV", tkn=token, keys=["key00000"])
    run(engine, "SH_SET", tkn=token, keys=keys(1, first=10))


def test_independent_keys_have_no_number() -> None:
    engine = Engine(limits=Limits(keys=10))
    run(engine, "KV_SET", keys=keys(1000))
    assert run(engine, "KV_COUNT").cnt == 1000


@pytest.mark.parametrize("space", ["SH", "KV"])
@pytest.mark.parametrize("command", STORING)
def test_a_key_has_so_many_characters_and_no_more(space: str, command: str) -> None:
    engine = Engine(limits=Limits(key_length=10))
    session = {"tkn": new(engine)} if space == "SH" else {}
    name = f"{space}_{command}"
    run(engine, name, **session, keys={"é" * 10: Raw(b"1")})
    refusal = refused(engine, name, **session, keys={"a": Raw(b"1"), "é" * 11: Raw(b"1")})
    assert refusal.status is Status.LIMIT_EXCEEDED
    assert refusal.message == f"key '{'é' * 11}' has 11 characters; 10 are allowed"
    assert run(engine, f"{space}_COUNT", **session).cnt == 1
    assert engine.limits_reached == {"key_length": 1}


def test_there_are_so_many_sessions_and_no_more() -> None:
    engine = Engine(limits=Limits(sessions=2))
    first, _ = new(engine), new(engine, 60)
    refusal = refused(engine, "SH_NEW")
    assert refusal.status is Status.SESSION_NEW_FAIL
    assert refusal.message == "there are 2 sessions already, and no more are allowed"
    assert engine.limits_reached == {"sessions": 1}
    # What has expired does not count, and what has ended does not.
    new(engine, now=NOW + 60_000)
    run(engine, "SH_END", NOW + 60_000, tkn=first)
    new(engine, now=NOW + 60_000)


FEW = 20_000
"""Bytes of memory."""


def fill(engine: Engine, token: int) -> int:
    """Store keys in a session until no more are taken; return how many there are."""
    for number in range(10_000):
        try:
            run(engine, "SH_SET", tkn=token, keys=keys(1, 100, number))
        except RefusedError as error:
            assert error.status is Status.LIMIT_EXCEEDED
            assert "--max-memory" in error.message
            return number
    raise AssertionError


def test_without_room_what_grows_is_refused_and_all_else_is_done() -> None:
    engine = Engine(limits=Limits(memory=FEW))
    token = new(engine)
    count = fill(engine, token)
    assert engine.memory <= FEW
    assert refused(engine, "KV_SET", keys=keys(5, 100)).status is Status.LIMIT_EXCEEDED
    larger = {"key00000": Raw(b'"%s"' % (b"x" * 400))}
    assert refused(engine, "SH_SET", tkn=token, keys=larger).status is Status.LIMIT_EXCEEDED
    while True:
        try:
            new(engine)
        except RefusedError as error:
            assert error.status is Status.SESSION_NEW_FAIL
            break
    assert engine.limits_reached["memory"] == 4
    assert run(engine, "SH_COUNT", tkn=token).cnt == count
    # What does not grow, reads or removes is done; and what was removed makes room.
    run(engine, "SH_SET", tkn=token, keys=keys(1, 100))
    assert len(run(engine, "SH_GET", tkn=token, keys=["key00000"]).keys) == 1
    run(engine, "SH_CLEAR", tkn=token)
    assert fill(engine, token) in range(count - 5, count + 1)
    assert engine.evictions == 0


def test_independent_keys_that_are_removed_make_room() -> None:
    engine = Engine(limits=Limits(memory=FEW))
    run(engine, "KV_SET", keys=keys(50, 100))
    assert refused(engine, "KV_SET", keys=keys(50, 300)).status is Status.LIMIT_EXCEEDED
    taken = engine.memory
    run(engine, "KV_RMV", keys=[*keys(25, 100)])
    assert engine.memory == taken / 2
    run(engine, "KV_SET", keys=keys(25, 100))
    assert engine.memory == taken


def test_updating_and_appending_are_refused_without_room() -> None:
    engine = Engine(limits=Limits(memory=FEW))
    token = new(engine)
    run(engine, "SH_SET", tkn=token, keys={"list": Raw(b"[]")})
    fill(engine, token)
    value = Raw(b'"%s"' % (b"x" * 400))
    update = refused(engine, "SH_UPDATE", tkn=token, key="list", path="$", value=value)
    append = refused(engine, "SH_ARR_APPEND", tkn=token, key="list", items=[value])
    assert update.status is append.status is Status.LIMIT_EXCEEDED
    assert bytes(run(engine, "SH_GET", tkn=token, keys=["list"]).keys["list"]) == b"[]"


def test_the_sessions_that_expire_first_make_room_and_never_one_without_expiry() -> None:
    engine = Engine(limits=Limits(memory=FEW, evict=True))
    forever = [new(engine) for _ in range(5)]
    later = [new(engine, 1000 + number) for number in range(5)]
    sooner = [new(engine, 10 + number) for number in range(5)]
    token = new(engine)
    ended: list[int] = []
    number = 0
    while len(ended) < 8:
        run(engine, "SH_SET", tkn=token, keys=keys(1, 100, number))
        number += 1
        alive = run(engine, "SH_EXISTS", tkns=[*later, *sooner]).exist
        ended += [one for one in [*sooner, *later] if one not in alive and one not in ended]
    assert ended == [*sooner, *later][:8]
    assert engine.evictions == 8
    assert engine.memory <= FEW
    fill(engine, token)
    assert engine.evictions == 10
    assert run(engine, "SH_EXISTS", tkns=[*forever, token]).exist == [*forever, token]
    assert run(engine, "SH_INFO_ALL").totalSessions == 6


def test_a_session_does_not_make_room_for_itself() -> None:
    engine = Engine(limits=Limits(memory=FEW, evict=True))
    token = new(engine, 10)
    other = new(engine, 20)
    fill(engine, token)
    assert run(engine, "SH_EXISTS", tkns=[token, other]).exist == [token]
    # It can make room for others still.
    assert engine.evictions == 1
    last = new(engine)
    fill(engine, last)
    assert run(engine, "SH_EXISTS", tkns=[token, last]).exist == [last]


def test_a_session_that_was_extended_goes_when_its_turn_has_come() -> None:
    engine = Engine(limits=Limits(memory=FEW, evict=True))
    expiry = Expiry(duration=10, deleteSession=True, extendOnGet=True)
    extended = run(engine, "SH_NEW", expiry=expiry).tkn
    new(engine, 15)
    run(engine, "SH_GET", NOW + 9_000, tkn=extended, keys=[])
    token = new(engine)
    number = 0
    while not engine.evictions:
        run(engine, "SH_SET", NOW + 9_000, tkn=token, keys=keys(1, 100, number))
        number += 1
    assert run(engine, "SH_EXISTS", NOW + 9_000, tkns=[extended]).exist == [extended]


def test_after_the_end_of_all_sessions_there_is_room_again() -> None:
    for evict in (False, True):
        engine = Engine(limits=Limits(memory=FEW, evict=evict))
        count = fill(engine, new(engine, 60))
        run(engine, "SH_END_ALL")
        assert engine.memory == 0
        assert fill(engine, new(engine)) == count


def test_what_is_larger_than_all_there_may_be_is_refused() -> None:
    engine = Engine(limits=Limits(memory=FEW, evict=True))
    assert refused(engine, "KV_SET", keys=keys(1, 30_000)).status is Status.LIMIT_EXCEEDED
    assert engine.memory == 0


def test_unknown_tokens_are_counted() -> None:
    engine = Engine()
    token = new(engine)
    refused(engine, "SH_GET", tkn=token ^ 1, keys=[])
    run(engine, "SH_EXISTS", tkns=[token, token ^ 1, token ^ 2])
    assert engine.unknown_tokens == 3
    engine.snapshot(0, [token, token ^ 1, token ^ 1, token ^ 2])
    assert engine.unknown_tokens == 6


def test_without_limits_there_are_none() -> None:
    engine = Engine(limits=UNLIMITED)
    token = new(engine)
    run(engine, "SH_SET", tkn=token, keys={"k" * 100_000: Raw(b"1"), **keys(20_000)})
    assert engine.memory > SESSION_BYTES
    assert engine.limits_reached == {}
