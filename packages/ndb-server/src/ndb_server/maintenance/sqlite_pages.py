"""Reads the rows of an SQLite file without SQLite, from all pages that can be read.

The format is https://www.sqlite.org/fileformat2.html; section numbers refer to that page.
"""

import struct
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

Value = int | float | bytes | None

_MAGIC = b"SQLite format 3\0"
_PAGE_SIZE = 4096
_LOCK_BYTE = 2**30
_TABLE_INTERIOR, _TABLE_LEAF = 5, 13
_KINDS = {2: 12, 5: 12, 10: 8, 13: 8}
"""The kinds of pages in a tree, and how long their headers are (1.6)."""

_FREE, _TREE, _OVERFLOW = 2, {1, 5}, {3, 4}
_WAL_HEADER, _FRAME_HEADER = 32, 24


class UnreadableError(Exception):
    """A page, or a row, is not as it has to be."""


class Cell(NamedTuple):
    """A row: its table, if that is known, and its columns, or None if they can't be read."""

    table: bytes | None
    rowid: int
    columns: tuple[Value, ...] | None


class Pages:
    """The pages of a file as the last transaction in its write-ahead log left them.

    Args:
        path: the file, opened by nobody else.

    Raises:
        OSError: it can't be read.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        size = int.from_bytes(data[16:18], "big")
        size = 65536 if size == 1 else size
        self.size = size if size in {2**power for power in range(9, 17)} else _PAGE_SIZE
        self._data = data
        wal = Path(f"{path}-wal")
        self._newer = _committed(wal.read_bytes(), self.size) if wal.exists() else {}
        self._in_file = -(-len(data) // self.size)
        there = max([self._in_file, *self._newer])
        first = self.page(1)
        self._usable = self.size - (first[20] if first[20] <= self.size - 480 else 0)
        # 1.3.7: pages behind the end of a file that was cut are missing.
        said = int.from_bytes(first[28:32], "big")
        changed, valid_for = first[24:28], first[92:96]
        self.count = max(there, said) if changed == valid_for and said < 2**24 else there
        self._overflow: set[int] = set()

    def page(self, number: int) -> bytes:
        """Return a page, filled up with zeros if the file ends in it."""
        if number in self._newer:
            return self._newer[number]
        begin = (number - 1) * self.size
        return self._data[begin : begin + self.size].ljust(self.size, b"\0")

    def _is_there(self, number: int) -> bool:
        return 1 <= number <= self._in_file or number in self._newer

    # Which pages are what

    def _kind(self, number: int) -> int:
        return self.page(number)[100 if number == 1 else 0]

    def _map_page(self, number: int) -> int:
        """Return the page with the entry of page `number` in the pointer map (1.8)."""
        each = self._usable // 5 + 1
        found = (number - 2) // each * each + 2
        return found + 1 if found == _LOCK_BYTE // self.size + 1 else found

    def _mapped(self, number: int) -> int:
        """Return what the pointer map says that a page is."""
        on = self._map_page(number)
        return self.page(on)[(number - on - 1) * 5] if number > on else 0

    @cached_property
    def _has_map(self) -> bool:
        """Whether there is a pointer map: every store has one."""
        first = self.page(1)
        return any(first[52:56]) or not first.startswith(_MAGIC)

    @cached_property
    def _apart(self) -> set[int]:
        """Pages that hold no rows and never did."""
        apart = {_LOCK_BYTE // self.size + 1}
        if self._has_map:
            apart |= {self._map_page(number) for number in range(2, self.count + 1)}
        return apart

    @cached_property
    def _free(self) -> set[int]:
        """Pages whose rows were deleted (1.5)."""
        free: set[int] = set()
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        while 1 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            following, leaves = struct.unpack_from(">II", self.page(trunk))
            if leaves > self._usable // 4 - 2:
                break
            free.update(struct.unpack_from(f">{leaves}I", self.page(trunk), 8))
            trunk = following
        if self._has_map:
            free |= {n for n in range(3, self.count + 1) if self._mapped(n) == _FREE}
        return free

    def _reached(self, roots: list[int]) -> dict[int, None]:
        """Return the pages of the tables that begin at `roots`, as far as they lead to them."""
        reached: dict[int, None] = {}
        waiting = roots[::-1]
        while waiting:
            number = waiting.pop()
            if not 1 <= number <= self.count or number in reached or number in self._apart:
                continue
            reached[number] = None
            if self._kind(number) == _TABLE_INTERIOR:
                waiting += [*self._children(number)][::-1]
        return reached

    def _children(self, number: int) -> Iterator[int]:
        page = self.page(number)
        for at in self._pointers(number, _KINDS[_TABLE_INTERIOR]):
            yield int.from_bytes(page[at : at + 4], "big")
        head = 100 if number == 1 else 0
        yield int.from_bytes(page[head + 8 : head + 12], "big")

    def _pointers(self, number: int, header: int) -> list[int]:
        """Return where the cells of a page are (1.6), as far as that can be."""
        page, head = self.page(number), 100 if number == 1 else 0
        cells = int.from_bytes(page[head + 3 : head + 5], "big")
        begin = head + header
        known = begin + 2 * cells <= self._usable
        pointers: list[int] = []
        for at in range(begin, begin + 2 * cells if known else self._usable - 1, 2):
            pointer = int.from_bytes(page[at : at + 2], "big")
            if at + 2 <= pointer < self._usable:
                pointers.append(pointer)
            elif not known:
                break
        return pointers

    def _holds_rows(self, number: int) -> bool:
        """Tell whether a page is a leaf of a table, or was one before its first byte changed."""
        kind = self._kind(number)
        if not self._is_there(number) or (self._has_map and self._mapped(number) in _OVERFLOW):
            return False
        if self._has_map and kind not in _KINDS:
            return number > 1 and self._mapped(number) in _TREE
        return kind == _TABLE_LEAF

    # Rows

    def rows(self, names: set[bytes]) -> Iterator[Cell]:
        """Yield the rows of all tables; those that the tables of these names lead to come first.

        Others are of pages that have lost their place, but are not free.
        """
        schema = self._reached([1])
        reached: dict[int, None] = {}
        for cell in chain.from_iterable(self._cells(number, None) for number in schema):
            columns = cell.columns or ()
            if len(columns) == 5 and columns[1] in names and isinstance(columns[3], int):
                pages = self._reached([columns[3]])
                for number in pages:
                    yield from self._cells(number, columns[1])
                reached |= pages
        for number in range(2, self.count + 1):
            if number not in reached and number not in self._free and number not in self._apart:
                yield from self._cells(number, None)

    def unreadable(self) -> list[int]:
        """Return the pages that are neither read, nor free, nor can do without; after `rows`."""
        return [
            number
            for number in range(1, self.count + 1)
            if number not in self._apart
            and number not in self._free
            and number not in self._overflow
            and not self._is_sound(number)
        ]

    def _is_sound(self, number: int) -> bool:
        kind = self._kind(number)
        if not self._is_there(number) or kind not in _KINDS:
            return False
        head = 100 if number == 1 else 0
        cells = int.from_bytes(self.page(number)[head + 3 : head + 5], "big")
        return len(self._pointers(number, _KINDS[kind])) == cells

    def _cells(self, number: int, table: bytes | None) -> Iterator[Cell]:
        """Yield the rows on a page, none if it is no leaf of a table."""
        if not self._holds_rows(number):
            return
        page = self.page(number)
        for at in self._pointers(number, _KINDS[_TABLE_LEAF]):
            try:
                length, begin = _varint(page, at)
                rowid, begin = _varint(page, begin)
            except UnreadableError:
                continue
            rowid = rowid - 2**64 if rowid >= 2**63 else rowid
            try:
                columns = _record(self._payload(page, begin, length))
            except (UnreadableError, struct.error):
                yield Cell(table, rowid, None)
            else:
                yield Cell(table, rowid, columns)

    def _payload(self, page: bytes, begin: int, length: int) -> bytes:
        usable = self._usable
        local = length
        if length > usable - 35:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (usable - 4)
            local = local if local <= usable - 35 else least
        if begin + local > usable or length > self.count * self.size:
            raise UnreadableError
        parts, missing = [page[begin : begin + local]], length - local
        following = int.from_bytes(page[begin + local : begin + local + 4], "big")
        used: list[int] = []
        while missing:
            # No chain is longer than what is in it, so this ends.
            if not self._is_there(following):
                raise UnreadableError
            used.append(following)
            content = self.page(following)
            part = content[4 : min(4 + missing, usable)]
            parts.append(part)
            missing -= len(part)
            following = int.from_bytes(content[:4], "big")
        self._overflow.update(used)
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position in range(at, min(at + 8, len(data))):
        value = value << 7 | data[position] & 127
        if data[position] < 128:
            return value, position + 1
    if at + 8 >= len(data):
        raise UnreadableError
    return value << 8 | data[at + 8], at + 9


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _record(payload: bytes) -> tuple[Value, ...]:
    """Return the columns of a row (2.1)."""
    header, at = _varint(payload, 0)
    if header > len(payload):
        raise UnreadableError
    columns: list[Value] = []
    begin = header
    while at < header:
        kind, at = _varint(payload, at)
        if kind in {0, 8, 9}:
            columns.append({0: None, 8: 0, 9: 1}[kind])
            continue
        if kind in {10, 11}:
            raise UnreadableError
        length = _INTEGERS.get(kind) or (8 if kind == 7 else (kind - 12) // 2)
        content = payload[begin : begin + length]
        if len(content) < length:
            raise UnreadableError
        begin += length
        if kind == 7:
            columns.append(struct.unpack(">d", content)[0])
        elif kind < 7:
            columns.append(int.from_bytes(content, "big", signed=True))
        else:
            columns.append(content)
    if at != header or begin != len(payload):
        raise UnreadableError
    return tuple(columns)


def _committed(wal: bytes, size: int) -> dict[int, bytes]:
    """Return the pages in a write-ahead log, up to its last whole transaction (4.1)."""
    if len(wal) < _WAL_HEADER:
        return {}
    magic, _, page_size = struct.unpack_from(">III", wal)
    if magic & ~1 != 0x377F0682 or page_size != size:
        return {}
    order = ">" if magic & 1 else "<"
    sums = _checksum(wal[:24], (0, 0), order)
    if sums != struct.unpack_from(">II", wal, 24):
        return {}
    committed: dict[int, bytes] = {}
    since: dict[int, bytes] = {}
    last = 0
    step = _FRAME_HEADER + size
    for begin in range(_WAL_HEADER, len(wal) - step + 1, step):
        number, pages, salts, said = struct.unpack_from(">II8s8s", wal, begin)
        content = wal[begin + _FRAME_HEADER : begin + step]
        sums = _checksum(wal[begin : begin + 8] + content, sums, order)
        if salts != wal[16:24] or struct.pack(">II", *sums) != said:
            break
        since[number] = content
        if pages:
            committed |= since
            since, last = {}, pages
    return {number: content for number, content in committed.items() if number <= last}


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next(words) + first) & 0xFFFFFFFF
    return first, second
