"""Reads the rows of a damaged SQLite file without SQLite, from all readable pages.

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
_HEADER_SIZES = {2: 12, 5: 12, 10: 8, 13: 8}
"""The sizes of the headers of b-tree pages, by page type (1.6)."""

# Types of pages in the pointer map (1.8).
_FREE_TYPE, _TREE_TYPES, _OVERFLOW_TYPES = 2, {1, 5}, {3, 4}
_WAL_HEADER, _FRAME_HEADER = 32, 24


class UnreadableError(Exception):
    """A page or a row is damaged."""


class Cell(NamedTuple):
    """A row.

    Attributes:
        table: the name of its table; None if that is unknown.
        rowid: its rowid.
        columns: its columns; None if they can't be read.
    """

    table: bytes | None
    rowid: int
    columns: tuple[Value, ...] | None


class Pages:
    """The pages of a file after the last transaction in its write-ahead log.

    Args:
        path: the file. No process may have it open.

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
        self._wal_pages = _committed(wal.read_bytes(), self.size) if wal.exists() else {}
        self._pages_in_file = -(-len(data) // self.size)
        existing = max([self._pages_in_file, *self._wal_pages])
        first = self.page(1)
        self._usable = self.size - (first[20] if first[20] <= self.size - 480 else 0)
        # A truncated file lacks pages that its header counts (1.3.7).
        header_count = int.from_bytes(first[28:32], "big")
        changed, valid_for = first[24:28], first[92:96]
        self.count = (
            max(existing, header_count)
            if changed == valid_for and header_count < 2**24
            else existing
        )
        self._overflow_pages: set[int] = set()

    def page(self, number: int) -> bytes:
        """Return a page, padded with zeros if the file ends in it."""
        if number in self._wal_pages:
            return self._wal_pages[number]
        begin = (number - 1) * self.size
        return self._data[begin : begin + self.size].ljust(self.size, b"\0")

    def _exists(self, number: int) -> bool:
        return 1 <= number <= self._pages_in_file or number in self._wal_pages

    # The uses of pages

    def _kind(self, number: int) -> int:
        return self.page(number)[100 if number == 1 else 0]

    def _pointer_map_page(self, number: int) -> int:
        """Return the page with the entry of page `number` in the pointer map (1.8)."""
        each = self._usable // 5 + 1
        found = (number - 2) // each * each + 2
        return found + 1 if found == _LOCK_BYTE // self.size + 1 else found

    def _pointer_map_type(self, number: int) -> int:
        """Return the type of a page according to the pointer map."""
        on = self._pointer_map_page(number)
        return self.page(on)[(number - on - 1) * 5] if number > on else 0

    @cached_property
    def _has_pointer_map(self) -> bool:
        """Whether the file has a pointer map; every undamaged store has one."""
        first = self.page(1)
        return any(first[52:56]) or not first.startswith(_MAGIC)

    @cached_property
    def _rowless_pages(self) -> set[int]:
        """Pages that never have rows: the pointer map, and the page of the lock byte."""
        rowless = {_LOCK_BYTE // self.size + 1}
        if self._has_pointer_map:
            rowless |= {self._pointer_map_page(number) for number in range(2, self.count + 1)}
        return rowless

    @cached_property
    def _free_pages(self) -> set[int]:
        """Pages in the freelist, whose rows were deleted (1.5)."""
        free: set[int] = set()
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        while 1 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            following, leaves = struct.unpack_from(">II", self.page(trunk))
            if leaves > self._usable // 4 - 2:
                break
            free.update(struct.unpack_from(f">{leaves}I", self.page(trunk), 8))
            trunk = following
        if self._has_pointer_map:
            free |= {n for n in range(3, self.count + 1) if self._pointer_map_type(n) == _FREE_TYPE}
        return free

    def _tree_pages(self, roots: list[int]) -> dict[int, None]:
        """Return the pages of the b-trees with these roots, as far as they can be followed."""
        reached: dict[int, None] = {}
        stack = roots[::-1]
        while stack:
            number = stack.pop()
            if not 1 <= number <= self.count or number in reached or number in self._rowless_pages:
                continue
            reached[number] = None
            if self._kind(number) == _TABLE_INTERIOR:
                stack += [*self._children(number)][::-1]
        return reached

    def _children(self, number: int) -> Iterator[int]:
        page = self.page(number)
        for at in self._cell_offsets(number, _HEADER_SIZES[_TABLE_INTERIOR]):
            yield int.from_bytes(page[at : at + 4], "big")
        start = 100 if number == 1 else 0
        yield int.from_bytes(page[start + 8 : start + 12], "big")

    def _cell_offsets(self, number: int, header: int) -> list[int]:
        """Return the offsets of the cells of a page (1.6), as far as they can be read."""
        page, start = self.page(number), 100 if number == 1 else 0
        cells = int.from_bytes(page[start + 3 : start + 5], "big")
        begin = start + header
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
        """Return whether a page is a leaf of a table, or was one before its type was damaged."""
        kind = self._kind(number)
        if not self._exists(number) or (
            self._has_pointer_map and self._pointer_map_type(number) in _OVERFLOW_TYPES
        ):
            return False
        if self._has_pointer_map and kind not in _HEADER_SIZES:
            return number > 1 and self._pointer_map_type(number) in _TREE_TYPES
        return kind == _TABLE_LEAF

    # Rows

    def rows(self, names: set[bytes]) -> Iterator[Cell]:
        """Yield the rows of all tables; first those in the trees of the tables `names`.

        The other rows are on pages that no tree refers to, and that are not free.
        """
        schema = self._tree_pages([1])
        reached: dict[int, None] = {}
        for cell in chain.from_iterable(self._cells(number, None) for number in schema):
            columns = cell.columns or ()
            if len(columns) == 5 and columns[1] in names and isinstance(columns[3], int):
                pages = self._tree_pages([columns[3]])
                for number in pages:
                    yield from self._cells(number, columns[1])
                reached |= pages
        for number in range(2, self.count + 1):
            if (
                number not in reached
                and number not in self._free_pages
                and number not in self._rowless_pages
            ):
                yield from self._cells(number, None)

    def unreadable(self) -> list[int]:
        """Return the pages that could not be read, except for unused ones. Call it after `rows`."""
        return [
            number
            for number in range(1, self.count + 1)
            if number not in self._rowless_pages
            and number not in self._free_pages
            and number not in self._overflow_pages
            and not self._is_sound(number)
        ]

    def _is_sound(self, number: int) -> bool:
        kind = self._kind(number)
        if not self._exists(number) or kind not in _HEADER_SIZES:
            return False
        start = 100 if number == 1 else 0
        cells = int.from_bytes(self.page(number)[start + 3 : start + 5], "big")
        return len(self._cell_offsets(number, _HEADER_SIZES[kind])) == cells

    def _cells(self, number: int, table: bytes | None) -> Iterator[Cell]:
        """Yield the rows of a page; none if it is no leaf of a table."""
        if not self._holds_rows(number):
            return
        page = self.page(number)
        for at in self._cell_offsets(number, _HEADER_SIZES[_TABLE_LEAF]):
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
            # This ends, because each page has some of the missing bytes.
            if not self._exists(following):
                raise UnreadableError
            used.append(following)
            content = self.page(following)
            part = content[4 : min(4 + missing, usable)]
            parts.append(part)
            missing -= len(part)
            following = int.from_bytes(content[:4], "big")
        self._overflow_pages.update(used)
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
    """Return the pages in a write-ahead log, up to its last complete transaction (4.1)."""
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
    uncommitted: dict[int, bytes] = {}
    last = 0
    step = _FRAME_HEADER + size
    for begin in range(_WAL_HEADER, len(wal) - step + 1, step):
        number, pages, salts, checksum = struct.unpack_from(">II8s8s", wal, begin)
        content = wal[begin + _FRAME_HEADER : begin + step]
        sums = _checksum(wal[begin : begin + 8] + content, sums, order)
        if salts != wal[16:24] or struct.pack(">II", *sums) != checksum:
            break
        uncommitted[number] = content
        if pages:
            committed |= uncommitted
            uncommitted, last = {}, pages
    return {number: content for number, content in committed.items() if number <= last}


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next(words) + first) & 0xFFFFFFFF
    return first, second
