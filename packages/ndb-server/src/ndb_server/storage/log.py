"""The log of the store: changes in records of a limited size, and their combined result.

A batch is one transaction of one or more records. A load is staged first: its records, the parts,
are written one by one into a separate table, where they have no effect. Then one record in the log
makes them effective, and says when the periods of the load's sessions begin. So a load of any size
is atomic, and delays no other batch.
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

TABLES = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, changes TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE loading (
    id INTEGER PRIMARY KEY,
    load INTEGER NOT NULL,
    changes TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
"""
"""What the columns hold is described in docs/reference/data-folder.md."""

RECORD_SIZE = 2**20
"""Bytes of changes after which another record begins. One value may be more."""

_ROW_SIZE = 64
"""Bytes of a row beside its keys, about."""

_FEW = RECORD_SIZE // (_ROW_SIZE + MAX_PACKED_SIZE)
"""Sessions that are not enough for a second record, however large their packed keys are."""

IN_LOG = 0
"""What the checksum of a row of the log says instead of the number of a load."""


class MapRecord(Struct, array_like=True, gc=False):
    """What became of a map of keys: whether all go first, those that go, those that come."""

    tkn: int
    clear: bool
    removed: list[str]
    put: dict[str, Raw]


class Record(Struct, omit_defaults=True, gc=False):
    """What a row of the log, or a part of a load, says; in this order.

    Attributes:
        moved: keys of maps that go to the end of their order, by the maps' tokens.
        all_ended: every session goes.
        ended: sessions that go, signed.
        rows: sessions that are to be so.
        maps: what became of keys that are not packed.
        load: a load that counts from here on.
    """

    moved: list[tuple[int, list[str]]] = []
    all_ended: bool = False
    ended: list[int] = []
    rows: list[tuple[int, int, int, int | None, Raw]] = []
    maps: list[MapRecord] = []
    load: LoadCommit | None = None


_NULL = Raw(b"null")
_number = itemgetter(0)
_decode = msgspec.json.Decoder(Record).decode

encode_into = msgspec.json.Encoder().encode_into


class Part(NamedTuple):
    """A record as it was read or written: how long its text is, and its rows with None for null."""

    seq: int
    size: int
    record: Record
    rows: Sequence[SessionRow]


def records_of(changed: ChangeSet) -> Iterator[tuple[Record, Sequence[SessionRow]]]:
    """Yield a batch as records, each with its rows."""
    first = Record(
        moved=[(signed(token), list(keys)) for token, keys in changed.moved.items()],
        all_ended=changed.all_ended,
        load=changed.load,
    )
    maps = changed.maps
    if len(changed.rows) + len(changed.ended) <= _FEW and (
        not maps or sum(map(_map_size, maps.values())) <= RECORD_SIZE
    ):
        first.ended = [signed(token) for token in changed.ended]
        first.rows = changed.rows  # type: ignore[assignment]
        first.maps = [
            MapRecord(signed(token), change.clear, list(change.removed), change.put)
            for token, change in maps.items()
        ]
        yield first, changed.rows
        return
    if first != Record():
        yield first, ()
    for begin in range(0, len(changed.ended), _FEW):
        yield Record(ended=[*map(signed, changed.ended[begin : begin + _FEW])]), ()
    for begin in range(0, len(changed.rows), _FEW):
        rows = changed.rows[begin : begin + _FEW]
        yield Record(rows=rows), rows  # type: ignore[arg-type]
    pieces = (piece for token, change in maps.items() for piece in _pieces(signed(token), change))
    for some in slices(pieces, _number):
        yield Record(maps=[piece for _, piece in some]), ()


def _map_size(change: MapChange) -> int:
    return sum(map(name_size, change.removed)) + sum(map(key_size, change.put.items()))


def _pieces(number: int, change: MapChange) -> Iterator[tuple[int, MapRecord]]:
    """Yield a change of a map in pieces, each with its size."""
    clear = change.clear
    for removed in slices(change.removed, name_size):
        yield sum(map(name_size, removed)), MapRecord(number, clear, removed, {})
        clear = False
    for some in slices(change.put.items(), key_size):
        yield sum(map(key_size, some)), MapRecord(number, clear, [], dict(some))
        clear = False
    if clear:
        yield 0, MapRecord(number, True, [], {})


def name_size(name: str) -> int:
    return _ROW_SIZE + len(name)


def key_size(item: tuple[str, Raw]) -> int:
    return _ROW_SIZE + len(item[0]) + len(item[1])


def slices(items: Iterable[_T], size_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield items together that come to no more than `RECORD_SIZE`, or one that is more alone."""
    some: list[_T] = []
    size = 0
    for item in items:
        each = size_of(item)
        if some and size + each > RECORD_SIZE:
            yield some
            some, size = [], 0
        some.append(item)
        size += each
    if some:
        yield some


def part_of_log(columns: Sequence[object]) -> Part:
    """Return what a row of the log says: its columns are `seq`, `changes` and `checksum`.

    Raises:
        DamageError: it isn't what was written.
    """
    return _part(columns, IN_LOG, "row of the log")


def part_of_load(load: int, columns: Sequence[object]) -> Part:
    """Return what a part of a load says: its columns are `id`, `changes` and `checksum`.

    Raises:
        DamageError: it isn't what was written.
    """
    return _part(columns, load, "part of a load")


def _part(columns: Sequence[object], part_of: int, what: str) -> Part:
    try:
        seq, changes, checksum = msgspec.convert(columns, tuple[int, bytes, int])
        if checksum != log_checksum(part_of, seq, changes):
            raise DamageError(f"there is a {what} whose checksum is wrong")
        record = _decode(changes)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamageError(f"there is a {what} that can't be read: {error}") from None
    rows = [(*row[:-1], None if row[-1] == _NULL else row[-1]) for row in record.rows]
    return Part(seq, len(changes), record, rows)


class Unfolded:
    """What the log holds that the tables have not got: for each session, what it is at last.

    Attributes:
        seq: the last row of the log that is in it.
        size: bytes of log that are in it.
        load: the number of the last load that is in it.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.size = 0
        self.load = 0
        self.all_ended = False
        self.ended: dict[int, None] = {}
        self.rows: dict[int, SessionRow] = {}
        self.maps: dict[int, MapChange] = {}

    def add(self, part: Part, loaded: Iterable[Part] = ()) -> None:
        """Add what a row of the log says, and the parts of the load that counts with it."""
        self.seq = part.seq
        self._add(part)
        load = part.record.load
        if load is not None:
            self.load = load.number
            for each in loaded:
                self._add(_started(each, load))

    def _add(self, part: Part) -> None:
        _, size, record, rows = part
        self.size += size
        for number, keys in record.moved:
            self.maps.setdefault(number, MapChange({}, {})).move_to_end(keys)
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
                known.add(each.removed, each.put)


def _started(part: Part, load: LoadCommit) -> Part:
    """Return a part of a load as it is once it counts."""
    seq, size, record, rows = part
    without, there, gone = set(load.skipped), set(load.keys_set), set(load.keys_removed)
    started = [
        (number, duration, flags, load.period_start + duration * 1000 if duration else None, keys)
        for number, duration, flags, _, keys in rows
        if number not in without
    ]
    maps = [
        each if each.tkn != NO_TOKEN or not there | gone else _renewed(each, there, gone)
        for each in record.maps
        if each.tkn not in without
    ]
    return Part(seq, size, Record(maps=maps), started)


def _renewed(each: MapRecord, there: set[str], gone: set[str]) -> MapRecord:
    """Return independent keys of a load, those taken out first that are new by now."""
    removed = [key for key in each.removed if key not in there]
    removed += [key for key in each.put if key in gone]
    return MapRecord(each.tkn, each.clear, removed, each.put)


def read_log(database: sqlite3.Connection) -> Unfolded:
    """Return what the log has, without changing it.

    Raises:
        sqlite3.Error: it can't be read.
        DamageError: it holds what can't be.
    """
    unfolded = Unfolded()
    for columns in database.execute("SELECT seq, changes, checksum FROM log ORDER BY seq"):
        part = part_of_log(columns)
        if unfolded.seq and part.seq != unfolded.seq + 1:
            raise DamageError("a row of the log is missing")
        load = part.record.load
        unfolded.add(part, () if load is None else read_load(database, load))
    return unfolded


def read_load(database: sqlite3.Connection, load: LoadCommit) -> Iterator[Part]:
    """Yield the parts of a load.

    Raises:
        sqlite3.Error: they can't be read.
        DamageError: one of them isn't what was written, or is missing.
    """
    parts = 0
    select = "SELECT id, changes, checksum FROM loading WHERE load = ? ORDER BY id"
    for columns in database.execute(select, (load.number,)):
        yield part_of_load(load.number, columns)
        parts += 1
    if parts != load.parts:
        raise DamageError("a part of a load is missing")
