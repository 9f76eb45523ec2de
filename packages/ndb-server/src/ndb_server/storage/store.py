"""The store on disk: one SQLite file, written by one thread.

A batch of changes becomes durable as rows of the table ``log``. This is one transaction that writes
little, and one sync. From time to time the contents of the log are folded into the tables
``sessions`` and ``keys``, sorted and each session once, and the log is emptied. After a crash, the
next process that opens the file folds first.

If the file or its folder is removed or replaced, writes to it are useless. Then the thread asks for
all data, and writes it to a new file.
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
from .files import (
    OpenedFiles,
    check_room,
    has_at,
    is_of_the_disk,
    lock,
    reason_of,
    replace_store,
    sync,
)
from .folding import Folding, transaction
from .log import IN_LOG, Part, Record, Unfolded, encode_into, read_log, records_of
from .schema import (
    FILE,
    check_header,
    is_new,
    make_tables,
    put_anchor,
    read_anchor,
    recognize,
    write_complete,
)
from .tables import (
    READ_ERRORS,
    DamageError,
    check_structure,
    connect,
    read_keys,
    read_sessions,
)
from .wal_size import WriteAheadLog

logger = logging.getLogger("ndb_server.store")

Durability = Literal["strict", "relaxed"]

LOCK = "ndb.lock"

_INSERT = "INSERT INTO log (seq, changes, checksum) VALUES (?, CAST(? AS TEXT), ?)"
_INSERT_PART = """
INSERT INTO loading (id, changes, checksum, load) VALUES (?, CAST(? AS TEXT), ?, ?)
"""

_WAL_SIZE = 16 * 2**20
"""Bytes of write-ahead log after which the log is folded."""

_IDLE = 1.0
"""Seconds without a change after which the log is folded, however short, and files are synced; and
between two looks at whether the files are still those that were opened."""

_VACUUM = 1024
"""Pages that are given back at a time."""

_BUSY = 500
"""Milliseconds that a transaction waits for another process that has locked the file. A step of a
fold, which comes before a batch, may wait too."""

_LOST = "the data folder or a file of the store was removed or replaced"


class Store:
    """The file, and the thread that writes it.

    Args:
        folder: the data folder.
        durability: whether a batch is synced before it counts as written (`strict`), or within a
            second (`relaxed`).
        lost: called in the store's thread, with the reason, when the files are found to be others.
        failed: called in the store's thread if it ends by an error that it can't go on after. What
            it was given to write, and was not said to be written, may be on disk or not.

    Attributes:
        path: the file.
        anchor: ties the time of the store to the wall clock.
        incomplete: whether the next batch has to be all there is: the files are lost, and others
            can be written.

    Raises:
        StoreError: another server has the folder, or the file can't be used.
    """

    def __init__(
        self,
        folder: Path,
        durability: Durability = "strict",
        lost: Callable[[str], object] = lambda _: None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._strict = durability == "strict"
        self._tell_lost = lost
        self._tell_failed = failed
        self._folder = folder.absolute()
        self.path = self._folder / FILE
        self._wal_path = Path(f"{self.path}-wal")
        self._partial = Path(f"{self.path}.partial")
        self._synced_at = self._looked_at = time.monotonic()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._trouble: str | None = None
        self._lost = False
        self._text = bytearray()
        self.incomplete = False
        with ExitStack() as held:
            self._lock = lock(folder / LOCK)
            held.callback(lambda: os.close(self._lock))
            try:
                # What a server that was killed meanwhile has left: a store, and a load.
                self._partial.unlink(missing_ok=True)
                self._open()
                self.anchor = self._kept_anchor
                held.callback(self._database.close)
                self.fold()
                self._drop_staged()
            except (OSError, *READ_ERRORS, DamageError, MemoryError) as error:
                raise StoreError(self.damaged(error)) from error
            # What has come so far holds the folder until `close`.
            held.pop_all()
        self._thread = threading.Thread(target=self._run, name="store")

    def _open(self) -> None:
        """Open the file, made if it is not there, and read its log."""
        check_header(self.path)
        with ExitStack() as held:
            database = held.enter_context(closing(connect(self.path)))
            self._prepare(database)
            # The files are as new as their entries; SQLite sees to that in `strict` alone.
            for changed in (self._folder, self._folder.parent):
                sync(changed)
            self._kept_anchor = read_anchor(database)
            self._tables = Folding(database)
            self._unfolded = read_log(database)
            held.pop_all()
        self._database = database
        self._seq = self._unfolded.seq
        self._synced = 0
        # What comes while the log is being folded.
        self._since: list[Unfolded] = []
        self._folding: Iterator[None] | None = None
        # The load that is being staged, and its parts.
        self._staged: tuple[int, list[Part]] = (0, [])
        self._parts = 0
        self._wal = WriteAheadLog(self._wal_path)
        self._files = OpenedFiles(self.path, self._wal_path, self._folder, self._folder / LOCK)

    def _prepare(self, database: sqlite3.Connection) -> None:
        if is_new(database):
            make_tables(database, Anchor(now := wall_ms(), now))
        else:
            recognize(database, self.path)
            check_structure(database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if self._strict else 'NORMAL'}")
        # Checkpoints follow a fold: most of what the log was need not go to the file at all.
        database.execute("PRAGMA wal_autocheckpoint = 0")
        # What is in use again need not be asked for again.
        database.execute(f"PRAGMA journal_size_limit = {2 * _WAL_SIZE}")
        # Some builds of SQLite write zeros over all that is deleted: over the log, once more.
        database.execute("PRAGMA secure_delete = FAST")
        database.execute("PRAGMA cache_size = -65536")
        database.execute(f"PRAGMA busy_timeout = {_BUSY}")

    # For the event loop

    def write(self, changed: ChangeSet, written: Callable[[str | None], object]) -> None:
        """Begin to write a batch.

        Args:
            changed: what is to be on disk.
            written: called in the store's thread once it is there, with None, or once it is certain
                not to be, with the reason.
        """
        self._jobs.put(partial(self._report, changed, written))

    def tie(self, anchor: Anchor) -> None:
        """Have another anchor on disk, before what is written next."""
        self.anchor = anchor
        self._jobs.put(_nothing)

    # For other threads: these wait for the store's.

    def at_rest(self, work: Callable[[], object]) -> None:
        """Do `work` while the tables are up to date and nothing is written.

        Raises:
            OSError: the file is not there any more.
            sqlite3.Error: the tables can't be brought up to date, or what `work` raises.
        """

        def fold_and_work() -> None:
            self._check_files()
            self.fold()
            work()

        self._do(fold_and_work)

    def stage(self, load: int, staged: Callable[[], ChangeSet]) -> int:
        """Write what a load consists of; it counts once a batch says so (`Changed.load`).

        What was staged for another load, and never counted, goes.

        Args:
            load: its number, more than that of any load before.
            staged: returns its sessions, whose deadlines are not known yet, and keys.

        Returns:
            Of how many parts it is.

        Raises:
            OSError: the file is not there any more.
            sqlite3.Error: it can't be written.
        """
        self._do(partial(self._begin_load, load))
        parts = 0
        for record, rows in records_of(staged()):
            # One at a time: batches are written in between.
            self._do(partial(self._stage, load, record, rows))
            parts += 1
        return parts

    def unstage(self) -> None:
        """Forget what was staged and does not count."""
        self._jobs.put(self._unstage)

    def _do(self, work: Callable[[], object]) -> None:
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except Exception as error:  # Whoever waits is told, whatever it is.
                done.set_exception(error)
            else:
                done.set_result(None)

        self._jobs.put(run)
        done.result()

    def close(self) -> None:
        """Finish what is to be written, and let go of the folder."""
        if self._thread.ident is None:
            self._end()
        else:
            self._jobs.put(None)
            self._thread.join()

    # For the start

    def damaged(self, error: Exception) -> str:
        """Return what to say of a file that can't be read."""
        reason = reason_of(error, self._folder)
        if is_of_the_disk(error):
            return f"{self.path} can't be used: {reason}"
        return (
            f"{self.path} is damaged: {reason}; start with an empty folder and --load a dataset, "
            "or with --salvage to keep what can be read"
        )

    def read(self) -> tuple[Iterator[tuple[SessionRow, KeyMap]], dict[str, Raw]]:
        """Return the sessions, one by one, and the independent keys, before anything is written.

        Raises:
            sqlite3.Error: they can't be read.
            DamageError: there is something that can't be.
        """
        return read_sessions(self._database), read_keys(self._database)

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Give the tables to change, in one transaction, before anything is written.

        Raises:
            sqlite3.Error: they can't be changed.
        """
        with transaction(self._database):
            yield self._database

    def take_over(self, unfolded: Unfolded, anchor: Anchor | None) -> None:
        """Fold what the log of another store held, before anything is written.

        Raises:
            sqlite3.Error: it can't be.
        """
        self._tables = Folding(self._database)
        self._unfolded = unfolded
        self.fold()
        if anchor is not None:
            put_anchor(self._database, anchor)
            self.anchor = self._kept_anchor = anchor

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def fold(self) -> None:
        """Bring the tables up to date.

        Raises:
            sqlite3.Error: they can't be.
        """
        folding, self._folding = self._folding, None
        # One that has begun has to end: each takes for granted that it is the only one.
        for _ in chain(folding or (), self._fold()):
            pass

    # The thread

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # Whoever waits for the thread would wait for ever.
            logger.critical("the store failed\n%s", trace_of(error))
            self._tell_failed()
        finally:
            self._end()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(block=self._folding is None, timeout=_IDLE)
            except queue.Empty:
                job = _nothing
            if job is None:
                break
            if not self._lost:
                self._look_at_files()
                self._keep_anchor()
            job()
            if not self._lost:
                self._fold_some(is_idle=job is _nothing)
        if not self._lost:
            self._keep_anchor()
            try:
                self.fold()
            except _TROUBLES as error:
                logger.warning("the log could not be folded: %s", reason_of(error, self._folder))

    def _end(self) -> None:
        self._database.close()
        os.close(self._lock)

    def _fold_some(self, *, is_idle: bool) -> None:
        """Take a step of a fold, or begin one if it is time; sync if it is time."""
        try:
            if self._folding is not None:
                if next(self._folding, _FOLDED) is _FOLDED:
                    self._folding = None
            elif is_idle or self._unfolded.size >= _WAL_SIZE or self._wal.grown() >= _WAL_SIZE:
                self._folding = self._fold()
            if not self._strict:
                self._sync()
        except _TROUBLES as error:
            # Nothing is lost: the log has it.
            self._folding = None
            reason = reason_of(error, self._folder)
            if reason != self._trouble and not self._lost:
                self._trouble = reason
                logger.warning("the log could not be folded, or synced: %s", reason)

    # Writing

    def _report(self, changed: ChangeSet, written: Callable[[str | None], object]) -> None:
        written(self._commit(changed))

    def _commit(self, changed: ChangeSet) -> str | None:
        """Write a batch; return why it could not be written, if so."""
        try:
            if self._lost:
                self._rebuild(changed)
                return None
            staged = self._staged_for(changed.load)
            parts = self._write_log([*records_of(changed)])
        except (*_TROUBLES, DamageError) as error:
            return reason_of(error, self._folder)
        self._took(parts, staged)
        return None

    def _staged_for(self, load: LoadCommit | None) -> Sequence[Part]:
        """Return the parts of a load that counts from now on."""
        if load is None:
            return ()
        number, staged = self._staged
        if (number, len(staged)) != (load.number, load.parts):
            # They were in the file that was lost.
            raise OSError(errno.ESTALE, _LOST)
        self._staged = (0, [])
        return staged

    def _write_log(self, found: Sequence[tuple[Record, Sequence[SessionRow]]]) -> list[Part]:
        """Write records, all of them or none."""
        try:
            # A statement alone is a transaction.
            with nullcontext() if len(found) == 1 else transaction(self._database):
                return [
                    Part(seq, self._insert(_INSERT, IN_LOG, seq, record), record, rows)
                    for seq, (record, rows) in enumerate(found, start=self._seq + 1)
                ]
        except _TROUBLES as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                self._write_over()
            raise

    def _write_over(self) -> None:
        """Write a record that says nothing: what failed may be there, and only was not synced."""
        seq = self._seq + 1
        with suppress(*_TROUBLES):
            self._took([Part(seq, self._insert(_INSERT, IN_LOG, seq, Record()), Record(), ())])
        # What is in the file already need not be in the write-ahead log: that makes room.
        with suppress(*_TROUBLES):
            self._checkpoint()

    def _took(self, parts: Sequence[Part], staged: Sequence[Part] = ()) -> None:
        """Note what the log has taken."""
        for part in parts:
            self._seq = part.seq
            for unfolded in (self._unfolded, *self._since):
                unfolded.add(part, staged)

    def _insert(self, statement: str, load: int, seq: int, record: Record) -> int:
        """Write a record; return its size in bytes."""
        # Where memory runs out, `encode` ends the process.
        text = self._text
        encode_into(record, text)
        of_load = (load,) if load != IN_LOG else ()
        columns = (seq, text, log_checksum(load, seq, text), *of_load)
        self._database.execute(statement, columns)
        self._wal.wrote(len(text))
        return len(text)

    def _begin_load(self, load: int) -> None:
        self._check_files()
        self._drop_staged()
        self._staged = (load, [])

    def _unstage(self) -> None:
        self._staged = (0, [])
        # Where that can't be, the next load or start does it.
        with suppress(*_TROUBLES):
            self._drop_staged()

    def _drop_staged(self) -> None:
        last = max(unfolded.load for unfolded in (self._unfolded, *self._since))
        self._database.execute("DELETE FROM loading WHERE load > ?", (last,))

    def _stage(self, load: int, record: Record, rows: Sequence[SessionRow]) -> None:
        self._check_files()
        self._parts += 1
        size = self._insert(_INSERT_PART, load, self._parts, record)
        self._staged[1].append(Part(self._parts, size, record, rows))

    def _keep_anchor(self) -> None:
        # The event loop may give another one meanwhile.
        anchor = self.anchor
        if self._kept_anchor != anchor:
            # Where that can't be, nothing else can be written: whoever tries will say so.
            with suppress(*_TROUBLES):
                put_anchor(self._database, anchor)
                self._kept_anchor = anchor
                # It has to be synced too, though no batch came.
                self._synced = -1

    # Folding

    def _fold(self) -> Iterator[None]:
        """Bring the tables up to date and empty the log, a transaction at a time."""
        unfolded, database = self._unfolded, self._database
        if unfolded.seq:
            since = Unfolded()
            self._since = [since]
            try:
                for _ in self._tables.steps(unfolded):
                    if self._wal.grown(look=True) >= 2 * _WAL_SIZE:
                        self._checkpoint()
                    yield
                self._unfolded = since
                self._trouble = None
            finally:
                self._since = []
            yield
            while self._is_wasteful():
                # Python 3.11's `execute` ends such a statement after its first page.
                database.executescript(f"PRAGMA incremental_vacuum({_VACUUM})")
                yield
        elif self._wal.is_idle:
            return
        self._wal.grown(look=True)
        self._checkpoint()

    def _is_wasteful(self) -> bool:
        [(free,)] = self._database.execute("PRAGMA freelist_count")
        [(pages,)] = self._database.execute("PRAGMA page_count")
        return bool(free > max(_VACUUM, pages // 4))

    def _checkpoint(self) -> None:
        # It would write into whatever file is there.
        self._check_files()
        try:
            [(_, pages, done)] = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            # Even one that fails may have written.
            self._files.written()
        # If all of it is in the file, it begins anew; who reads an older state prevents that.
        self._wal.checkpoint(begins_anew=pages == done)

    def _sync(self) -> None:
        """Have what was committed survive a power cut, if the last time is a second ago."""
        now = time.monotonic()
        if self._synced < self._seq and now - self._synced_at >= _IDLE:
            sync(self._wal_path)
            self._synced, self._synced_at = self._seq, now

    # Files that are not there any more

    def _look_at_files(self) -> None:
        """Find out whether the files are those that were opened, if it is time to look."""
        now = time.monotonic()
        if now - self._looked_at >= _IDLE:
            self._looked_at = now
            with suppress(OSError):
                self._check_files()

    def _check_files(self) -> None:
        """Find out whether the files are those that were opened.

        Raises:
            OSError: they are not.
        """
        if not self._lost:
            if self._files.are_there() and self._wal_path.stat().st_size >= self._wal.least:
                return
            self._lost = True
            self._folding = None
            with suppress(OSError):
                self._look_for_room()
            self._tell_lost(_LOST)
        raise OSError(errno.ESTALE, _LOST)

    def _look_for_room(self) -> None:
        """Find out whether another file can be made; if so, ask for all there is.

        Raises:
            OSError: it can't.
        """
        self.incomplete = False
        check_room(self._folder, self._files.size)
        if not has_at(self._lock, self._folder / LOCK):
            try:
                taken = lock(self._folder / LOCK)
            except StoreError as error:
                # Clients are told the reason: where the folder is does not belong there.
                raise OSError(errno.EBUSY, "another process uses the data folder") from error
            os.close(self._lock)
            self._lock = taken
        self.incomplete = True

    def _rebuild(self, changed: ChangeSet) -> None:
        """Make another file of all there is.

        Raises:
            OSError, sqlite3.Error: it can't be made.
        """
        self._look_for_room()
        if not changed.complete:
            raise OSError(errno.ESTALE, _LOST)
        new = self._partial
        new.unlink(missing_ok=True)
        try:
            write_complete(new, changed, self.anchor)
            kept_as = replace_store(self.path, new, "replaced")
        finally:
            new.unlink(missing_ok=True)
        before = self._database
        self._open()
        # Only now: SQLite would delete the log of a file that still had its name.
        before.close()
        self._lost = self.incomplete = False
        kept = f"; the file in its place is kept as {kept_as}" if kept_as else ""
        logger.warning("the store was written again from memory: %s%s", self.path, kept)


_FOLDED = object()

_TROUBLES = (sqlite3.Error, OSError, MemoryError)
"""What may be over in a moment. SQLite's own lack of memory is a `MemoryError`."""


def _nothing() -> None:
    """The job when there is none."""
