"""The log of the store: records of changes, and the contents of all records merged.

A batch is one transaction of one or more records of limited size. A load is staged first: its
records, the parts, are written one by one into a separate table, where they have no effect. Then
one record in the log commits them, and says when the periods of the load's sessions begin. So a
load of any size is atomic, and delays no other batch.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct
from ndb_protocol import NO_TOKEN

from ..engine.batch import ChangeSet, LoadCommit
from ..engine.edits import MapChange
from ..engine.keymap import MAX_PACKED_SIZE
from ..engine.record import SessionRow, log_checksum, signed
from .tables import DamageError

_T = TypeVar("_T")

LOG_TABLES = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, changes TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE loading (
    id INTEGER PRIMARY KEY,
    load INTEGER NOT NULL,
    changes TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
"""
"""The columns are described in docs/reference/data-folder.md."""

RECORD_SIZE = 2**20
"""The most bytes of a record, except for a single value that is larger."""

_ROW_SIZE = 64
"""Bytes of a row without its keys, estimated."""

_SESSIONS_PER_RECORD = RECORD_SIZE // (_ROW_SIZE + MAX_PACKED_SIZE)
"""Sessions that fit into one record, however large their packed keys are."""

NO_LOAD = 0
"""The number of a load in the checksum of a row of the log."""


class MapRecord(Struct, array_like=True, gc=False):
    """A change of a map of keys: whether all keys are removed first, keys removed, keys set."""

    tkn: int
    clear: bool
    removed: list[str]
    put: dict[str, Raw]


class LogRecord(Struct, omit_defaults=True, gc=False):
    """The changes in a row of the log, or in a part of a load. They are applied in this order.

    Attributes:
        moved: keys that move to the end of their maps, by signed token.
        all_ended: whether all sessions are deleted.
        ended: signed tokens of sessions that are deleted.
        rows: sessions that are created or replaced.
        maps: changes to maps of keys that are not packed.
        load: commits a staged load.
    """

    moved: list[tuple[int, list[str]]] = []
    all_ended: bool = False
    ended: list[int] = []
    rows: list[tuple[int, int, int, int | None, Raw]] = []
    maps: list[MapRecord] = []
    load: LoadCommit | None = None


_NULL = Raw(b"null")
_first = itemgetter(0)
_decode = msgspec.json.Decoder(LogRecord).decode

encode_into = msgspec.json.Encoder().encode_into


class StoredRecord(NamedTuple):
    """A record as it is stored.

    Attributes:
        seq: its number in the log, or that of the part.
        size: the bytes of its text.
        record: the record.
        rows: the rows of the record, with None instead of the JSON text ``null``.
    """

    seq: int
    size: int
    record: LogRecord
    rows: Sequence[SessionRow]


def records_of(changes: ChangeSet) -> Iterator[tuple[LogRecord, Sequence[SessionRow]]]:
    """Yield the records of a batch, each with its rows."""
    first = LogRecord(
        moved=[(signed(token), list(keys)) for token, keys in changes.moved.items()],
        all_ended=changes.all_ended,
        load=changes.load,
    )
    maps = changes.maps
    if len(changes.rows) + len(changes.ended) <= _SESSIONS_PER_RECORD and (
        not maps or sum(map(_map_size, maps.values())) <= RECORD_SIZE
    ):
        first.ended = [signed(token) for token in changes.ended]
        first.rows = changes.rows  # type: ignore[assignment]
        first.maps = [
            MapRecord(signed(token), change.clear, list(change.removed), change.put)
            for token, change in maps.items()
        ]
        yield first, changes.rows
        return
    if first != LogRecord():
        yield first, ()
    for begin in range(0, len(changes.ended), _SESSIONS_PER_RECORD):
        yield (
            LogRecord(ended=[*map(signed, changes.ended[begin : begin + _SESSIONS_PER_RECORD])]),
            (),
        )
    for begin in range(0, len(changes.rows), _SESSIONS_PER_RECORD):
        rows = changes.rows[begin : begin + _SESSIONS_PER_RECORD]
        yield LogRecord(rows=rows), rows  # type: ignore[arg-type]
    records = (
        record for token, change in maps.items() for record in _map_records(signed(token), change)
    )
    for chunk in chunks(records, _first):
        yield LogRecord(maps=[record for _, record in chunk]), ()


def _map_size(change: MapChange) -> int:
    return sum(map(name_record_size, change.removed)) + sum(
        map(key_record_size, change.put.items())
    )


def _map_records(tkn: int, change: MapChange) -> Iterator[tuple[int, MapRecord]]:
    """Yield the records of a change of a map, each with its size."""
    clear = change.clear
    for removed in chunks(change.removed, name_record_size):
        yield sum(map(name_record_size, removed)), MapRecord(tkn, clear, removed, {})
        clear = False
    for chunk in chunks(change.put.items(), key_record_size):
        yield sum(map(key_record_size, chunk)), MapRecord(tkn, clear, [], dict(chunk))
        clear = False
    if clear:
        yield 0, MapRecord(tkn, True, [], {})


def name_record_size(name: str) -> int:
    return _ROW_SIZE + len(name)


def key_record_size(item: tuple[str, Raw]) -> int:
    return _ROW_SIZE + len(item[0]) + len(item[1])


def chunks(items: Iterable[_T], size_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield items in lists of at most `RECORD_SIZE`; a larger item is alone in its list."""
    chunk: list[_T] = []
    size = 0
    for item in items:
        each = size_of(item)
        if chunk and size + each > RECORD_SIZE:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += each
    if chunk:
        yield chunk


def decode_log_row(columns: Sequence[object]) -> StoredRecord:
    """Return the record of a row of the log, given its columns `seq`, `changes` and `checksum`.

    Raises:
        DamageError: the row is not what was written.
    """
    return _decode_row(columns, NO_LOAD, "row of the log")


def decode_load_part(load: int, columns: Sequence[object]) -> StoredRecord:
    """Return the record of a part of a load, given its columns `id`, `changes` and `checksum`.

    Raises:
        DamageError: the part is not what was written.
    """
    return _decode_row(columns, load, "part of a load")


def _decode_row(columns: Sequence[object], load: int, kind: str) -> StoredRecord:
    try:
        seq, changes, checksum = msgspec.convert(columns, tuple[int, bytes, int])
        if checksum != log_checksum(load, seq, changes):
            raise DamageError(f"there is a {kind} whose checksum is wrong")
        record = _decode(changes)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamageError(f"there is a {kind} that can't be read: {error}") from None
    rows = [(*row[:-1], None if row[-1] == _NULL else row[-1]) for row in record.rows]
    return StoredRecord(seq, len(changes), record, rows)


class LogContents:
    """The records of the log, merged: the last state of each session that changed.

    Attributes:
        seq: the number of the last record; 0 without records.
        size: the bytes of the records.
        load: the number of the last load.
        all_ended: whether all sessions in the tables are deleted before the other changes.
        ended: signed tokens of sessions that are deleted.
        rows: sessions that are created or replaced, by signed token.
        maps: changes to maps of keys, by signed token.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.size = 0
        self.load = 0
        self.all_ended = False
        self.ended: dict[int, None] = {}
        self.rows: dict[int, SessionRow] = {}
        self.maps: dict[int, MapChange] = {}

    def add(self, stored: StoredRecord, parts: Iterable[StoredRecord] = ()) -> None:
        """Add a record of the log, and the parts of the load that it commits."""
        self.seq = stored.seq
        self._merge(stored)
        load = stored.record.load
        if load is not None:
            self.load = load.number
            for part in parts:
                self._merge(_commit_part(part, load))

    def _merge(self, stored: StoredRecord) -> None:
        _, size, record, rows = stored
        self.size += size
        for tkn, keys in record.moved:
            self.maps.setdefault(tkn, MapChange({}, {})).move_to_end(keys)
        if record.all_ended:
            self.all_ended = True
            self.ended.clear()
            self.rows.clear()
            self.maps = {token: change for token, change in self.maps.items() if token == NO_TOKEN}
        for tkn in record.ended:
            self.ended[tkn] = None
            self.rows.pop(tkn, None)
            self.maps.pop(tkn, None)
        self.rows.update(zip(map(_first, rows), rows, strict=True))
        if self.maps:
            for row in rows:
                if row[-1] is not None:
                    self.maps.pop(row[0], None)
        for change in record.maps:
            earlier = self.maps.get(change.tkn)
            if earlier is None or change.clear:
                self.maps[change.tkn] = MapChange(
                    dict.fromkeys(change.removed), dict(change.put), change.clear
                )
            else:
                earlier.add(change.removed, change.put)


def _commit_part(part: StoredRecord, load: LoadCommit) -> StoredRecord:
    """Return a part of a load with the changes of its commit."""
    seq, size, record, rows = part
    skipped = set(load.skipped)
    keys_set, keys_removed = set(load.keys_set), set(load.keys_removed)
    started = [
        (tkn, duration, flags, load.period_start + duration * 1000 if duration else None, keys)
        for tkn, duration, flags, _, keys in rows
        if tkn not in skipped
    ]
    maps = [
        change
        if change.tkn != NO_TOKEN or not keys_set | keys_removed
        else _commit_keys(change, keys_set, keys_removed)
        for change in record.maps
        if change.tkn not in skipped
    ]
    return StoredRecord(seq, size, LogRecord(maps=maps), started)


def _commit_keys(change: MapRecord, keys_set: set[str], keys_removed: set[str]) -> MapRecord:
    """Return the independent keys of a load, with the keys removed first that are new now."""
    removed = [key for key in change.removed if key not in keys_set]
    removed += [key for key in change.put if key in keys_removed]
    return MapRecord(change.tkn, change.clear, removed, change.put)


def read_log(database: sqlite3.Connection) -> LogContents:
    """Return the contents of the log.

    Raises:
        sqlite3.Error: the log can't be read.
        DamageError: a row is missing, or is not what was written.
    """
    contents = LogContents()
    for columns in database.execute("SELECT seq, changes, checksum FROM log ORDER BY seq"):
        stored = decode_log_row(columns)
        if contents.seq and stored.seq != contents.seq + 1:
            raise DamageError("a row of the log is missing")
        load = stored.record.load
        contents.add(stored, () if load is None else read_load(database, load))
    return contents


def read_load(database: sqlite3.Connection, load: LoadCommit) -> Iterator[StoredRecord]:
    """Yield the parts of a load.

    Raises:
        sqlite3.Error: they can't be read.
        DamageError: a part is missing, or is not what was written.
    """
    parts = 0
    select = "SELECT id, changes, checksum FROM loading WHERE load = ? ORDER BY id"
    for columns in database.execute(select, (load.number,)):
        yield decode_load_part(load.number, columns)
        parts += 1
    if parts != load.parts:
        raise DamageError("a part of a load is missing")
