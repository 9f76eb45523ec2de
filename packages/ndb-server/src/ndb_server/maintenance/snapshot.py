"""Reads a store in its state of one moment, including its log, without changing it.

A server may be using the store, or may have been killed while it used it.
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
def open_snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file at `path` to read its state of one moment.

    Raises:
        StoreError: a server has started to use it meanwhile.
    """
    immutable = not _has_wal(path)
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
    if immutable and _has_wal(path):
        raise StoreError(f"a server has started to use {path}; try again")


def _has_wal(path: Path) -> bool:
    """Return whether `path` has a write-ahead log: it is in use, or a process that used it crashed.

    If there is no log, SQLite would create one, even for a connection that only reads.
    """
    return any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-shm"))


def read_merged(
    database: sqlite3.Connection,
) -> tuple[Iterator[tuple[SessionRow, KeyMap]], dict[str, Raw]]:
    """Return the sessions in the order of `tkn`, and the independent keys, with the log applied.

    Raises:
        DamageError: a row is not what was written.
        sqlite3.Error: the store can't be read.
    """
    log = read_log(database)
    by_token = merge(
        _sessions_in_tables(database, log),
        _sessions_in_log(database, log),
        key=lambda session: session[0][0],
    )
    return by_token, _apply_change(read_keys(database), log.maps.get(NO_TOKEN))


def _sessions_in_tables(
    database: sqlite3.Connection, log: LogContents
) -> Iterator[tuple[SessionRow, KeyMap]]:
    """Yield the sessions that the log does not change."""
    if not log.all_ended:
        for row, keymap in read_sessions(database):
            if row[0] not in log.ended and row[0] not in log.rows:
                yield row, keymap


def _sessions_in_log(
    database: sqlite3.Connection, log: LogContents
) -> Iterator[tuple[SessionRow, KeyMap]]:
    """Yield the sessions that the log changes."""
    for tkn, (*_, packed) in sorted(log.rows.items()):
        row = (*log.rows[tkn][:4], None)
        if packed is not None:
            yield row, bytes(packed)
        else:
            # If the session was ended and created again, the change in the log has all its keys.
            yield row, _apply_change(read_keys(database, tkn), log.maps.get(tkn))


def _apply_change(values: dict[str, Raw], change: MapChange | None) -> dict[str, Raw]:
    return values if change is None else change.apply(values)
