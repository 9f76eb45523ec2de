"""The tables of the store and of datasets, and how their rows are written and read.

One statement writes many rows. A statement for each row would release the interpreter's lock and
take it again each time. One statement for many rows releases it once, for longer, and the event
loop can run meanwhile.
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

DATA_TABLES = """
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
"""Sessions, and the keys that are not packed into their session's row.

The columns are described in docs/reference/data-folder.md.
"""

_ROWS_PER_STATEMENT = (512, 64, 8, 1)


def connect(path: Path, *, read_only: bool = False, immutable: bool = False) -> sqlite3.Connection:
    """Open an SQLite file; text is read as bytes.

    Args:
        path: the file.
        read_only: it must exist, and is not changed.
        immutable: no process changes it meanwhile, so SQLite creates no files beside it.
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
    # No folder for temporary files needs to be writable.
    database.execute("PRAGMA temp_store = MEMORY")
    return database


def integrity_error(text: bytes) -> str:
    """Return the error in a row of SQLite's integrity check; an empty string if there is none."""
    # The first of several lines is a heading.
    found = text.decode(errors="replace").removeprefix("*** in database main ***\n")
    return "" if found == "ok" else found


def check_schema(database: sqlite3.Connection, script: str) -> None:
    """Check that the tables of `database` are those that `script` creates.

    Raises:
        DamageError: they differ.
        sqlite3.Error: they can't be read.
    """
    if _schema(database) != _schema_of_script(script):
        raise DamageError("the tables are not those that the server has created")


def check_integrity(database: sqlite3.Connection) -> None:
    """Check that no row is missing or unreachable, which checksums can't detect.

    Raises:
        DamageError: the structure of the file is damaged.
        sqlite3.Error: it can't be read.
    """
    [(verdict,)] = database.execute("PRAGMA integrity_check(1)")
    if found := integrity_error(verdict):
        raise DamageError(found)


def _schema(database: sqlite3.Connection) -> list[tuple[object, ...]]:
    select = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    return database.execute(select).fetchall()


@cache
def _schema_of_script(script: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.text_factory = bytes
        database.executescript(script)
        return _schema(database)


class BulkStatement(NamedTuple):
    """An SQL statement for many rows.

    Attributes:
        head: the SQL before the rows.
        row: the placeholders of one row.
        tail: the SQL after the rows.
    """

    head: str
    row: str
    tail: str = ""

    def run(self, database: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute the statement for `rows`."""
        position = 0
        for size in _ROWS_PER_STATEMENT:
            while len(rows) - position >= size:
                values = [value for row in rows[position : position + size] for value in row]
                placeholders = ",".join([self.row] * size)
                database.execute(f"{self.head} {placeholders} {self.tail}", values)
                position += size


_PUT_SESSIONS = BulkStatement("REPLACE INTO sessions VALUES", "(?,?,?,?,CAST(? AS TEXT),?)")
DELETE_SESSIONS = BulkStatement("DELETE FROM sessions WHERE tkn IN (", "?", ")")
DELETE_ALL_KEYS = BulkStatement("DELETE FROM keys WHERE tkn IN (", "?", ")")
DELETE_KEYS = BulkStatement("DELETE FROM keys WHERE (tkn, key) IN (VALUES", "(?,?)", ")")
_PUT_KEYS = BulkStatement(
    "INSERT INTO keys (tkn, key, value, checksum) VALUES",
    "(?,?,CAST(? AS TEXT),?)",
    "ON CONFLICT (tkn, key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
)


def put_sessions(database: sqlite3.Connection, rows: Iterable[SessionRow]) -> None:
    """Insert or replace sessions."""
    _PUT_SESSIONS.run(database, [(*row, session_checksum(*row)) for row in rows])


def put_keys(database: sqlite3.Connection, tkn: int, values: Iterable[tuple[str, Raw]]) -> None:
    """Insert or update keys of the session `tkn`; existing keys keep their place."""
    remaining = iter(values)
    while chunk := [
        (tkn, key, value, key_checksum(tkn, key.encode(), value))
        for key, value in islice(remaining, _ROWS_PER_STATEMENT[0])
    ]:
        _PUT_KEYS.run(database, chunk)


class DamageError(Exception):
    """A table contains invalid data; the message says what is wrong."""


_object = msgspec.json.Decoder(dict[str, Raw]).decode
_value = msgspec.json.Decoder(Raw).decode


# In a damaged file, columns may have any types. These are structs, because `convert` inspects a
# composed type again at each call.
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
"""Errors of a damaged file. A message of SQLite may contain a name that is not UTF-8."""

SELECT_SESSIONS = "SELECT tkn, duration, flags, deadline, keys, checksum FROM sessions"
SELECT_KEYS = "SELECT tkn, key, value, checksum FROM keys"
_SELECT_KEYS_OF = """
    SELECT tkn, key, value, checksum FROM keys
    WHERE id IN (SELECT id FROM keys WHERE tkn = ?) ORDER BY id
"""
"""The keys of a session, in their order.

The subquery sorts ids, because to sort whole rows would need as much memory as the rows. It relies
on the index, which `check_integrity` has checked.
"""


def read_sessions(database: sqlite3.Connection) -> Iterator[tuple[SessionRow, KeyMap]]:
    """Yield every session with its keys.

    Raises:
        DamageError: a row is not what was written.
        sqlite3.Error: the tables can't be read.
    """
    in_table = database.cursor()
    for columns in database.execute(f"{SELECT_SESSIONS} ORDER BY tkn"):
        row, packed = decode_session(columns)
        yield row, read_keys(in_table, row[0]) if packed is None else packed
    if database.execute(f"SELECT 1 {ORPHANED_KEYS} LIMIT 1").fetchone():
        raise DamageError("there is a key of a session that does not exist")


ORPHANED_KEYS = (
    "FROM keys WHERE tkn <> 0 AND tkn NOT IN (SELECT tkn FROM sessions WHERE keys IS NULL)"
)
"""Selects rows of keys whose session does not exist, or has its keys packed."""


def decode_session(columns: Sequence[object]) -> tuple[SessionRow, bytes | None]:
    """Return the session of a row of `sessions`, without its keys, and its keys if they are packed.

    Raises:
        DamageError: the row is not what was written.
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


def decode_key(columns: Sequence[object]) -> tuple[str, Raw]:
    """Return the key and the value of a row of `keys`.

    Raises:
        DamageError: the row is not what was written.
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


def read_keys(database: sqlite3.Cursor | sqlite3.Connection, tkn: int = NO_TOKEN) -> dict[str, Raw]:
    """Return the keys of a session in the table `keys`, or the independent keys, in their order.

    Raises:
        DamageError: a row is not what was written.
        sqlite3.Error: the table can't be read.
    """
    return dict(map(decode_key, database.execute(_SELECT_KEYS_OF, (tkn,))))
