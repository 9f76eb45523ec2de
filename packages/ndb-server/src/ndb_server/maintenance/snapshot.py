"""Reads a store as the next process to open it would find it, without changing anything.

A server may be using the file, or may have been killed while it did.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from heapq import merge
from pathlib import Path

from msgspec import Raw
from ndb_protocol import NO_TOKEN

from ..engine.edits import MapChange
from ..engine.keymap import KeyMap
from ..engine.record import SessionRow
from ..errors import StoreError
from ..storage.log import LogContents, read_log
from ..storage.tables import connect, read_keys, read_sessions


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """Give the file at `path`, as it is at one moment.

    Raises:
        StoreError: a server has begun to use it meanwhile.
    """
    immutable = not _in_use(path)
    with closing(connect(path, read_only=True, immutable=immutable)) as database:
        try:
            database.execute("BEGIN")
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if immutable or os.access(path.parent, os.W_OK):
                raise
            raise StoreError(
                f"{path} can't be read in this folder: its server did not stop cleanly, and "
                "SQLite can't create an index of the write-ahead log in a read-only folder; copy "
                "the folder to a place where it is writable"
            ) from error
        yield database
    if immutable and _in_use(path):
        raise StoreError(f"a server has started to use {path}; try again")


def _in_use(path: Path) -> bool:
    """Tell whether the write-ahead log of `path` is there: it is in use, or was when it crashed.

    Without one, SQLite would make one, even for who only reads.
    """
    return any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-shm"))


def read_folded(
    database: sqlite3.Connection,
) -> tuple[Iterator[tuple[SessionRow, KeyMap]], dict[str, Raw]]:
    """Return the sessions by their tokens, one by one, and the independent keys, log included.

    Raises:
        DamageError: there is something that can't be.
        sqlite3.Error: it can't be read.
    """
    log = read_log(database)
    by_token = merge(_in_tables(database, log), _in_log(database, log), key=lambda of: of[0][0])
    return by_token, _changed(read_keys(database), log.maps.get(NO_TOKEN))


def _in_tables(
    database: sqlite3.Connection, log: LogContents
) -> Iterator[tuple[SessionRow, KeyMap]]:
    """Yield the sessions that the log leaves as they are."""
    if not log.all_ended:
        for row, keymap in read_sessions(database):
            if row[0] not in log.ended and row[0] not in log.rows:
                yield row, keymap


def _in_log(database: sqlite3.Connection, log: LogContents) -> Iterator[tuple[SessionRow, KeyMap]]:
    """Yield the sessions that the log has."""
    for number, (*_, packed) in sorted(log.rows.items()):
        row = (*log.rows[number][:4], None)
        if packed is not None:
            yield row, bytes(packed)
        else:
            # Of a session that ended and came again, the log has all keys.
            yield row, _changed(read_keys(database, number), log.maps.get(number))


def _changed(values: dict[str, Raw], change: MapChange | None) -> dict[str, Raw]:
    return values if change is None else change.apply(values)
