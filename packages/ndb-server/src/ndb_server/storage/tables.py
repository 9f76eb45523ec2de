"""The tables of the store and of datasets, and how rows are written and read.

Rows go in many to a statement. A statement that is called for each row gives the interpreter's lock
away and takes it back each time; one for many rows gives the event loop a long moment instead.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct, convert
from ndb_protocol import NO_TOKEN
from ndb_protocol.messages import DURATION_MAX

from ..engine.keymap import KeyMap
from ..engine.record import (
    DELETE_SESSION,
    EXTEND_ON_GET,
    EXTEND_ON_SET_ADD,
    SessionRow,
    key_checksum,
    session_checksum,
)

TABLES = """
CREATE TABLE sessions (
    tkn INTEGER PRIMARY KEY,
    duration INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    deadline INTEGER,
    keys TEXT,
    checksum INTEGER NOT NULL
);
CREATE TABLE keys (
    id INTEGER PRIMARY KEY,
    tkn INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (tkn, key)
);
"""
"""Sessions, and those keys that are not packed into their session's row.

What the columns hold is described in docs/reference/data-folder.md.
"""

_AT_ONCE = (512, 64, 8, 1)


def connect(path: Path, *, read_only: bool = False, immutable: bool = False) -> sqlite3.Connection:
    """Open a file of SQLite; text comes out as bytes.

    Args:
        path: the file.
        read_only: it has to be there, and is not changed.
        immutable: nobody changes it meanwhile, so that no file has to be made beside it.
    """
    mode = "ro" if read_only else "rwc"
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}&immutable={int(immutable)}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    database.text_factory = bytes
    # There need not be a folder for temporary files that can be written.
    database.execute("PRAGMA temp_store = MEMORY")
    return database


def verdict_of(text: bytes) -> str:
    """Return what SQLite's own check of a file has found; nothing if that is nothing."""
    # The first line of several says where, each of the others what.
    found = text.decode(errors="replace").removeprefix("*** in database main ***\n")
    return "" if found == "ok" else found


def check_schema(database: sqlite3.Connection, script: str) -> None:
    """Check that the tables of `database` are those that `script` makes.

    Raises:
        DamageError: they are others.
        sqlite3.Error: they can't be read.
    """
    if _schema(database) != _made_by(script):
        raise DamageError("the tables are not those that the server has created")


def check_structure(database: sqlite3.Connection) -> None:
    """Check that no row is missing, or not led to: checksums say that one is what was written.

    Raises:
        DamageError: the structure of the file is damaged.
        sqlite3.Error: it can't be read.
    """
    [(verdict,)] = database.execute("PRAGMA integrity_check(1)")
    if found := verdict_of(verdict):
        raise DamageError(found)


def _schema(database: sqlite3.Connection) -> list[tuple[object, ...]]:
    select = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    return database.execute(select).fetchall()


@cache
def _made_by(script: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.text_factory = bytes
        database.executescript(script)
        return _schema(database)


class Bulk(NamedTuple):
    """A statement for many rows.

    Attributes:
        head: what stands before the rows.
        row: the placeholders of one.
        tail: what stands behind them.
    """

    head: str
    row: str
    tail: str = ""

    def run(self, database: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute it for `rows`."""
        position = 0
        for size in _AT_ONCE:
            while len(rows) - position >= size:
                values = [value for row in rows[position : position + size] for value in row]
                placeholders = ",".join([self.row] * size)
                database.execute(f"{self.head} {placeholders} {self.tail}", values)
                position += size


_PUT_SESSIONS = Bulk("REPLACE INTO sessions VALUES", "(?,?,?,?,CAST(? AS TEXT),?)")
END_SESSIONS = Bulk("DELETE FROM sessions WHERE tkn IN (", "?", ")")
DROP_KEYS = Bulk("DELETE FROM keys WHERE tkn IN (", "?", ")")
REMOVE_KEYS = Bulk("DELETE FROM keys WHERE (tkn, key) IN (VALUES", "(?,?)", ")")
_PUT_KEYS = Bulk(
    "INSERT INTO keys (tkn, key, value, checksum) VALUES",
    "(?,?,CAST(? AS TEXT),?)",
    "ON CONFLICT (tkn, key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
)


def put_sessions(database: sqlite3.Connection, rows: Iterable[SessionRow]) -> None:
    """Put sessions into their table, in the place of those that are there."""
    _PUT_SESSIONS.run(database, [(*row, session_checksum(*row)) for row in rows])


def put_keys(database: sqlite3.Connection, number: int, values: Iterable[tuple[str, Raw]]) -> None:
    """Put keys into their table; those that are there keep their place."""
    remaining = iter(values)
    while some := [
        (number, key, value, key_checksum(number, key.encode(), value))
        for key, value in islice(remaining, _AT_ONCE[0])
    ]:
        _PUT_KEYS.run(database, some)


class DamageError(Exception):
    """A table contains invalid data; says what."""


_object = msgspec.json.Decoder(dict[str, Raw]).decode
_value = msgspec.json.Decoder(Raw).decode


# Whoever damaged a file need not have kept to the types of its columns. Types of their own, as a
# type that is composed is worked out anew by each `convert`.
class _Session(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    tkn: int
    duration: Annotated[int, Meta(ge=0, le=DURATION_MAX)]
    flags: Annotated[int, Meta(ge=0, le=DELETE_SESSION | EXTEND_ON_SET_ADD | EXTEND_ON_GET)]
    deadline: Annotated[int, Meta(ge=0)] | None
    keys: bytes | None
    checksum: int


class _Key(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    tkn: int
    key: bytes
    value: bytes
    checksum: int


READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: a message of SQLite may repeat a name that is not UTF-8."""

SELECT_SESSIONS = "SELECT tkn, duration, flags, deadline, keys, checksum FROM sessions"
SELECT_KEYS = "SELECT tkn, key, value, checksum FROM keys"
_SELECT_KEYS_OF = """
    SELECT tkn, key, value, checksum FROM keys
    WHERE id IN (SELECT id FROM keys WHERE tkn = ?) ORDER BY id
"""
"""Those of a session, in order: sorted by themselves, they would need as much room as they take.

It takes what the index says, whose entries `check_structure` has checked.
"""


def read_sessions(database: sqlite3.Connection) -> Iterator[tuple[SessionRow, KeyMap]]:
    """Yield every session with its keys.

    Raises:
        DamageError: the tables hold what can't be.
        sqlite3.Error: they can't be read.
    """
    in_table = database.cursor()
    for columns in database.execute(f"{SELECT_SESSIONS} ORDER BY tkn"):
        row, packed = session_of(columns)
        yield row, read_keys(in_table, row[0]) if packed is None else packed
    if database.execute(f"SELECT 1 {ORPHANS} LIMIT 1").fetchone():
        raise DamageError("there is a key of a session that does not exist")


ORPHANS = "FROM keys WHERE tkn <> 0 AND tkn NOT IN (SELECT tkn FROM sessions WHERE keys IS NULL)"
"""Keys of sessions that are not there, or have theirs packed."""


def session_of(columns: Sequence[object]) -> tuple[SessionRow, bytes | None]:
    """Return the session that the columns of its table are, and its keys if they are packed.

    Raises:
        DamageError: they can't be one.
    """
    try:
        session = convert(columns, _Session)
        packed = session.keys
        if packed is not None:
            packed.decode()
            _object(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"there is a session that can't be read: {error}") from None
    if session.checksum != session_checksum(
        session.tkn, session.duration, session.flags, session.deadline, packed
    ):
        raise DamageError("there is a session whose checksum is wrong")
    if session.tkn == NO_TOKEN:
        raise DamageError("there is a session whose token is invalid")
    return (session.tkn, session.duration, session.flags, session.deadline, None), packed


def key_of(columns: Sequence[object]) -> tuple[str, Raw]:
    """Return the key and its value that these columns of their table are.

    Raises:
        DamageError: they can't be.
    """
    try:
        key = convert(columns, _Key)
        key.value.decode()
        name, value = key.key.decode(), _value(key.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"there is a key that can't be read: {error}") from None
    if key.checksum != key_checksum(key.tkn, key.key, key.value):
        raise DamageError("there is a key whose checksum is wrong")
    return name, value


def read_keys(
    database: sqlite3.Cursor | sqlite3.Connection, number: int = NO_TOKEN
) -> dict[str, Raw]:
    """Return the keys in their table of a session, or the independent keys, in their order.

    Raises:
        DamageError: the table holds what can't be.
        sqlite3.Error: it can't be read.
    """
    return dict(map(key_of, database.execute(_SELECT_KEYS_OF, (number,))))
