"""The store on disk: one SQLite file, written by one thread.

A batch of changes becomes durable as rows of the table ``log``. This is one transaction that writes
little, and one sync. From time to time the log is compacted: its contents move into the tables
``sessions`` and ``keys``, sorted and each session once. After a crash, the next process that opens
the file compacts the log first.

If the file or its folder is removed or replaced, writes to it are lost. Then the thread asks for a
complete change set, and writes a new file.
"""

import errno
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from msgspec import Raw

from ..clock import Anchor, wall_ms
from ..engine.batch import ChangeSet, LoadCommit
from ..engine.keymap import KeyMap
from ..engine.record import SessionRow, log_checksum
from ..errors import StoreError, trace_of
from .compaction import Compactor, transaction
from .files import (
    OpenedFiles,
    check_disk_space,
    is_disk_error,
    is_open_file,
    lock,
    reason_of,
    replace_store,
    sync,
)
from .log import NO_LOAD, LogContents, LogRecord, StoredRecord, encode_into, read_log, records_of
from .schema import (
    STORE_FILE,
    check_header,
    create_tables,
    is_empty,
    read_anchor,
    recognize_store,
    write_anchor,
    write_complete,
)
from .tables import (
    READ_ERRORS,
    DamageError,
    check_integrity,
    connect,
    read_keys,
    read_sessions,
)
from .wal_size import WalSize

logger = logging.getLogger("ndb_server.store")

Durability = Literal["strict", "relaxed"]

LOCK_FILE = "ndb.lock"

_INSERT_RECORD = "INSERT INTO log (seq, changes, checksum) VALUES (?, CAST(? AS TEXT), ?)"
_INSERT_PART = """
INSERT INTO loading (id, changes, checksum, load) VALUES (?, CAST(? AS TEXT), ?, ?)
"""

_COMPACT_AFTER = 16 * 2**20
"""Bytes of write-ahead log after which the log is compacted."""

_IDLE = 1.0
"""Seconds without a change after which the log is compacted, however short, and files are synced.
Also the seconds between two checks that the files were not removed or replaced."""

_VACUUM_PAGES = 1024
"""Pages that a transaction gives back to the file system."""

_BUSY_TIMEOUT = 500
"""Milliseconds that a transaction waits for another process that has locked the file. A batch may
have to wait for a step of a compaction first, which waits too."""

_LOST_MESSAGE = "the data folder or a file of the store was removed or replaced"


class Store:
    """The store's file, and the thread that writes it.

    Args:
        folder: the data folder.
        durability: whether a batch is synced before it is reported as written (`strict`), or within
            a second (`relaxed`).
        on_lost: called in the store's thread, with the reason, if the files were removed or
            replaced.
        on_failed: called in the store's thread if an unexpected error ends the thread. Batches that
            were not reported as written may be on disk or not.

    Attributes:
        path: the file.
        anchor: relates the server's time line to the wall clock.
        needs_rewrite: whether the files are lost and new ones can be written: then the next batch
            must be complete.

    Raises:
        StoreError: another server uses the folder, or the file can't be used.
    """

    def __init__(
        self,
        folder: Path,
        durability: Durability = "strict",
        on_lost: Callable[[str], object] = lambda _: None,
        on_failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._strict = durability == "strict"
        self._on_lost = on_lost
        self._on_failed = on_failed
        self._folder = folder.absolute()
        self.path = self._folder / STORE_FILE
        self._wal_path = Path(f"{self.path}-wal")
        self._partial = Path(f"{self.path}.partial")
        self._synced_at = self._checked_at = time.monotonic()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._last_error: str | None = None
        self._lost = False
        self._buffer = bytearray()
        self.needs_rewrite = False
        with ExitStack() as held:
            self._lock = lock(folder / LOCK_FILE)
            held.callback(lambda: os.close(self._lock))
            try:
                # A server that was killed may have left an unfinished store, and a staged load.
                self._partial.unlink(missing_ok=True)
                self._open()
                self.anchor = self._saved_anchor
                held.callback(self._database.close)
                self.compact()
                self._drop_staged()
            except (OSError, *READ_ERRORS, DamageError, MemoryError) as error:
                raise StoreError(self.describe_error(error)) from error
            # The lock and the database stay open until `close`.
            held.pop_all()
        self._thread = threading.Thread(target=self._thread_main, name="store")

    def _open(self) -> None:
        """Open the file, create it if it does not exist, and read its log."""
        check_header(self.path)
        with ExitStack() as held:
            database = held.enter_context(closing(connect(self.path)))
            self._prepare(database)
            # New files need their folder synced. SQLite does that only in `strict`.
            for folder in (self._folder, self._folder.parent):
                sync(folder)
            self._saved_anchor = read_anchor(database)
            self._compactor = Compactor(database)
            self._log_contents = read_log(database)
            held.pop_all()
        self._database = database
        self._seq = self._log_contents.seq
        self._synced = 0
        # The contents of batches that are written during a compaction.
        self._new_contents: list[LogContents] = []
        self._compaction: Iterator[None] | None = None
        # The number of the load that is being staged, and its parts.
        self._staged: tuple[int, list[StoredRecord]] = (0, [])
        self._parts = 0
        self._wal_size = WalSize(self._wal_path)
        self._files = OpenedFiles(self.path, self._wal_path, self._folder, self._folder / LOCK_FILE)

    def _prepare(self, database: sqlite3.Connection) -> None:
        if is_empty(database):
            create_tables(database, Anchor(now := wall_ms(), now))
        else:
            recognize_store(database, self.path)
            check_integrity(database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if self._strict else 'NORMAL'}")
        # Checkpoints follow a compaction: most of the log then need not be written to the file.
        database.execute("PRAGMA wal_autocheckpoint = 0")
        # Space that will be used again is not given back.
        database.execute(f"PRAGMA journal_size_limit = {2 * _COMPACT_AFTER}")
        # Some builds of SQLite overwrite deleted data with zeros, which would write the log again.
        database.execute("PRAGMA secure_delete = FAST")
        database.execute("PRAGMA cache_size = -65536")
        database.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")

    # For the event loop

    def write(self, changes: ChangeSet, written: Callable[[str | None], object]) -> None:
        """Start to write a batch.

        Args:
            changes: the changes of the batch.
            written: called in the store's thread: with None when the batch is on disk, or with the
                reason when it could not be written.
        """
        self._jobs.put(partial(self._commit_job, changes, written))

    def set_anchor(self, anchor: Anchor) -> None:
        """Write an anchor to disk before the next batch."""
        self.anchor = anchor
        self._jobs.put(_no_job)

    # For other threads: these calls wait for the store's thread

    def run_compacted(self, work: Callable[[], object]) -> None:
        """Compact the log, and call `work` before anything else is written.

        Raises:
            OSError: the files were removed or replaced.
            sqlite3.Error: the log can't be compacted, or `work` raised it.
        """

        def compact_and_work() -> None:
            self._check_files()
            self.compact()
            work()

        self._run_in_thread(compact_and_work)

    def stage(self, load: int, change_set: Callable[[], ChangeSet]) -> int:
        """Write the data of a load. It has no effect until a batch commits it (`ChangeSet.load`).

        Data of another load that was staged and not committed is deleted.

        Args:
            load: the number of the load, larger than that of any load before.
            change_set: returns the data of the load.

        Returns:
            The number of parts that were written.

        Raises:
            OSError: the files were removed or replaced.
            sqlite3.Error: the data can't be written.
        """
        self._run_in_thread(partial(self._begin_load, load))
        parts = 0
        for record, rows in records_of(change_set()):
            # One at a time, so that batches can be written in between.
            self._run_in_thread(partial(self._stage, load, record, rows))
            parts += 1
        return parts

    def unstage(self) -> None:
        """Delete the data of a load that was staged and not committed."""
        self._jobs.put(self._unstage)

    def _run_in_thread(self, work: Callable[[], object]) -> None:
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except Exception as error:  # Whatever it is, the caller gets it.
                done.set_exception(error)
            else:
                done.set_result(None)

        self._jobs.put(run)
        done.result()

    def close(self) -> None:
        """Write all batches that were given, close the file and release the folder."""
        if self._thread.ident is None:
            self._release()
        else:
            self._jobs.put(None)
            self._thread.join()

    # For the start, before the thread runs

    def describe_error(self, error: Exception) -> str:
        """Return a message about a file that can't be read."""
        reason = reason_of(error, self._folder)
        if is_disk_error(error):
            return f"{self.path} can't be used: {reason}"
        return (
            f"{self.path} is damaged: {reason}; start with an empty folder and --load a dataset, "
            "or with --salvage to keep what can be read"
        )

    def read(self) -> tuple[Iterator[tuple[SessionRow, KeyMap]], dict[str, Raw]]:
        """Return an iterator of the sessions, and the independent keys.

        Raises:
            sqlite3.Error: they can't be read.
            DamageError: a row is not what was written.
        """
        return read_sessions(self._database), read_keys(self._database)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database to change in one transaction.

        Raises:
            sqlite3.Error: they can't be changed.
        """
        with transaction(self._database):
            yield self._database

    def adopt_log(self, contents: LogContents, anchor: Anchor | None) -> None:
        """Write the log contents and the anchor of another store into the tables.

        Raises:
            sqlite3.Error: they can't be written.
        """
        self._compactor = Compactor(self._database)
        self._log_contents = contents
        self.compact()
        if anchor is not None:
            write_anchor(self._database, anchor)
            self.anchor = self._saved_anchor = anchor

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def compact(self) -> None:
        """Compact the log.

        Raises:
            sqlite3.Error: it can't be compacted.
        """
        begun, self._compaction = self._compaction, None
        # A compaction that has begun must end first: there can be only one.
        for _ in chain(begun or (), self._compaction_steps()):
            pass

    # The thread

    def _thread_main(self) -> None:
        try:
            self._run_jobs()
        except BaseException as error:  # Else callers would wait for the thread for ever.
            logger.critical("the store failed\n%s", trace_of(error))
            self._on_failed()
        finally:
            self._release()

    def _run_jobs(self) -> None:
        while True:
            try:
                job = self._jobs.get(block=self._compaction is None, timeout=_IDLE)
            except queue.Empty:
                job = _no_job
            if job is None:
                break
            if not self._lost:
                self._check_files_if_due()
                self._save_anchor()
            job()
            if not self._lost:
                self._compact_some(is_idle=job is _no_job)
        if not self._lost:
            self._save_anchor()
            try:
                self.compact()
            except _WRITE_ERRORS as error:
                logger.warning("the log could not be folded: %s", reason_of(error, self._folder))

    def _release(self) -> None:
        self._database.close()
        os.close(self._lock)

    def _compact_some(self, *, is_idle: bool) -> None:
        """Take a step of a compaction, or begin one if it is due; sync if that is due."""
        try:
            if self._compaction is not None:
                if next(self._compaction, _COMPACTED) is _COMPACTED:
                    self._compaction = None
            elif (
                is_idle
                or self._log_contents.size >= _COMPACT_AFTER
                or self._wal_size.growth() >= _COMPACT_AFTER
            ):
                self._compaction = self._compaction_steps()
            if not self._strict:
                self._sync()
        except _WRITE_ERRORS as error:
            # Nothing is lost: the log still has the changes.
            self._compaction = None
            reason = reason_of(error, self._folder)
            if reason != self._last_error and not self._lost:
                self._last_error = reason
                logger.warning("the log could not be folded, or synced: %s", reason)

    # Writing

    def _commit_job(self, changes: ChangeSet, written: Callable[[str | None], object]) -> None:
        written(self._commit(changes))

    def _commit(self, changes: ChangeSet) -> str | None:
        """Write a batch; return the reason if it could not be written."""
        try:
            if self._lost:
                self._rewrite(changes)
                return None
            staged = self._take_staged(changes.load)
            stored = self._write_log([*records_of(changes)])
        except (*_WRITE_ERRORS, DamageError) as error:
            return reason_of(error, self._folder)
        self._note_written(stored, staged)
        return None

    def _take_staged(self, load: LoadCommit | None) -> Sequence[StoredRecord]:
        """Return the staged parts of a load that is committed."""
        if load is None:
            return ()
        number, staged = self._staged
        if (number, len(staged)) != (load.number, load.parts):
            # The parts were in the file that was lost.
            raise OSError(errno.ESTALE, _LOST_MESSAGE)
        self._staged = (0, [])
        return staged

    def _write_log(
        self, records: Sequence[tuple[LogRecord, Sequence[SessionRow]]]
    ) -> list[StoredRecord]:
        """Write records, all of them or none."""
        try:
            # A single statement is a transaction.
            with nullcontext() if len(records) == 1 else transaction(self._database):
                return [
                    StoredRecord(
                        seq, self._insert(_INSERT_RECORD, NO_LOAD, seq, record), record, rows
                    )
                    for seq, (record, rows) in enumerate(records, start=self._seq + 1)
                ]
        except _WRITE_ERRORS as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                self._write_empty_record()
            raise

    def _write_empty_record(self) -> None:
        """Write an empty record over one that failed, which may be in the file but not synced."""
        seq, empty = self._seq + 1, LogRecord()
        with suppress(*_WRITE_ERRORS):
            size = self._insert(_INSERT_RECORD, NO_LOAD, seq, empty)
            self._note_written([StoredRecord(seq, size, empty, ())])
        # A checkpoint frees space in the write-ahead log.
        with suppress(*_WRITE_ERRORS):
            self._checkpoint()

    def _note_written(
        self, records: Sequence[StoredRecord], staged: Sequence[StoredRecord] = ()
    ) -> None:
        """Add records that were written to the log contents."""
        for record in records:
            self._seq = record.seq
            for contents in (self._log_contents, *self._new_contents):
                contents.add(record, staged)

    def _insert(self, statement: str, load: int, seq: int, record: LogRecord) -> int:
        """Write a record; return its size in bytes."""
        # If memory runs out, `encode` would end the process.
        text = self._buffer
        encode_into(record, text)
        of_load = (load,) if load != NO_LOAD else ()
        columns = (seq, text, log_checksum(load, seq, text), *of_load)
        self._database.execute(statement, columns)
        self._wal_size.note_write(len(text))
        return len(text)

    def _begin_load(self, load: int) -> None:
        self._check_files()
        self._drop_staged()
        self._staged = (load, [])

    def _unstage(self) -> None:
        self._staged = (0, [])
        # If that fails, the next load or start does it.
        with suppress(*_WRITE_ERRORS):
            self._drop_staged()

    def _drop_staged(self) -> None:
        last = max(contents.load for contents in (self._log_contents, *self._new_contents))
        self._database.execute("DELETE FROM loading WHERE load > ?", (last,))

    def _stage(self, load: int, record: LogRecord, rows: Sequence[SessionRow]) -> None:
        self._check_files()
        self._parts += 1
        size = self._insert(_INSERT_PART, load, self._parts, record)
        self._staged[1].append(StoredRecord(self._parts, size, record, rows))

    def _save_anchor(self) -> None:
        # The event loop may set another one meanwhile.
        anchor = self.anchor
        if self._saved_anchor != anchor:
            # If that fails, the next batch fails too, and reports it.
            with suppress(*_WRITE_ERRORS):
                write_anchor(self._database, anchor)
                self._saved_anchor = anchor
                # It must be synced too, even without a batch.
                self._synced = -1

    # Compaction

    def _compaction_steps(self) -> Iterator[None]:
        """Compact the log, one transaction at a time."""
        contents, database = self._log_contents, self._database
        if contents.seq:
            new_contents = LogContents()
            self._new_contents = [new_contents]
            try:
                for _ in self._compactor.steps(contents):
                    if self._wal_size.growth(measure=True) >= 2 * _COMPACT_AFTER:
                        self._checkpoint()
                    yield
                self._log_contents = new_contents
                self._last_error = None
            finally:
                self._new_contents = []
            yield
            while self._needs_vacuum():
                # Python 3.11's `execute` ends such a statement after its first page.
                database.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
                yield
        elif self._wal_size.is_unchanged:
            return
        self._wal_size.growth(measure=True)
        self._checkpoint()

    def _needs_vacuum(self) -> bool:
        [(free,)] = self._database.execute("PRAGMA freelist_count")
        [(pages,)] = self._database.execute("PRAGMA page_count")
        return bool(free > max(_VACUUM_PAGES, pages // 4))

    def _checkpoint(self) -> None:
        # SQLite would write to any file that is there now.
        self._check_files()
        try:
            [(_, pages, done)] = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            # Even a checkpoint that fails may have written.
            self._files.note_write()
        # If all pages are in the file, the log restarts, unless a reader uses an older state.
        self._wal_size.note_checkpoint(restarts=pages == done)

    def _sync(self) -> None:
        """Sync what was committed, if the last sync was a second ago."""
        now = time.monotonic()
        if self._synced < self._seq and now - self._synced_at >= _IDLE:
            sync(self._wal_path)
            self._synced, self._synced_at = self._seq, now

    # Files that were removed or replaced

    def _check_files_if_due(self) -> None:
        """Check for removed or replaced files, if the last check was a second ago."""
        now = time.monotonic()
        if now - self._checked_at >= _IDLE:
            self._checked_at = now
            with suppress(OSError):
                self._check_files()

    def _check_files(self) -> None:
        """Check that the files were not removed or replaced.

        Raises:
            OSError: they were.
        """
        if not self._lost:
            if (
                self._files.are_unchanged()
                and self._wal_path.stat().st_size >= self._wal_size.min_file_size
            ):
                return
            self._lost = True
            self._compaction = None
            with suppress(OSError):
                self._prepare_rewrite()
            self._on_lost(_LOST_MESSAGE)
        raise OSError(errno.ESTALE, _LOST_MESSAGE)

    def _prepare_rewrite(self) -> None:
        """Check that a new file can be written; if it can, ask for a complete change set.

        Raises:
            OSError: it can't be written.
        """
        self.needs_rewrite = False
        check_disk_space(self._folder, self._files.size)
        if not is_open_file(self._lock, self._folder / LOCK_FILE):
            try:
                taken = lock(self._folder / LOCK_FILE)
            except StoreError as error:
                # Clients get the reason, and must not learn the path of the folder.
                raise OSError(errno.EBUSY, "another process uses the data folder") from error
            os.close(self._lock)
            self._lock = taken
        self.needs_rewrite = True

    def _rewrite(self, changes: ChangeSet) -> None:
        """Write a new file from a complete change set.

        Raises:
            OSError, sqlite3.Error: it can't be written.
        """
        self._prepare_rewrite()
        if not changes.complete:
            raise OSError(errno.ESTALE, _LOST_MESSAGE)
        new = self._partial
        new.unlink(missing_ok=True)
        try:
            write_complete(new, changes, self.anchor)
            kept_as = replace_store(self.path, new, "replaced")
        finally:
            new.unlink(missing_ok=True)
        before = self._database
        self._open()
        # Only now: before, SQLite would delete the write-ahead log of the file at that path.
        before.close()
        self._lost = self.needs_rewrite = False
        kept = f"; the file in its place is kept as {kept_as}" if kept_as else ""
        logger.warning("the store was written again from memory: %s%s", self.path, kept)


_COMPACTED = object()

_WRITE_ERRORS = (sqlite3.Error, OSError, MemoryError)
"""Errors of writes that may succeed later. If SQLite lacks memory, it raises `MemoryError`."""


def _no_job() -> None:
    """Do nothing: the job when there is no other."""
