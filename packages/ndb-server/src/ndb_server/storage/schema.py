"""The store as an SQLite file: its tables, how it is recognized and how it is created."""

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
from .folding import transaction
from .tables import DamageError, check_schema, connect, put_keys, put_sessions

FILE = "ndb.sqlite"
APPLICATION_ID = 0x4E444231
"""``NDB1``: what tells the file from others that SQLite wrote (``PRAGMA application_id``)."""

VERSION = 2
"""The version of the tables (``PRAGMA user_version``)."""

_WRITE_VERSION = 18
"""Where the header of a file has the format in which it is written."""

_NEWEST_FORMAT = 2
"""The newest there is: with a write-ahead log."""

# The view comes first. SQLite begins a check of a file with what was made last, and if that is no
# table, it leaves out the free pages.
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
{tables.TABLES}
{records.TABLES}
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    time INTEGER NOT NULL,
    wall INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""  # noqa: S608


class VersionError(StoreError):
    """The store has a version that this server does not support."""


def recognize(database: sqlite3.Connection, path: Path) -> None:
    """Check that `database` has our tables.

    Raises:
        StoreError: it is something else, or of another version.
        DamageError: its tables are not as they were made.
        sqlite3.Error: it can't be read.
    """
    [(application,)] = database.execute("PRAGMA application_id")
    [(version,)] = database.execute("PRAGMA user_version")
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is not a store of NDB")
    if version != VERSION:
        raise VersionError(
            f"{path} has version {version} of the tables; this server supports only {VERSION}"
        )
    check_schema(database, _TABLES)


def check_header(path: Path) -> None:
    """Check that SQLite will write to the file at `path`, if there is one.

    It does not where the header names a format newer than its own (SQLite's file format, section
    1.3.3), and only says that the file is read-only.

    To be called before the file is opened: what was read here takes SQLite's locks with it.

    Raises:
        DamageError: it will not.
        OSError: the file can't be read.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        header = file.read(_WRITE_VERSION + 1)
        if len(header) > _WRITE_VERSION and header[_WRITE_VERSION] > _NEWEST_FORMAT:
            raise DamageError(f"its header has the file format {header[_WRITE_VERSION]}")


def read_anchor(database: sqlite3.Connection) -> Anchor:
    """Return the moment that ties the time of the store to the wall clock.

    Raises:
        sqlite3.Error: it can't be read.
        DamageError: it isn't what was written.
    """
    row = database.execute("SELECT time, wall, checksum FROM clock").fetchone()
    if row is None:
        raise DamageError("the row of the clock is missing")
    return anchor_of(row)


def anchor_of(columns: Sequence[object]) -> Anchor:
    """Return the moment that the columns of the clock are: `time`, `wall` and `checksum`.

    Raises:
        DamageError: they aren't what was written.
    """
    try:
        at, wall, checksum = msgspec.convert(columns, tuple[int, int, int])
        if checksum == clock_checksum(at, wall):
            return Anchor(at, wall)
    except (msgspec.ValidationError, struct.error):
        pass
    raise DamageError("the checksum of the row of the clock is wrong")


def is_new(database: sqlite3.Connection) -> bool:
    """Tell whether there is nothing in the file yet."""
    [(tables,)] = database.execute("SELECT count(*) FROM sqlite_master")
    [(pages,)] = database.execute("PRAGMA page_count")
    [(application,)] = database.execute("PRAGMA application_id")
    return not tables and not application and pages <= 1


def make_tables(database: sqlite3.Connection, anchor: Anchor) -> None:
    """Make the tables in a file that has nothing yet."""
    # Before the first table: it can't be changed later.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # What executes several statements commits first: it begins and ends its transaction itself.
    database.executescript(f"BEGIN; {_TABLES}")
    put_anchor(database, anchor)
    database.execute("COMMIT")


def put_anchor(database: sqlite3.Connection, anchor: Anchor) -> None:
    """Write the moment that ties the time of the store to the wall clock."""
    database.execute("REPLACE INTO clock VALUES (1, ?, ?, ?)", (*anchor, clock_checksum(*anchor)))


def write_complete(path: Path, complete: ChangeSet, anchor: Anchor) -> None:
    """Make a store of all there is; it is of use only when this has succeeded.

    Raises:
        sqlite3.Error: it can't be written.
    """
    with closing(connect(path)) as database:
        # So it needs no journal, only to be synced.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        make_tables(database, anchor)
        with transaction(database):
            put_sessions(database, complete.rows)
            for token, change in complete.maps.items():
                put_keys(database, signed(token), change.put.items())
