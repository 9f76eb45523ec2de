"""Datasets: what SH_SAVE and KV_SAVE write and SH_LOAD and KV_LOAD read.

A dataset is one SQLite file, ``datasets/<kind>/<name>/<number>.sqlite`` in the data folder. It is
written under another name, synced and renamed, so a file with this name is complete. A load takes
the file with the highest number.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from msgspec import Raw
from ndb_protocol import NO_TOKEN
from ndb_protocol.messages import is_dataset_name

from ..engine.loading import PendingLoad
from ..engine.record import row_of, signed
from ..engine.session import Session
from ..limits import Limits
from . import tables
from .files import reason_of, sync
from .store import Store
from .tables import (
    READ_ERRORS,
    DamageError,
    check_integrity,
    check_schema,
    connect,
    put_keys,
    put_sessions,
)

_T = TypeVar("_T")

DATASET_FORMAT = "ndb dataset"
DATASET_VERSION = 2

_TABLES = tables.DATA_TABLES + "CREATE TABLE dataset (format TEXT, version INTEGER, kind TEXT);"

_SESSIONS_PER_CHUNK = 500
"""Sessions that are written together."""

DATASET_FILE_NAME = re.compile(r"[0-9]+\.sqlite\Z")

SESSIONS = "sessions"
KEYS = "keys"


class DatasetError(Exception):
    """A dataset can't be written or read; the message says why."""


class DatasetFolder:
    """The datasets of a data folder. Its calls block, so they belong into a thread.

    Args:
        path: the data folder.
    """

    def __init__(self, path: Path) -> None:
        # Absolute, as SQLite's file URIs have to be.
        self._path = path.absolute() / "datasets"

    def has(self, kind: str, name: str) -> bool:
        """Return whether a dataset exists."""
        return bool(self._files(kind, name))

    def _newest(self, kind: str, name: str) -> Path:
        files = self._files(kind, name)
        if not files:
            raise DatasetError(f"there is no dataset of {kind} named '{name}'")
        return files[-1]

    def _files(self, kind: str, name: str) -> list[Path]:
        # A name from a client must be one plain component before it becomes part of a path.
        if not is_dataset_name(name):
            raise DatasetError("this is not a valid name of a dataset")
        folder = self._path / kind / name
        try:
            if not folder.is_dir():
                return []
            numbered = [path for path in folder.iterdir() if DATASET_FILE_NAME.match(path.name)]
        except OSError as error:
            raise DatasetError(f"the datasets can't be listed: {error.strerror}") from error
        return sorted(numbered, key=lambda path: int(path.stem))

    @contextmanager
    def writing(
        self, kind: str, name: str, store: Store | None = None
    ) -> Iterator[sqlite3.Connection]:
        """Give an empty dataset to fill. It becomes the newest one if the block succeeds.

        Args:
            kind: what it holds: `SESSIONS` or `KEYS`.
            name: its name.
            store: a store to attach as ``store``, in its state of one moment.

        Raises:
            DatasetError: it could not be written; nothing of it remains.
        """
        try:
            files = self._files(kind, name)
            number = int(files[-1].stem) + 1 if files else 1
            folder = self._path / kind / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{number:06}.sqlite"
            unfinished = path.with_suffix(".partial")
            unfinished.unlink(missing_ok=True)
            try:
                with closing(connect(unfinished)) as database:
                    # An incomplete file is deleted, so it needs no journal, only a sync.
                    database.execute("PRAGMA journal_mode = OFF")
                    database.execute("PRAGMA synchronous = OFF")
                    if store is None:
                        database.execute("BEGIN")
                    else:
                        store.run_compacted(partial(_attach_store, database, store.path))
                    for statement in _TABLES.split(";"):
                        database.execute(statement)
                    about = (DATASET_FORMAT, DATASET_VERSION, kind)
                    database.execute("INSERT INTO dataset VALUES (?, ?, ?)", about)
                    yield database
                    database.execute("COMMIT")
                sync(unfinished)
                unfinished.rename(path)
                # The folders above may be new too, up to the data folder.
                for changed in (folder, *folder.parents[:3]):
                    sync(changed)
            finally:
                unfinished.unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            reason = reason_of(error, self._path.parent)
            raise DatasetError(f"dataset '{name}' could not be written: {reason}") from error

    @contextmanager
    def reading(self, kind: str, name: str) -> Iterator[sqlite3.Connection]:
        """Give the newest dataset to read, after checks of its format and structure.

        Raises:
            DatasetError: there is none, or it is damaged.
        """
        path = self._newest(kind, name)
        try:
            with closing(connect(path, read_only=True)) as database:
                recognize_dataset(database, path, kind)
                check_integrity(database)
                yield database
        except DamageError as error:
            raise DatasetError(f"{path.name} is damaged: {error}") from error
        except (OSError, *READ_ERRORS) as error:
            reason = reason_of(error, self._path.parent)
            raise DatasetError(f"{path.name} can't be read: {reason}") from error


def _attach_store(database: sqlite3.Connection, store: Path) -> None:
    """Attach a store as ``store``, and begin a transaction that reads its state of now."""
    # Read-only, so that SQLite does not create a missing file.
    database.execute("ATTACH ? AS store", (f"{store.as_uri()}?mode=ro",))
    database.execute("BEGIN")
    database.execute("SELECT count(*) FROM store.sqlite_master").fetchone()


def recognize_dataset(database: sqlite3.Connection, path: Path, kind: str) -> None:
    """Check that `database` is a dataset.

    Raises:
        DatasetError: it is another file, or has another kind or version.
        DamageError: its tables are not those that the server creates.
        sqlite3.Error: it can't be read.
    """
    found = database.execute("SELECT format, version, kind FROM dataset").fetchone()
    if found != (DATASET_FORMAT.encode(), DATASET_VERSION, kind.encode()):
        raise DatasetError(f"{path.name} is not a dataset of {kind}, version {DATASET_VERSION}")
    check_schema(database, _TABLES)


Counts = dict[str, int]
"""How many sessions and keys a dataset has."""


def write_sessions(
    folder: DatasetFolder, name: str, sessions: Iterable[tuple[int, Session]]
) -> Counts:
    """Save `sessions`.

    Raises:
        DatasetError: they could not be saved.
    """
    with folder.writing(SESSIONS, name) as database:
        for chunk in _chunks(sessions):
            rows = [row_of(token, session) for token, session in chunk]
            put_sessions(database, rows)
            for token, session in chunk:
                if isinstance(session.keys, dict):
                    put_keys(database, signed(token), session.keys.items())
        return count_entries(database)


def copy_sessions(folder: DatasetFolder, name: str, store: Store) -> Counts:
    """Save all sessions that are on disk.

    Raises:
        DatasetError: they could not be saved.
    """
    with folder.writing(SESSIONS, name, store) as database:
        database.execute("INSERT INTO sessions SELECT * FROM store.sessions")
        database.execute("INSERT INTO keys SELECT * FROM store.keys WHERE tkn <> 0")
        return count_entries(database)


def copy_keys(folder: DatasetFolder, name: str, store: Store) -> Counts:
    """Save all independent keys that are on disk.

    Raises:
        DatasetError: they could not be saved.
    """
    with folder.writing(KEYS, name, store) as database:
        database.execute("INSERT INTO keys SELECT * FROM store.keys WHERE tkn = 0")
        return {"keys": count_entries(database)["keys"]}


def count_entries(database: sqlite3.Connection) -> Counts:
    [(sessions,)] = database.execute("SELECT count(*) FROM main.sessions")
    [(packed,)] = database.execute(
        "SELECT count(*) FROM main.sessions AS s, json_each(s.keys) WHERE s.keys IS NOT NULL"
    )
    [(others,)] = database.execute("SELECT count(*) FROM main.keys")
    return {"sessions": sessions, "keys": packed + others}


def write_keys(folder: DatasetFolder, name: str, values: dict[str, Raw]) -> Counts:
    """Save independent keys.

    Raises:
        DatasetError: they could not be saved.
    """
    with folder.writing(KEYS, name) as database:
        put_keys(database, NO_TOKEN, values.items())
        return {"keys": len(values)}


def read_datasets(
    folder: DatasetFolder, name: str, kinds: Sequence[str], limits: Limits
) -> PendingLoad:
    """Return the data of the newest datasets of a name, of these kinds.

    Raises:
        DatasetError: there is none, or it can't be read.
    """
    pending = PendingLoad(limits)
    for kind in kinds:
        with folder.reading(kind, name) as database:
            if kind == SESSIONS:
                for row, keymap in tables.read_sessions(database):
                    pending.add_session(row, keymap)
            else:
                pending.add_keys(tables.read_keys(database))
    return pending


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, _SESSIONS_PER_CHUNK)):
        yield chunk
