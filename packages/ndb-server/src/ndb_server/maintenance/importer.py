"""Imports sessions and independent keys into a store, all or none of them."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from msgspec import Raw
from ndb_protocol import NO_TOKEN

from ..clock import Anchor
from ..engine.keymap import unpack
from ..engine.record import SessionRow, row_of, session_checksum
from ..engine.session import Session
from ..errors import DataError
from ..storage.store import Store
from ..storage.tables import put_keys


class SessionEntry(NamedTuple):
    """A session to import."""

    token: int
    session: Session


class KeyEntry(NamedTuple):
    """An independent key to import."""

    key: str
    value: Raw


class ImportCounts(NamedTuple):
    """How many entries were imported, and how many sessions were not because they existed."""

    sessions: int
    session_keys: int
    keys: int
    already_there: int


def import_entries(folder: Path, entries: Iterable[SessionEntry | KeyEntry]) -> ImportCounts:
    """Import `entries` into the store of a data folder.

    An existing session is left unchanged, and an existing independent key is overwritten, as with
    SH_LOAD and KV_LOAD. The deadlines of `entries` are times of the wall clock.

    Args:
        folder: the data folder, which no server may use.
        entries: the sessions and keys. If the iterable raises an error, nothing is imported.

    Raises:
        StoreError: a server uses the folder, or its store can't be opened.
        DataError: the store can't be written.
    """
    store = Store(folder)
    sessions = session_keys = already_there = 0
    keys: set[str] = set()
    try:
        with store.transaction() as database:
            for entry in entries:
                if isinstance(entry, KeyEntry):
                    put_keys(database, NO_TOKEN, [entry])
                    keys.add(entry.key)
                elif _put_session(database, row_of(*entry), entry.session, store.anchor):
                    sessions += 1
                    session_keys += len(unpack(entry.session.keys))
                else:
                    already_there += 1
    except sqlite3.Error as error:
        raise DataError(f"{store.path} can't be written: {error}; nothing was imported") from error
    finally:
        store.close()
    return ImportCounts(sessions, session_keys, len(keys), already_there)


def _put_session(
    database: sqlite3.Connection, row: SessionRow, session: Session, anchor: Anchor
) -> bool:
    """Insert a session; return whether it did not exist."""
    tkn, duration, flags, deadline, keys = row
    if deadline is not None:
        row = (tkn, duration, flags, max(0, deadline - anchor.offset), keys)
    insert = "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)"
    if not database.execute(insert, (*row, session_checksum(*row))).rowcount:
        return False
    if isinstance(session.keys, dict):
        put_keys(database, tkn, session.keys.items())
    return True
