"""Rows in and out of the tables, and rows that can't be."""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from ndb_protocol import NO_TOKEN
from ndb_protocol.messages import Expiry
from ndb_server.engine.keymap import unpack
from ndb_server.engine.record import (
    key_checksum,
    row_of,
    session_checksum,
)
from ndb_server.engine.session import NEVER, Session
from ndb_server.storage.tables import (
    DATA_TABLES,
    DELETE_SESSIONS,
    DamageError,
    connect,
    put_keys,
    put_sessions,
    read_keys,
    read_sessions,
)

from tests.support.journaled_engine import raw


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "tables?#%.sqlite")) as database:
        database.executescript(DATA_TABLES)
        yield database


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1100])
def test_any_number_of_rows_goes_in_and_out(database: sqlite3.Connection, count: int) -> None:
    rows = [row_of(token, Session(None, NEVER, b'{"a":1}')) for token in range(1, count + 1)]
    put_sessions(database, rows)
    put_keys(database, NO_TOKEN, {str(number): Raw(b"1") for number in range(count)}.items())
    assert [row[0] for row, _ in read_sessions(database)] == [row[0] for row in rows]
    assert list(read_keys(database)) == [str(number) for number in range(count)]
    DELETE_SESSIONS.run(database, [(row[0],) for row in rows])
    assert list(read_sessions(database)) == []


def test_a_key_that_is_there_keeps_its_place_and_what_is_new_is_behind(
    database: sqlite3.Connection,
) -> None:
    put_keys(database, NO_TOKEN, raw(b="1", a="2").items())
    put_keys(database, NO_TOKEN, raw(c="3", b="4").items())
    assert list(read_keys(database).items()) == list(raw(b="4", a="2", c="3").items())


def test_keys_in_their_table_belong_to_their_session(database: sqlite3.Connection) -> None:
    put_sessions(database, [row_of(t, Session(None, NEVER, {})) for t in (1, 2)])
    put_keys(database, 1, raw(a="1").items())
    put_keys(database, NO_TOKEN, raw(a="0").items())
    assert [unpack(packed) for _, packed in read_sessions(database)] == [raw(a="1"), {}]


def test_keys_are_read_in_their_order_without_being_sorted(database: sqlite3.Connection) -> None:
    """A million of them would take as much memory once more, and four times as long."""
    statements: list[str] = []
    database.set_trace_callback(statements.append)
    read_keys(database)
    [select] = statements
    plan = database.execute(f"EXPLAIN QUERY PLAN {select}").fetchall()
    assert plan
    assert not any(b"TEMP B-TREE" in step for *_, step in plan)


def read_all(database: sqlite3.Connection) -> None:
    list(read_sessions(database))
    read_keys(database)


def session(number: int, *columns: Any) -> tuple[str, list[Any]]:
    """Return how to put a session into its table that has a checksum, as a faulty server would."""
    try:
        checksum = session_checksum(number, *columns)
    except (struct.error, TypeError):
        checksum = 0
    return "INSERT INTO sessions VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)", [
        number,
        *columns,
        checksum,
    ]


def key(number: int, name: bytes, value: bytes) -> tuple[str, list[Any]]:
    checksum = key_checksum(number, name, value)
    return "INSERT INTO keys VALUES (1, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?)", [
        number,
        name,
        value,
        checksum,
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ([session(0, 0, 0, None, b"{}")], "a session whose token is invalid"),
        ([session(1, -1, 0, None, b"{}")], "a session that can't be read"),
        ([session(1, 4294967296, 0, None, b"{}")], "a session that can't be read"),
        ([session(1, "x", 0, None, b"{}")], "a session that can't be read"),
        ([session(1, 0, 8, None, b"{}")], "a session that can't be read"),
        ([session(1, 0, 0, "x", b"{}")], "a session that can't be read"),
        ([session(1, 0, 0, -1, b"{}")], "a session that can't be read"),
        ([session(1, 0, 0, None, b"{")], "a session that can't be read"),
        ([session(1, 0, 0, None, b"[]")], "a session that can't be read"),
        ([session(1, 0, 0, None, b"1")], "a session that can't be read"),
        ([session(1, 0, 0, None, b'{"\xff":1}')], "a session that can't be read"),
        ([session(1, 0, 0, None, b'{"a":"\xff"}')], "a session that can't be read"),
        ([key(5, b"a", b"1")], "a key of a session that does not exist"),
        ([session(5, 0, 0, None, b"{}"), key(5, b"a", b"1")], "a key of a session that does"),
        ([key(0, b"a", b"1 2")], "a key that can't be read"),
        ([key(0, b"\xff", b"1")], "a key that can't be read"),
        ([key(0, b"a", b'"\xff"')], "a key that can't be read"),
    ],
)
def test_what_can_not_be_there_is_damage(
    database: sqlite3.Connection, damage: list[tuple[str, list[Any]]], said: str
) -> None:
    for statement, columns in damage:
        database.execute(statement, columns)
    with pytest.raises(DamageError, match=f"there is {said}"):
        read_all(database)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sessions SET tkn = 2",
        "UPDATE sessions SET duration = 2",
        "UPDATE sessions SET flags = 2",
        "UPDATE sessions SET deadline = 2",
        "UPDATE sessions SET deadline = NULL",
        "UPDATE sessions SET keys = '{\"a\":2}'",
        "UPDATE sessions SET keys = NULL",
        "UPDATE sessions SET checksum = checksum + 1",
        "UPDATE keys SET key = 'b'",
        "UPDATE keys SET value = '2'",
        "UPDATE keys SET checksum = checksum + 1",
    ],
)
def test_what_is_not_what_was_written_is_damage(database: sqlite3.Connection, change: str) -> None:
    put_sessions(database, [row_of(1, Session(Expiry(duration=1), 1, b'{"a":1}'))])
    put_keys(database, NO_TOKEN, raw(a="1").items())
    read_all(database)
    assert database.execute(change).rowcount == 1
    with pytest.raises(DamageError, match="checksum is wrong"):
        read_all(database)


def test_a_file_that_is_read_only_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connect(tmp_path / "none", read_only=True)
