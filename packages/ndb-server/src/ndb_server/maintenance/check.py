"""Checks a data folder for damage, without changing it."""

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
from .snapshot import open_snapshot

_MAX_FINDINGS = 100
"""The most errors that SQLite's integrity check reports."""


def check_folder(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file of a data folder, with a list of its damage.

    Raises:
        StoreError: the store is not of this version, or a server was started meanwhile.
    """
    if (folder / STORE_FILE).exists():
        yield folder / STORE_FILE, check_store(folder / STORE_FILE)
    for dataset in list_datasets(folder):
        yield dataset.path, _check_dataset(dataset)


def check_store(path: Path) -> list[str]:
    """Return a list of the damage in a store.

    Raises:
        StoreError: it is not of this version, or a server was started meanwhile.
    """
    try:
        check_header(path)
        with open_snapshot(path) as database:
            try:
                recognize_store(database, path)
            except VersionError:
                raise
            except StoreError as error:
                return [str(error)]
            return [*_damage(database), *_log_damage(database)]
    except (OSError, *READ_ERRORS, DamageError) as error:
        return [str(error)]


def _check_dataset(dataset: DatasetFile) -> list[str]:
    try:
        with open_snapshot(dataset.path) as database:
            recognize_dataset(database, dataset.path, dataset.kind)
            return [*_damage(database)]
    except (*READ_ERRORS, DamageError, DatasetError, StoreError) as error:
        return [str(error)]


def _damage(database: sqlite3.Connection) -> Iterator[str]:
    for (verdict,) in database.execute(f"PRAGMA integrity_check({_MAX_FINDINGS})"):
        if found := integrity_error(verdict):
            yield found
    yield from _row_damage(database, SELECT_SESSIONS, decode_session)
    yield from _row_damage(database, SELECT_KEYS, decode_key)
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


def _row_damage(
    database: sqlite3.Connection, query: str, check: Callable[[Sequence[object]], object]
) -> Iterator[str]:
    """Yield the damage in the rows of a query, each kind of damage once."""
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
