"""The store on disk: one SQLite file, written by one thread.

A batch of changes becomes durable as one row of the table ``log``. That is one transaction that
writes little, and one sync. What has gathered in the log is folded into the tables ``sessions`` and
``keys`` now and then, sorted and each session once; then the log is emptied. Whoever opens the file
after a crash folds first. Folding again what was folded already changes nothing.
"""

import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct
from ndb_protocol import NO_TOKEN

from .batches import Changed
from .edits import MapChange
from .errors import trace_of
from .packing import Packed
from .rows import Row, signed
from .tables import (
    DROP_KEYS,
    END_SESSIONS,
    PUT_SESSIONS,
    REMOVE_KEYS,
    TABLES,
    connect,
    put_keys,
    read_keys,
    read_sessions,
)

logger = logging.getLogger(__name__)

Durability = Literal["strict", "relaxed"]

FILE = "ndb.sqlite"
LOCK = "ndb.lock"

APPLICATION_ID = 0x4E444231
"""``NDB1``: what tells the file from others that SQLite wrote (``PRAGMA application_id``)."""

VERSION = 1
"""The version of the tables (``PRAGMA user_version``)."""

_TABLES = f"""
{TABLES}
CREATE TABLE log (seq INTEGER PRIMARY KEY, changes TEXT NOT NULL);
CREATE VIEW readable_sessions AS
    SELECT printf('%u', tkn) AS tkn, duration,
        flags & 1 AS deleteSession, flags >> 1 & 1 AS extendOnSetAdd, flags >> 2 & 1 AS extendOnGet,
        strftime('%Y-%m-%d %H:%M:%f', deadline / 1000.0, 'unixepoch') AS deadline, keys
    FROM sessions;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""  # noqa: S608

_FOLD_SIZE = 32 * 2**20
"""Bytes of log after which it is folded; reading so much takes part of a second."""

_IDLE = 1.0
"""Seconds without a change after which the log is folded, however short, and files are synced."""

_SLICE = 4096
"""Sessions that are folded between two looks at whether a batch waits."""

_MAPS = 64
"""Maps of keys that are folded between two looks."""

_VACUUM = 1024
"""Pages that are given back at a time."""


_OF_THE_DISK = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors that say nothing of what is in the file."""


class StoreError(Exception):
    """The store can't be opened, or read; says why and what to do."""


class VersionError(StoreError):
    """The store is of a version that this server does not know."""


class _Map(Struct, array_like=True, gc=False):
    tkn: int
    clear: bool
    removed: list[str]
    put: dict[str, Raw]


class _Record(Struct, omit_defaults=True, gc=False):
    """A batch as a row of the log has it."""

    all_ended: bool = False
    ended: list[int] = []
    rows: list[tuple[int, int, int, int | None, Raw]] = []
    maps: list[_Map] = []


_NULL = Raw(b"null")
_number = itemgetter(0)
_encode_into = msgspec.json.Encoder().encode_into
_decode = msgspec.json.Decoder(_Record).decode


class Unfolded:
    """What the log holds that the tables have not got: for each session, what it is at last."""

    def __init__(self) -> None:
        self.seq = 0
        self.size = 0
        self.all_ended = False
        self.ended: dict[int, None] = {}
        self.rows: dict[int, Row] = {}
        self.maps: dict[int, MapChange] = {}

    def add(self, seq: int, size: int, record: _Record, rows: Sequence[Row]) -> None:
        self.seq = seq
        self.size += size
        if record.all_ended:
            self.all_ended = True
            self.ended.clear()
            self.rows.clear()
            self.maps = {token: change for token, change in self.maps.items() if token == NO_TOKEN}
        for number in record.ended:
            self.ended[number] = None
            self.rows.pop(number, None)
            self.maps.pop(number, None)
        self.rows.update(zip(map(_number, rows), rows, strict=True))
        if self.maps:
            for row in rows:
                if row[-1] is not None:
                    self.maps.pop(row[0], None)
        for each in record.maps:
            known = self.maps.get(each.tkn)
            if known is None or each.clear:
                self.maps[each.tkn] = MapChange(
                    dict.fromkeys(each.removed), dict(each.put), each.clear
                )
            else:
                known.then(each.removed, each.put)


def recognize(database: sqlite3.Connection, path: Path) -> None:
    """Check that `database` has our tables.

    Raises:
        StoreError: it is something else, or of another version.
        sqlite3.Error: it can't be read.
    """
    [(application,)] = database.execute("PRAGMA application_id")
    [(version,)] = database.execute("PRAGMA user_version")
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is not a store of NDB")
    if version != VERSION:
        raise VersionError(
            f"{path} has version {version} of the tables; this server knows {VERSION}"
        )


def read_log(database: sqlite3.Connection) -> Unfolded:
    """Return what the log has, without changing it.

    Raises:
        sqlite3.Error: it can't be read.
        msgspec.MsgspecError: it holds what can't be.
    """
    unfolded = Unfolded()
    for seq, changes in database.execute("SELECT seq, changes FROM log ORDER BY seq"):
        unfolded.add(seq, len(changes), *decode_changes(changes))
    return unfolded


def decode_changes(changes: bytes) -> tuple[_Record, list[Row]]:
    """Return what a row of the log says, and the rows of sessions in it.

    Raises:
        msgspec.MsgspecError: it says nothing that can be.
    """
    record = _decode(changes)
    return record, [(*row[:-1], None if row[-1] == _NULL else row[-1]) for row in record.rows]


class Store:
    """The file, and the thread that writes it.

    Args:
        folder: the data folder.
        durability: whether a batch is synced before it counts as written (`strict`), or within a
            second (`relaxed`).

    Attributes:
        failed: called in the store's thread if it ends by an error that it can't go on after. What
            it was given to write, and was not said to be written, may be on disk or not.

    Raises:
        StoreError: another server has the folder, or the file can't be used.
    """

    def __init__(self, folder: Path, durability: Durability = "strict") -> None:
        self._strict = durability == "strict"
        self.path = folder.absolute() / FILE
        self._seq = self._synced = 0
        self._synced_at = time.monotonic()
        self._unfolded = Unfolded()
        # What comes while the log is being folded.
        self._since: list[Unfolded] = []
        self._folding: Iterator[object] | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._trouble: str | None = None
        self._text = bytearray()
        self.failed: Callable[[], object] = _nothing
        with ExitStack() as held:
            self._lock = lock(folder / LOCK)
            held.callback(os.close, self._lock)
            try:
                self._database = held.enter_context(closing(connect(self.path)))
                self._prepare(self._database)
                # The files are as new as their entries; SQLite sees to that in `strict` alone.
                for changed in (folder, folder.parent):
                    sync(changed)
                # Sessions that have keys in their table.
                self._spread = {
                    number
                    for (number,) in self._database.execute(
                        "SELECT tkn FROM sessions WHERE keys IS NULL"
                    )
                }
                self._unfolded = read_log(self._database)
                self._seq = self._unfolded.seq
                self.fold()
            except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
                raise StoreError(self.damaged(error)) from error
            # What has come so far holds the folder until `close`.
            held.pop_all()
        self._thread = threading.Thread(target=self._run, name="store")

    def _prepare(self, database: sqlite3.Connection) -> None:
        [(tables,)] = database.execute("SELECT count(*) FROM sqlite_master")
        if tables == 0:
            # Before the first table: neither can be changed later.
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(f"BEGIN; {_TABLES} COMMIT;")
        else:
            recognize(database, self.path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if self._strict else 'NORMAL'}")
        # Checkpoints follow a fold: most of what the log was need not go to the file at all.
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("PRAGMA journal_size_limit = 67108864")
        # Some builds of SQLite write zeros over all that is deleted: over the log, once more.
        database.execute("PRAGMA secure_delete = FAST")
        database.execute("PRAGMA cache_size = -65536")
        database.execute("PRAGMA busy_timeout = 5000")

    # For the event loop

    def write(self, changed: Changed, written: Callable[[str | None], object]) -> None:
        """Begin to write a batch.

        Args:
            changed: what is to be on disk.
            written: called in the store's thread once it is there, with None, or once it is certain
                not to be, with the reason.
        """
        self._jobs.put(partial(self._report, changed, written))

    def at_rest(self, work: Callable[[], object]) -> None:
        """Do `work` while the tables are up to date and nothing is written.

        Blocking: to be called from another thread.

        Raises:
            sqlite3.Error: the tables can't be brought up to date.
            Exception: what `work` raises.
        """
        done: Future[None] = Future()

        def run() -> None:
            try:
                self.fold()
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
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(error, OSError) or (code is not None and code & 0xFF in _OF_THE_DISK):
            return f"{self.path} can't be used: {error}"
        return (
            f"{self.path} is damaged: {error}; start with an empty folder and --load a dataset, or "
            "with --salvage to keep what can be read"
        )

    def read(self) -> tuple[Iterator[tuple[Row, Packed]], dict[str, Raw]]:
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
        with _transaction(self._database):
            yield self._database

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
            self.failed()
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
            job()
            try:
                if self._folding is not None:
                    if next(self._folding, _FOLDED) is _FOLDED:
                        self._folding = None
                elif self._unfolded.size >= _FOLD_SIZE or job is _nothing:
                    self._folding = self._fold()
                if not self._strict:
                    self._sync()
            except _TROUBLES as error:
                # Nothing is lost: the log has it.
                self._folding = None
                reason = _reason(error)
                if reason != self._trouble:
                    self._trouble = reason
                    logger.warning("the log could not be folded, or synced: %s", reason)
        try:
            self.fold()
        except _TROUBLES as error:
            logger.warning("the log could not be folded: %s", _reason(error))

    def _end(self) -> None:
        self._database.close()
        os.close(self._lock)

    def _report(self, changed: Changed, written: Callable[[str | None], object]) -> None:
        written(self._commit(changed))

    def _commit(self, changed: Changed) -> str | None:
        try:
            record = _Record(
                all_ended=changed.all_ended,
                ended=[signed(token) for token in changed.ended],
                rows=changed.rows,  # type: ignore[arg-type]
                maps=[
                    _Map(signed(token), change.clear, list(change.removed), change.put)
                    for token, change in changed.maps.items()
                ],
            )
            size = self._append(record)
        except _TROUBLES as error:
            # If it was written and could not be synced, a crash would bring it back.
            with suppress(*_TROUBLES):
                self._took(_Record(), [], self._append(_Record()))
            return _reason(error)
        self._took(record, changed.rows, size)
        return None

    def _append(self, record: _Record) -> int:
        """Write a record; return its size."""
        # Where memory runs out, `encode` ends the process.
        text = self._text
        _encode_into(record, text)
        self._database.execute("INSERT INTO log VALUES (?, CAST(? AS TEXT))", (self._seq + 1, text))
        return len(text)

    def _took(self, record: _Record, rows: list[Row], size: int) -> None:
        """Note what the log has taken."""
        self._seq += 1
        for unfolded in (self._unfolded, *self._since):
            unfolded.add(self._seq, size, record, rows)

    def _fold(self) -> Iterator[None]:
        """Bring the tables up to date and empty the log, a transaction at a time."""
        unfolded, database = self._unfolded, self._database
        if not unfolded.seq:
            return
        since = Unfolded()
        self._since = [since]
        try:
            last = unfolded.seq
            with _transaction(database):
                dropped = self._fold_ends(unfolded)
            self._spread -= dropped
            yield
            numbers = iter(sorted(unfolded.rows))
            while some := list(islice(numbers, _SLICE)):
                with _transaction(database):
                    dropped = self._fold_rows([row for n in some if (row := unfolded.rows.get(n))])
                self._spread -= dropped
                yield
            maps = iter(list(unfolded.maps.items()))
            while changes := list(islice(maps, _MAPS)):
                with _transaction(database):
                    for number, change in changes:
                        self._fold_map(number, change)
                yield
            database.execute("DELETE FROM log WHERE seq <= ?", (last,))
            self._unfolded = since
            self._trouble = None
        finally:
            self._since = []
        yield
        while self._is_wasteful():
            # Python 3.11's `execute` ends such a statement after its first page.
            database.executescript(f"PRAGMA incremental_vacuum({_VACUUM})")
            yield
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _is_wasteful(self) -> bool:
        [(free,)] = self._database.execute("PRAGMA freelist_count")
        [(pages,)] = self._database.execute("PRAGMA page_count")
        return bool(free > max(_VACUUM, pages // 4))

    # Each returns which sessions have no keys in their table any more once it is committed.

    def _fold_ends(self, unfolded: Unfolded) -> set[int]:
        if unfolded.all_ended:
            self._database.execute("DELETE FROM sessions")
            self._database.execute("DELETE FROM keys WHERE tkn <> ?", (NO_TOKEN,))
            return self._spread.copy()
        END_SESSIONS.run(self._database, [(number,) for number in unfolded.ended])
        return self._drop_keys(unfolded.ended)

    def _fold_rows(self, rows: list[Row]) -> set[int]:
        PUT_SESSIONS.run(self._database, rows)
        return self._drop_keys(row[0] for row in rows if row[-1] is not None)

    def _drop_keys(self, numbers: Iterable[int]) -> set[int]:
        spread = self._spread.intersection(numbers)
        DROP_KEYS.run(self._database, [(number,) for number in spread])
        return spread

    def _fold_map(self, number: int, change: MapChange) -> None:
        if change.clear:
            DROP_KEYS.run(self._database, [(number,)])
        REMOVE_KEYS.run(self._database, [(number, key) for key in change.removed])
        put_keys(self._database, number, change.put.items())
        if number != NO_TOKEN:
            self._spread.add(number)

    def _sync(self) -> None:
        """Have what was committed survive a power cut, if the last time is a second ago."""
        now = time.monotonic()
        if self._synced < self._seq and now - self._synced_at >= _IDLE:
            sync(Path(f"{self.path}-wal"))
            self._synced, self._synced_at = self._seq, now


_FOLDED = object()

_TROUBLES = (sqlite3.Error, OSError, MemoryError)
"""What may be over in a moment. SQLite's own lack of memory is a `MemoryError`."""


def _reason(error: BaseException) -> str:
    return "memory ran out" if isinstance(error, MemoryError) else str(error)


def sync(path: Path) -> None:
    """Have a file or a folder survive a power cut as it is.

    Raises:
        OSError: it can't.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nothing() -> None:
    """The job when there is none."""


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:  # Whatever it was, half of it must not stay open.
        # SQLite has done so already after some errors.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def lock(path: Path) -> int:
    """Take hold of the data folder; return what holds it until it is closed.

    Raises:
        StoreError: another process has it, or it can't be used.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} can't be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreError(
            f"another server uses {path.parent}: process {holder or 'unknown'}"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path} can't be used: {error.strerror}") from error
    return descriptor
