"""The schema of the store: its tables, how it is recognized and how it is created."""

import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from ..clock import Anchor
from ..engine.batch import ChangeSet
from ..engine.record import clock_checksum, signed
from ..errors import StoreError
from . import log as records
from . import tables
from .compaction import transaction
from .tables import DamageError, check_schema, connect, put_keys, put_sessions

STORE_FILE = "ndb.sqlite"
APPLICATION_ID = 0x4E444231
"""``NDB1``: identifies the file as a store of NDB (``PRAGMA application_id``)."""

SCHEMA_VERSION = 2
"""The version of the schema (``PRAGMA user_version``)."""

_WRITE_VERSION = 18
"""The offset of the file format write version in the header of a file."""

_NEWEST_FORMAT = 2
"""The newest write version: with a write-ahead log."""

# The view comes first. SQLite begins an integrity check with what was created last, and if that is
# not a table, it does not check the free pages.
_TABLES = f"""
CREATE VIEW readable_sessions AS
    SELECT printf('%u', tkn) AS tkn, duration,
        flags & 1 AS deleteSession, flags >> 1 & 1 AS extendOnSetAdd, flags >> 2 & 1 AS extendOnGet,
        strftime(
            '%Y-%m-%d %H:%M:%f',
            (deadline + (SELECT wall - time FROM clock)) / 1000.0,
            'unixepoch'
        ) AS deadline,
        keys
    FROM sessions;
{tables.DATA_TABLES}
{records.LOG_TABLES}
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    time INTEGER NOT NULL,
    wall INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""  # noqa: S608


class VersionError(StoreError):
    """The store has a version that this server does not support."""


def recognize_store(database: sqlite3.Connection, path: Path) -> None:
    """Check that `database` is a store of NDB.

    Raises:
        StoreError: it is another file, or has another version.
        DamageError: its tables are not those that the server creates.
        sqlite3.Error: it can't be read.
    """
    [(application,)] = database.execute("PRAGMA application_id")
    [(version,)] = database.execute("PRAGMA user_version")
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is not a store of NDB")
    if version != SCHEMA_VERSION:
        raise VersionError(
            f"{path} has version {version} of the tables; "
            f"this server supports only {SCHEMA_VERSION}"
        )
    check_schema(database, _TABLES)


def check_header(path: Path) -> None:
    """Check that SQLite will write to the file at `path`, if there is one.

    If the header has a newer file format (SQLite's file format, section 1.3.3), SQLite only reports
    that the file is read-only.

    Call it before the file is opened with SQLite: to close the file here releases SQLite's locks.

    Raises:
        DamageError: SQLite will not write to it.
        OSError: the file can't be read.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        header = file.read(_WRITE_VERSION + 1)
        if len(header) > _WRITE_VERSION and header[_WRITE_VERSION] > _NEWEST_FORMAT:
            raise DamageError(f"its header has the file format {header[_WRITE_VERSION]}")


def read_anchor(database: sqlite3.Connection) -> Anchor:
    """Return the anchor, which relates the server's time line to the wall clock.

    Raises:
        sqlite3.Error: it can't be read.
        DamageError: it is missing, or is not what was written.
    """
    row = database.execute("SELECT time, wall, checksum FROM clock").fetchone()
    if row is None:
        raise DamageError("the row of the clock is missing")
    return decode_anchor(row)


def decode_anchor(columns: Sequence[object]) -> Anchor:
    """Return the anchor of a row of `clock`, given its columns `time`, `wall` and `checksum`.

    Raises:
        DamageError: the row is not what was written.
    """
    try:
        at, wall, checksum = msgspec.convert(columns, tuple[int, int, int])
        if checksum == clock_checksum(at, wall):
            return Anchor(at, wall)
    except (msgspec.ValidationError, struct.error):
        pass
    raise DamageError("the checksum of the row of the clock is wrong")


def is_empty(database: sqlite3.Connection) -> bool:
    """Return whether the file has no contents yet."""
    [(tables,)] = database.execute("SELECT count(*) FROM sqlite_master")
    [(pages,)] = database.execute("PRAGMA page_count")
    [(application,)] = database.execute("PRAGMA application_id")
    return not tables and not application and pages <= 1


def create_tables(database: sqlite3.Connection, anchor: Anchor) -> None:
    """Create the tables in an empty file."""
    # Before the first table: it can't be changed later.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # `executescript` commits first, so the script begins its own transaction.
    database.executescript(f"BEGIN; {_TABLES}")
    write_anchor(database, anchor)
    database.execute("COMMIT")


def write_anchor(database: sqlite3.Connection, anchor: Anchor) -> None:
    """Write the anchor, which relates the server's time line to the wall clock."""
    database.execute("REPLACE INTO clock VALUES (1, ?, ?, ?)", (*anchor, clock_checksum(*anchor)))


def write_complete(path: Path, complete: ChangeSet, anchor: Anchor) -> None:
    """Create a store from a complete change set. The file is valid only if this succeeds.

    Raises:
        sqlite3.Error: it can't be written.
    """
    with closing(connect(path)) as database:
        # Such a file needs no journal, only a sync.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        create_tables(database, anchor)
        with transaction(database):
            put_sessions(database, complete.rows)
            for token, change in complete.maps.items():
                put_keys(database, signed(token), change.put.items())
