"""Datasets: what SH_SAVE and KV_SAVE write and SH_LOAD and KV_LOAD read.

A dataset is one SQLite file, ``datasets/<kind>/<name>/<number>.sqlite`` in the data folder. It is
written under another name, synced and renamed, so a file with its proper name is complete; a load
takes the one with the highest number. Writing and reading happen in a thread: other clients are
answered meanwhile.
"""

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw
from ndb_protocol import Status, parse_token
from ndb_protocol import messages as m
from ndb_protocol.messages import Expiry, is_dataset_name

from .edits import Edit
from .engine import Engine, Session
from .errors import RefusedError
from .packing import unpack

_T = TypeVar("_T")

FORMAT = "ndb dataset"
VERSION = 1

_SCHEMA = """
CREATE TABLE dataset (format TEXT, version INTEGER, kind TEXT);
CREATE TABLE sessions (
    tkn TEXT PRIMARY KEY,
    duration INTEGER,
    delete_session INTEGER,
    extend_on_set_add INTEGER,
    extend_on_get INTEGER
) WITHOUT ROWID;
CREATE TABLE keys (tkn TEXT, key TEXT, value TEXT);
"""

_SLICE = 500
"""Sessions or keys loaded between two turns of the event loop."""

_NUMBERED = re.compile(r"[0-9]+\.sqlite\Z")

SESSIONS = "sessions"
KEYS = "keys"


class DatasetError(Exception):
    """A dataset that can't be written or read; says why."""


class SavedSession(NamedTuple):
    """A session as a dataset has it."""

    token: int
    expiry: Expiry
    values: dict[str, Raw]


class Folder:
    """The datasets of a data folder. Blocking: to be called from a thread.

    Args:
        path: the data folder.
    """

    def __init__(self, path: Path) -> None:
        # Absolute, as SQLite's file URIs have to be.
        self._path = path.absolute() / "datasets"

    def has(self, kind: str, name: str) -> bool:
        """Tell whether there is a dataset."""
        return bool(self._files(kind, name))

    def _newest(self, kind: str, name: str) -> Path:
        files = self._files(kind, name)
        if not files:
            raise DatasetError(f"there is no dataset of {kind} named '{name}'")
        return files[-1]

    def _files(self, kind: str, name: str) -> list[Path]:
        # A name from a client never becomes a path before it is known to be one plain component.
        if not is_dataset_name(name):
            raise DatasetError("that can't be the name of a dataset")
        folder = self._path / kind / name
        try:
            if not folder.is_dir():
                return []
            numbered = [path for path in folder.iterdir() if _NUMBERED.match(path.name)]
        except OSError as error:
            raise DatasetError(f"{folder} can't be listed: {error.strerror}") from error
        return sorted(numbered, key=lambda path: int(path.stem))

    @contextmanager
    def writing(self, kind: str, name: str) -> Iterator[sqlite3.Connection]:
        """Give an empty dataset to fill; it becomes the newest one when that has succeeded.

        Raises:
            DatasetError: it could not be written; nothing of it remains.
        """
        try:
            files = self._files(kind, name)
            number = int(files[-1].stem) + 1 if files else 1
            folder = self._path / kind / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{number:06}.sqlite"
            partial = path.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            try:
                with closing(sqlite3.connect(partial, isolation_level=None)) as database:
                    # The file is of use only when complete: it needs no journal, only a sync.
                    database.execute("PRAGMA journal_mode = OFF")
                    database.execute("PRAGMA synchronous = OFF")
                    database.executescript(f"BEGIN; {_SCHEMA}")
                    database.execute(
                        "INSERT INTO dataset VALUES (?, ?, ?)", (FORMAT, VERSION, kind)
                    )
                    yield database
                    database.execute("COMMIT")
                _sync(partial)
                partial.rename(path)
                # The folders above may be as new as the file: the data folder's entry counts too.
                for changed in (folder, *folder.parents[:3]):
                    _sync(changed)
            finally:
                partial.unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            raise DatasetError(f"dataset '{name}' could not be written: {error}") from error

    @contextmanager
    def reading(self, kind: str, name: str) -> Iterator[sqlite3.Connection]:
        """Give the newest dataset, checked to be what it should be.

        Raises:
            DatasetError: there is none, or it is damaged.
        """
        path = self._newest(kind, name)
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
                found = database.execute("SELECT format, version, kind FROM dataset").fetchone()
                if found != (FORMAT, VERSION, kind):
                    raise DatasetError(f"{path.name} is no dataset of {kind}, version {VERSION}")
                [(verdict,)] = database.execute("PRAGMA integrity_check(1)")
                if verdict != "ok":
                    raise DatasetError(f"{path.name} is damaged: {verdict}")
                yield database
        except (OSError, sqlite3.Error, msgspec.MsgspecError, RecursionError) as error:
            raise DatasetError(f"{path.name} can't be read: {error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Whoever damaged a dataset need not have kept to the types of its columns.
_SessionRow = tuple[str, Annotated[int, Meta(ge=0, le=m.DURATION_MAX)], int, int, int]
_SessionKeyRow = tuple[str, str, str]
_KeyRow = tuple[str, str]

_as_raw = msgspec.json.Decoder(Raw).decode


def _value(text: str) -> Raw:
    return _as_raw(text.encode())


def write_sessions(folder: Folder, name: str, sessions: Iterable[tuple[int, Session]]) -> None:
    """Save `sessions`.

    Raises:
        DatasetError: they could not be saved.
    """
    with folder.writing(SESSIONS, name) as database:
        for token, session in sessions:
            expiry = session.expiry or Expiry(duration=0)
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)",
                (
                    str(token),
                    expiry.duration,
                    expiry.deleteSession,
                    expiry.extendOnSetAdd,
                    expiry.extendOnGet,
                ),
            )
            database.executemany(
                "INSERT INTO keys VALUES (?, ?, ?)",
                (
                    (str(token), key, bytes(value).decode())
                    for key, value in unpack(session.packed).items()
                ),
            )


def read_sessions(folder: Folder, name: str) -> list[SavedSession]:
    """Return the sessions of the newest dataset of that name.

    Raises:
        DatasetError: there is none, or it can't be read.
    """
    with folder.reading(SESSIONS, name) as database:
        sessions: dict[str, SavedSession] = {}
        for row in database.execute("SELECT * FROM sessions"):
            text, duration, *flags = msgspec.convert(row, _SessionRow)
            token = parse_token(text)
            if not token:
                raise DatasetError(f"dataset '{name}' has a session whose token is none")
            delete_session, extend_on_set_add, extend_on_get = map(bool, flags)
            expiry = Expiry(
                duration=duration,
                deleteSession=delete_session,
                extendOnSetAdd=extend_on_set_add,
                extendOnGet=extend_on_get,
            )
            sessions[text] = SavedSession(token, expiry, {})
        for row in database.execute("SELECT * FROM keys ORDER BY rowid"):
            text, key, value = msgspec.convert(row, _SessionKeyRow)
            if text not in sessions:
                raise DatasetError(f"dataset '{name}' has a key of a session that it has not")
            sessions[text].values[key] = _value(value)
        return list(sessions.values())


def write_keys(folder: Folder, name: str, values: dict[str, Raw]) -> None:
    """Save independent keys.

    Raises:
        DatasetError: they could not be saved.
    """
    with folder.writing(KEYS, name) as database:
        database.executemany(
            "INSERT INTO keys VALUES (NULL, ?, ?)",
            ((key, bytes(value).decode()) for key, value in values.items()),
        )


def read_keys(folder: Folder, name: str) -> dict[str, Raw]:
    """Return the independent keys of the newest dataset of that name.

    Raises:
        DatasetError: there is none, or it can't be read.
    """
    with folder.reading(KEYS, name) as database:
        rows = database.execute("SELECT key, value FROM keys ORDER BY rowid")
        pairs = (msgspec.convert(row, _KeyRow) for row in rows)
        return {key: _value(value) for key, value in pairs}


class Datasets:
    """The commands that save and load.

    Args:
        engine: whose sessions and keys.
        path: the data folder; without one nothing is saved, and there is nothing to load.
        clock: returns the time in ms since the epoch.

    Attributes:
        handlers: runs each command, by its name.
    """

    def __init__(self, engine: Engine, path: Path | None, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._folder = None if path is None else Folder(path)
        self._clock = clock
        # One thread: saves of one name don't meet, and they leave a core to the event loop.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="datasets")
        self.handlers = {
            "SH_SAVE": self._save_sessions,
            "SH_LOAD": self._load_sessions,
            "KV_SAVE": self._save_keys,
            "KV_LOAD": self._load_keys,
        }

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()

    def _to_save(self) -> Folder:
        if self._folder is None:
            raise RefusedError(
                Status.COMMAND_DISABLED, "the server keeps no data: start it with --data-dir"
            )
        return self._folder

    def _to_load(self) -> Folder:
        if self._folder is None:
            raise RefusedError(
                Status.LOAD_ERROR, "the server has no datasets: start it with --data-dir"
            )
        return self._folder

    async def _run(self, status: Status, work: Callable[..., _T], *arguments: object) -> _T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except DatasetError as error:
            raise RefusedError(status, str(error)) from error

    # Each save takes its snapshot before it returns: the dataset is of the moment of the request.

    def _save_sessions(self, params: m.SaveSessions, now: int) -> Awaitable[m.Reply]:
        folder = self._to_save()
        tokens = None if params.tkns is UNSET else params.tkns
        return self._write_sessions(folder, params.name, self._engine.snapshot(now, tokens))

    async def _write_sessions(
        self, folder: Folder, name: str, sessions: list[tuple[int, Session]]
    ) -> m.Reply:
        begin = time.monotonic()
        await self._run(Status.SAVE_ERROR, write_sessions, folder, name, sessions)
        return m.SessionsDatasetReply(
            st=Status.SAVE_COMPLETE,
            name=name,
            sessions=len(sessions),
            keys=sum(len(unpack(session.packed)) for _, session in sessions),
            duration=_milliseconds_since(begin),
        )

    def _save_keys(self, params: m.Dataset, _: int) -> Awaitable[m.Reply]:
        return self._write_keys(self._to_save(), params.name, self._engine.snapshot_keys())

    async def _write_keys(self, folder: Folder, name: str, values: dict[str, Raw]) -> m.Reply:
        begin = time.monotonic()
        await self._run(Status.SAVE_ERROR, write_keys, folder, name, values)
        return m.KeysDatasetReply(
            st=Status.SAVE_COMPLETE,
            name=name,
            keys=len(values),
            duration=_milliseconds_since(begin),
        )

    async def _load_sessions(self, params: m.Dataset, _: int) -> m.Reply:
        begin = time.monotonic()
        found = await self._run(Status.LOAD_ERROR, read_sessions, self._to_load(), params.name)
        sessions = keys = 0
        for some in _slices(found):
            now = self._clock()
            for saved in some:
                if self._engine.restore(saved.token, saved.expiry, saved.values, now):
                    sessions += 1
                    keys += len(saved.values)
            await asyncio.sleep(0)
        return m.SessionsDatasetReply(
            st=Status.LOAD_COMPLETE,
            name=params.name,
            sessions=sessions,
            keys=keys,
            duration=_milliseconds_since(begin),
        )

    async def _load_keys(self, params: m.Dataset, _: int) -> m.Reply:
        begin = time.monotonic()
        values = await self._run(Status.LOAD_ERROR, read_keys, self._to_load(), params.name)
        for some in _slices(values.items()):
            self._engine.edit_keys(Edit(dict(some)))
            await asyncio.sleep(0)
        return m.KeysDatasetReply(
            st=Status.LOAD_COMPLETE,
            name=params.name,
            keys=len(values),
            duration=_milliseconds_since(begin),
        )

    async def load(self, name: str) -> None:
        """Load the sessions and the independent keys saved as `name`.

        Raises:
            RefusedError: neither kind has a dataset of that name, or one can't be read.
        """
        folder = self._to_load()
        try:
            kinds = [kind for kind in (SESSIONS, KEYS) if folder.has(kind, name)]
        except DatasetError as error:
            raise RefusedError(Status.LOAD_ERROR, str(error)) from error
        if not kinds:
            raise RefusedError(Status.LOAD_ERROR, f"there is no dataset named '{name}'")
        params = m.Dataset(name=name)
        if SESSIONS in kinds:
            await self._load_sessions(params, self._clock())
        if KEYS in kinds:
            await self._load_keys(params, self._clock())


def _milliseconds_since(begin: float) -> int:
    return round((time.monotonic() - begin) * 1000)


def _slices(items: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(items)
    while some := list(islice(remaining, _SLICE)):
        yield some
