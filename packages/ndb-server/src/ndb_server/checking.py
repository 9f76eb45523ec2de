"""What is damaged in a data folder, found without changing anything."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from ndb_protocol import NO_TOKEN

from .catalog import Saved, saved_in
from .datasets import DatasetError, recognize_dataset
from .looking import looking
from .store import FILE, StoreError, VersionError, decode_changes, recognize
from .tables import ORPHANS, DamageError, key_of, session_of

_FINDINGS = 100
"""Lines that SQLite's own check may have."""


def check_folder(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file of a data folder, and what is damaged in it.

    Raises:
        StoreError: the store is not of this version, or a server was started meanwhile.
    """
    if (folder / FILE).exists():
        yield folder / FILE, check_store(folder / FILE)
    for saved in saved_in(folder):
        yield saved.path, _check_dataset(saved)


def check_store(path: Path) -> list[str]:
    """Return what is damaged in a store.

    Raises:
        StoreError: it is not of this version, or a server was started meanwhile.
    """
    try:
        with looking(path) as database:
            try:
                recognize(database, path)
            except VersionError:
                raise
            except StoreError as error:
                return [str(error)]
            return [*_damage(database), *_log_damage(database)]
    except sqlite3.Error as error:
        return [str(error)]


def _check_dataset(saved: Saved) -> list[str]:
    try:
        with looking(saved.path) as database:
            recognize_dataset(database, saved.path, saved.kind)
            return [*_damage(database)]
    except (sqlite3.Error, DatasetError, StoreError) as error:
        return [str(error)]


def _damage(database: sqlite3.Connection) -> Iterator[str]:
    for (verdict,) in database.execute(f"PRAGMA integrity_check({_FINDINGS})"):
        if verdict != b"ok":
            # The first line of several says where, each of the others what.
            yield verdict.decode(errors="replace").removeprefix("*** in database main ***\n")
    yield from _in_rows(
        database, "SELECT tkn, duration, flags, deadline, keys FROM sessions", session_of
    )
    yield from _in_rows(database, "SELECT key, value FROM keys", key_of)
    try:
        [(orphans,)] = database.execute(f"SELECT count(*) {ORPHANS}")
    except sqlite3.Error as error:
        yield str(error)
    else:
        if orphans:
            yield f"there are {orphans} keys of sessions that are not there"


def _log_damage(database: sqlite3.Connection) -> Iterator[str]:
    yield from _in_rows(database, "SELECT changes FROM log ORDER BY seq", check_changes)


def check_changes(columns: Sequence[object]) -> None:
    """Check that a row of the log is what it should be.

    Raises:
        DamageError: it isn't.
    """
    [changes] = columns
    try:
        text = msgspec.convert(changes, bytes)
        text.decode()
        record, rows = decode_changes(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"there is a row of the log that can't be read: {error}") from None
    for *settings, packed in rows:
        session_of((*settings, None if packed is None else bytes(packed)))
    if NO_TOKEN in record.ended:
        raise DamageError("there is a row of the log that ends what is no session")


def _in_rows(
    database: sqlite3.Connection, query: str, check: Callable[[Sequence[object]], object]
) -> Iterator[str]:
    """Yield what is wrong with rows, each kind of damage once."""
    found: Counter[str] = Counter()
    try:
        for columns in database.execute(query):
            try:
                check(columns)
            except DamageError as error:
                found[str(error)] += 1
    except sqlite3.Error as error:
        found[str(error)] += 1
    for damage, times in found.items():
        yield damage if times == 1 else f"{damage} ({times} times)"
