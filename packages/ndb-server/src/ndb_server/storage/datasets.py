"""Datasets: what SH_SAVE and KV_SAVE write and SH_LOAD and KV_LOAD read.

A dataset is one SQLite file, ``datasets/<kind>/<name>/<number>.sqlite`` in the data folder. It is
written under another name, synced and renamed, so a file with this name is complete. A load takes
the file with the highest number. Datasets are written and read in a thread, so the server answers
other clients at the same time.
"""

import asyncio
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET, Raw
from ndb_protocol import NO_TOKEN, Status
from ndb_protocol import messages as m
from ndb_protocol.messages import is_dataset_name

from ..engine.engine import Engine
from ..engine.journal import Journal
from ..engine.loading import PendingLoad
from ..engine.record import row_of, signed
from ..engine.session import Session
from ..errors import RefusedError
from ..limits import UNLIMITED, Limits
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

_OUT_OF_MEMORY = "the server ran out of memory"

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


def _no_op() -> None:
    """Do nothing: the thread runs it after all jobs before it."""


class DatasetCommands:
    """The commands that save and load.

    Args:
        engine: has the sessions and keys.
        path: the data folder; without one, nothing can be saved or loaded.
        clock: returns the time in ms since the epoch.
        store: the store to save from; without one, the data in memory is saved.
        journal: makes loaded data durable.
        limits: the limits that a load is checked against.

    Attributes:
        handlers: runs each command, by its name.
        started: whether the thread was started.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path | None,
        clock: Callable[[], int],
        store: Store | None = None,
        journal: Journal | None = None,
        limits: Limits = UNLIMITED,
    ) -> None:
        self._limits = limits
        self._load_lock = asyncio.Lock()
        self._load_count = 0
        self._engine = engine
        self._store = store
        self._journal = journal
        self._folder = None if path is None else DatasetFolder(path)
        self._clock = clock
        # One thread, so that two saves of one name can't overlap, and the event loop has a core.
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="datasets", initializer=_lower_priority
        )
        self.started = False
        self.handlers = {
            "SH_SAVE": self._save_sessions,
            "SH_LOAD": self._load_sessions,
            "KV_SAVE": self._save_keys,
            "KV_LOAD": self._load_keys,
        }

    def start(self) -> None:
        """Start the thread now: later the system may refuse another thread.

        Raises:
            RuntimeError: the thread can't be started.
        """
        self._thread.submit(_no_op)
        self.started = True

    async def finish(self, last: Callable[[], None] = _no_op) -> None:
        """Wait until the thread has finished its jobs, and `last` after them."""
        await asyncio.get_running_loop().run_in_executor(self._thread, last)

    def close(self) -> None:
        """End the thread, after its jobs."""
        self._thread.shutdown()

    def _folder_to_save(self) -> DatasetFolder:
        if self._folder is None:
            raise RefusedError(
                Status.COMMAND_DISABLED, "the server has no data folder: start it with --data-dir"
            )
        return self._folder

    def _folder_to_load(self) -> DatasetFolder:
        if self._folder is None:
            raise RefusedError(
                Status.LOAD_ERROR, "the server has no datasets: start it with --data-dir"
            )
        return self._folder

    async def _run_in_thread(
        self, status: Status, work: Callable[..., _T], *arguments: object
    ) -> _T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except DatasetError as error:
            raise RefusedError(status, str(error)) from error
        except MemoryError as error:
            raise RefusedError(status, _OUT_OF_MEMORY) from error

    # Data that is saved from memory has the state of the request's moment. Data that is saved from
    # the store has the state of a moment between the request and the reply.

    def _save_sessions(self, params: m.SaveSessions, now: int) -> Awaitable[m.Reply]:
        folder, name = self._folder_to_save(), params.name
        if self._store is None or params.tkns is not UNSET:
            tokens = None if params.tkns is UNSET else params.tkns
            sessions = self._engine.snapshot(now, tokens)
            return self._save(m.SessionsDatasetReply, name, write_sessions, folder, name, sessions)
        self._engine.reap(now)
        store = self._store
        return self._save(m.SessionsDatasetReply, name, copy_sessions, folder, name, store)

    def _save_keys(self, params: m.Dataset, _: int) -> Awaitable[m.Reply]:
        folder, name = self._folder_to_save(), params.name
        if self._store is None:
            values = self._engine.snapshot_keys()
            return self._save(m.KeysDatasetReply, name, write_keys, folder, name, values)
        return self._save(m.KeysDatasetReply, name, copy_keys, folder, name, self._store)

    async def _save(
        self, reply: Callable[..., m.Reply], name: str, work: Callable[..., Counts], *args: object
    ) -> m.Reply:
        begin = time.monotonic()
        if self._journal is not None:
            before = self._journal.undone_batches
            await self._journal.flush()
            if self._journal.undone_batches != before:
                # The data to save may have been undone.
                raise RefusedError(Status.SAVE_ERROR, f"not durable: {self._journal.last_error}")
        counts = await self._run_in_thread(Status.SAVE_ERROR, work, *args)
        return reply(
            st=Status.SAVE_COMPLETE, name=name, **counts, duration=_milliseconds_since(begin)
        )

    async def _load_sessions(self, params: m.Dataset, _: int) -> m.Reply:
        pending = await self._load(params.name, [SESSIONS])
        return m.SessionsLoadedReply(
            st=Status.LOAD_COMPLETE,
            name=params.name,
            sessions=len(pending.sessions),
            keys=pending.session_keys,
        )

    async def _load_keys(self, params: m.Dataset, _: int) -> m.Reply:
        begin = time.monotonic()
        pending = await self._load(params.name, [KEYS])
        return m.KeysDatasetReply(
            st=Status.LOAD_COMPLETE,
            name=params.name,
            keys=len(pending.keys),
            duration=_milliseconds_since(begin),
        )

    async def _load(self, name: str, kinds: list[str]) -> PendingLoad:
        """Load datasets, all of them or none; return what was loaded.

        Raises:
            RefusedError: they could not be loaded.
        """
        # One at a time, because the store can stage only one load.
        async with self._load_lock:
            folder = self._folder_to_load()
            pending = await self._run_in_thread(
                Status.LOAD_ERROR, read_datasets, folder, name, kinds, self._limits
            )
            now = self._clock()
            self._engine.drop_existing(pending, now)
            self._engine.check_room(pending, now)
            try:
                if self._store is None:
                    self._engine.load(pending, self._clock())
                else:
                    await self._load_durably(self._store, pending)
            except MemoryError as error:
                raise RefusedError(Status.LOAD_ERROR, _OUT_OF_MEMORY) from error
        return pending

    async def _load_durably(self, store: Store, pending: PendingLoad) -> None:
        """Stage a load, commit it, and wait until the commit is on disk.

        Raises:
            RefusedError: it can't be made durable, and is not loaded.
        """
        assert self._journal is not None
        self._load_count += 1
        _, keys = self._engine.everything()
        keep_staged = False
        try:
            work = partial(store.stage, self._load_count, pending.prepare_staging(keys))
            parts = await self._run_in_thread(Status.LOAD_ERROR, work)
            batch = self._engine.load(pending, self._clock(), (self._load_count, parts))
            # From here on the journal commits or undoes the load.
            keep_staged = batch is not None
            if batch is not None and not await batch.wait():
                keep_staged = False
                raise RefusedError(Status.LOAD_ERROR, f"not durable: {self._journal.last_error}")
        except (OSError, sqlite3.Error) as error:
            reason = reason_of(error, store.path.parent)
            raise RefusedError(Status.LOAD_ERROR, f"not durable: {reason}") from error
        finally:
            if not keep_staged:
                store.unstage()

    async def load(self, name: str) -> None:
        """Load the sessions and the independent keys saved as `name`.

        Raises:
            RefusedError: neither kind has a dataset of that name, or one can't be read.
        """
        folder = self._folder_to_load()
        try:
            kinds = [kind for kind in (SESSIONS, KEYS) if folder.has(kind, name)]
        except DatasetError as error:
            raise RefusedError(Status.LOAD_ERROR, str(error)) from error
        if not kinds:
            raise RefusedError(Status.LOAD_ERROR, f"there is no dataset named '{name}'")
        await self._load(name, kinds)


def _lower_priority() -> None:
    """Lower the priority of this thread, to leave the processor to other threads."""
    if sys.platform == "linux":
        # If the system refuses, the thread keeps its priority.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _milliseconds_since(begin: float) -> int:
    return round((time.monotonic() - begin) * 1000)


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, _SESSIONS_PER_CHUNK)):
        yield chunk
