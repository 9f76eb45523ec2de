"""What the engine tells its journal: each change, expiry included, in the order they happen."""

from typing import Any

import pytest
from msgspec import UNSET, Raw
from ndb_protocol import COMMANDS, NO_TOKEN
from ndb_protocol.messages import Expiry, OfSession
from ndb_server.edits import Edit
from ndb_server.engine import NEVER, Engine
from ndb_server.errors import RefusedError
from ndb_server.journal import Journal

from tests.server.replica import Replica

START = 1_700_000_000_000
SECOND = 1000
TOKEN = 5


class Told:
    """An engine with one session at `TOKEN`, and what the journal is told from then on."""

    def __init__(self, expiry: Expiry | None = None, values: dict[str, Raw] | None = None) -> None:
        replica = Replica()
        journal: Journal = replica
        self.events = replica.told
        self.engine = Engine(make_token=lambda: TOKEN, journal=journal)
        self.engine.restore(TOKEN, expiry, values or {}, START)
        self.events.clear()

    def run(self, command: str, now: int, /, **params: Any) -> list[tuple[Any, ...]]:
        """Run a command, on the session if it takes a token, and return what was told of it."""
        row = COMMANDS[command].params
        if "tkn" in row.__struct_fields__:
            params["tkn"] = TOKEN
        self.engine.handlers[command](row(**params), now)
        return self.take()

    def take(self) -> list[tuple[Any, ...]]:
        events = self.events.copy()
        self.events.clear()
        return events


@pytest.mark.parametrize(
    ("expiry", "kept", "deadline"),
    [
        (UNSET, None, NEVER),
        (Expiry(duration=0, extendOnGet=True), None, NEVER),
        (Expiry(duration=9), Expiry(duration=9), START + 9 * SECOND),
    ],
)
def test_a_new_session_is_told_with_its_settings_and_deadline(
    expiry: Any, kept: Expiry | None, deadline: int
) -> None:
    told = Told()
    told.run("SH_END", START)
    assert told.run("SH_NEW", START, expiry=expiry) == [("created", TOKEN, kept, deadline)]


def test_a_loaded_session_is_told_with_its_keys() -> None:
    told = Told()
    told.engine.restore(6, Expiry(duration=9), {"a": Raw(b"1")}, START)
    assert told.take() == [
        ("created", 6, Expiry(duration=9), START + 9 * SECOND),
        ("edited", 6, Edit({"a": Raw(b"1")})),
    ]
    told.engine.restore(6, None, {"b": Raw(b"1")}, START)
    assert told.take() == []


def test_the_keys_of_a_loaded_session_stay_as_they_were_told() -> None:
    told = Told()
    told.engine.restore(6, None, {"a": Raw(b"1")}, START)
    [_, (_, _, edit)] = told.take()
    told.engine.handlers["SH_CLEAR"](OfSession(tkn=6), START)
    assert edit == Edit({"a": Raw(b"1")})


def test_an_end_is_told() -> None:
    assert Told().run("SH_END", START) == [("ended", TOKEN)]


def test_the_end_of_all_is_told_after_the_end_of_the_expired() -> None:
    told = Told(Expiry(duration=1, deleteSession=True))
    assert told.run("SH_END_ALL", START + SECOND) == [("ended", TOKEN), ("ended_all",)]


def test_changes_of_keys_are_told_and_before_them_nothing() -> None:
    told = Told(values={"a": Raw(b"1")})
    assert told.run("SH_SET", START, keys={"b": Raw(b"2")}) == [
        ("edited", TOKEN, Edit({"b": Raw(b"2")}))
    ]
    assert told.run("SH_RMV", START, keys=["b", "x"]) == [("edited", TOKEN, Edit(remove=("b",)))]
    assert told.run("SH_CLEAR_SET", START, keys={"c": Raw(b"3")}) == [
        ("edited", TOKEN, Edit({"c": Raw(b"3")}, clear=True))
    ]
    assert told.run("KV_SET", START, keys={"d": Raw(b"4")}) == [
        ("edited", NO_TOKEN, Edit({"d": Raw(b"4")}))
    ]


def test_an_extension_is_told_after_the_change_it_comes_with() -> None:
    told = Told(Expiry(duration=9, extendOnGet=True, extendOnSetAdd=True))
    later = ("extended", TOKEN, START + 1 + 9 * SECOND)
    assert told.run("SH_GET", START + 1, keys=[]) == [later]
    assert told.run("SH_SET", START + 1, keys={"a": Raw(b"1")}) == [
        ("edited", TOKEN, Edit({"a": Raw(b"1")})),
        later,
    ]


@pytest.mark.parametrize("reaped", [True, False])
def test_the_expiry_of_a_deleted_session_is_told_as_its_end(reaped: bool) -> None:
    told = Told(Expiry(duration=1, deleteSession=True), {"a": Raw(b"1")})
    if reaped:
        told.engine.reap(START + SECOND)
        assert told.take() == [("ended", TOKEN)]
    else:
        assert told.run("SH_EXISTS", START + SECOND, tkns=[TOKEN]) == [("ended", TOKEN)]


@pytest.mark.parametrize("reaped", [True, False])
def test_the_expiry_of_an_emptied_session_is_told_with_its_next_deadline(reaped: bool) -> None:
    told = Told(Expiry(duration=1), {"a": Raw(b"1")})
    now = START + 3 * SECOND + 1
    if reaped:
        told.engine.reap(now)
        events = told.take()
    else:
        events = told.run("SH_COUNT", now)
    assert events == [
        ("edited", TOKEN, Edit(clear=True)),
        ("extended", TOKEN, START + 4 * SECOND),
    ]


def test_the_expiry_of_a_session_without_keys_is_told_as_a_new_deadline_alone() -> None:
    told = Told(Expiry(duration=1))
    assert told.run("SH_COUNT", START + SECOND) == [("extended", TOKEN, START + 2 * SECOND)]


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("SH_KEYS", {}),
        ("SH_COUNT", {}),
        ("SH_INFO", {}),
        ("SH_INFO_ALL", {}),
        ("SH_EXISTS", {"tkns": [TOKEN]}),
        ("SH_GET", {"keys": ["a"]}),
        ("SH_CONTAINS", {"keys": ["a"]}),
        ("SH_FIND", {"path": "$", "rsp": "keys"}),
        ("KV_GET", {"keys": ["a"]}),
    ],
)
def test_reading_tells_nothing(command: str, params: dict[str, Any]) -> None:
    assert Told(Expiry(duration=9), {"a": Raw(b"1")}).run(command, START, **params) == []


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("SH_UPDATE", {"key": "x", "path": "$", "value": Raw(b"1")}),
        ("SH_UPDATE", {"key": "a", "path": "$[", "value": Raw(b"1")}),
        ("SH_ARR_APPEND", {"key": "a", "items": []}),
        ("SH_ARR_APPEND", {"key": "x", "items": []}),
        ("KV_UPDATE", {"key": "x", "path": "$", "value": Raw(b"1")}),
    ],
)
def test_a_failed_command_tells_nothing(command: str, params: dict[str, Any]) -> None:
    told = Told(Expiry(duration=9, extendOnSetAdd=True), {"a": Raw(b"1")})
    try:
        events = told.run(command, START, **params)
    except RefusedError:
        events = told.take()
    assert events == []
