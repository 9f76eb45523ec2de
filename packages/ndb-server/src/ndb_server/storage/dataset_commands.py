"""The commands that save and load datasets.

They write and read in a thread, so the server answers other clients at the same time.
"""

import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET
from ndb_protocol import Status
from ndb_protocol import messages as m

from ..engine.engine import Engine
from ..engine.journal import Journal
from ..engine.loading import PendingLoad
from ..errors import RefusedError
from ..gates import finished
from ..limits import UNLIMITED, Limits
from .datasets import (
    KEYS,
    SESSIONS,
    Counts,
    DatasetError,
    DatasetFolder,
    copy_keys,
    copy_sessions,
    read_datasets,
    write_keys,
    write_sessions,
)
from .files import reason_of
from .store import Store

_T = TypeVar("_T")

_OUT_OF_MEMORY = "the server ran out of memory"


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
            if (batch := self._journal.newest_batch()) is not None:
                await finished(batch)
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
            if batch is not None and not await finished(batch):
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
