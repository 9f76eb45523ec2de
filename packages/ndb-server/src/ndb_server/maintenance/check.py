"""Finds damage in a data folder, without changing anything."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import StoreError
from ..storage.catalog import DatasetFile, list_datasets
from ..storage.datasets import DatasetError, recognize_dataset
from ..storage.log import read_log
from ..storage.schema import STORE_FILE, VersionError, check_header, read_anchor, recognize_store
from ..storage.tables import (
    ORPHANED_KEYS,
    READ_ERRORS,
    SELECT_KEYS,
    SELECT_SESSIONS,
    DamageError,
    decode_key,
    decode_session,
    integrity_error,
)
from .snapshot import looking

_FINDINGS = 100
"""Lines that SQLite's own check may have."""


def check_folder(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file of a data folder, and what is damaged in it.

    Raises:
        StoreError: the store is not of this version, or a server was started meanwhile.
    """
    if (folder / STORE_FILE).exists():
        yield folder / STORE_FILE, check_store(folder / STORE_FILE)
    for saved in list_datasets(folder):
        yield saved.path, _check_dataset(saved)


def check_store(path: Path) -> list[str]:
    """Return what is damaged in a store.

    Raises:
        StoreError: it is not of this version, or a server was started meanwhile.
    """
    try:
        check_header(path)
        with looking(path) as database:
            try:
                recognize_store(database, path)
            except VersionError:
                raise
            except StoreError as error:
                return [str(error)]
            return [*_damage(database), *_log_damage(database)]
    except (OSError, *READ_ERRORS, DamageError) as error:
        return [str(error)]


def _check_dataset(saved: DatasetFile) -> list[str]:
    try:
        with looking(saved.path) as database:
            recognize_dataset(database, saved.path, saved.kind)
            return [*_damage(database)]
    except (*READ_ERRORS, DamageError, DatasetError, StoreError) as error:
        return [str(error)]


def _damage(database: sqlite3.Connection) -> Iterator[str]:
    for (verdict,) in database.execute(f"PRAGMA integrity_check({_FINDINGS})"):
        if found := integrity_error(verdict):
            yield found
    yield from _in_rows(database, SELECT_SESSIONS, decode_session)
    yield from _in_rows(database, SELECT_KEYS, decode_key)
    try:
        [(orphans,)] = database.execute(f"SELECT count(*) {ORPHANED_KEYS}")
    except READ_ERRORS as error:
        yield str(error)
    else:
        if orphans:
            yield f"there are {orphans} keys of sessions that do not exist"


def _log_damage(database: sqlite3.Connection) -> Iterator[str]:
    try:
        read_anchor(database)
        read_log(database)
    except (*READ_ERRORS, DamageError) as error:
        yield str(error)


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
    except READ_ERRORS as error:
        found[str(error)] += 1
    for damage, times in found.items():
        yield damage if times == 1 else f"{damage} ({times} times)"
