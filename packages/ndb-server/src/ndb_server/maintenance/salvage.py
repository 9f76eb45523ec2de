"""Copies the readable data of a damaged store into a new one."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import count, groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from ..clock import Anchor
from ..errors import StoreError
from ..storage.files import lock, replace_store
from ..storage.log import LogContents, StoredRecord, decode_load_part, decode_log_row
from ..storage.schema import STORE_FILE, decode_anchor
from ..storage.store import LOCK_FILE, Store
from ..storage.tables import ORPHANED_KEYS, DamageError, decode_key, decode_session, read_keys
from .check import check_store
from .jsonl import session_line
from .sqlite_pages import Cell, Pages, Value

_PUT = {
    b"sessions": "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)",
    b"keys": "INSERT OR IGNORE INTO keys VALUES (?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?)",
}

_READ = {*_PUT, b"log", b"loading", b"clock"}
"""The tables whose rows are kept."""


def salvage(folder: Path) -> list[str]:
    """Replace the store of a data folder, if it is damaged, by one of what can be read of it.

    The damaged one is kept beside it under another name.

    Args:
        folder: the data folder.

    Returns:
        what was done, what was kept and what could not be read, a sentence each; nothing if the
        store is sound.

    Raises:
        StoreError: a server uses the folder, the store is of another version, or nothing of it can
            be read.
    """
    path = folder / STORE_FILE
    descriptor = lock(folder / LOCK_FILE)
    try:
        damage = check_store(path) if path.exists() else []
        if not damage:
            return []
        with TemporaryDirectory(dir=folder, prefix="salvage-") as made:
            salvaged = _Salvaged(path, Path(made))
            orphans = salvaged.take_orphans()
            kept_as = replace_store(path, Path(made) / STORE_FILE, "damaged")
            if orphans:
                Path(f"{kept_as}-keys.jsonl").write_bytes(b"".join(orphans))
    except OSError as error:
        raise StoreError(f"{path} can't be salvaged: {error}") from error
    finally:
        os.close(descriptor)
    first = " ".join(damage[0].split())
    more = f" (and {len(damage) - 1} more)" if damage[1:] else ""
    said = [f"{path} is damaged: {first}{more}; it is kept as {kept_as}", *salvaged.told()]
    if orphans:
        said.append(
            f"the keys of {len(orphans)} sessions that could not be read are in "
            f"{kept_as}-keys.jsonl and can be imported"
        )
    return said


class _Salvaged:
    """A new store with the rows of a damaged one.

    Args:
        damaged: the damaged file.
        folder: an empty folder, for the new one.
    """

    def __init__(self, damaged: Path, folder: Path) -> None:
        self._folder = folder
        self._pages = Pages(damaged)
        self._lost: dict[bytes | None, list[int]] = {}
        self._sessions = self._keys = 0
        self._log: dict[int, StoredRecord] = {}
        self._loads: dict[int, dict[int, StoredRecord]] = {}
        self._anchor: Anchor | None = None
        if not self._copy():
            raise StoreError(
                f"nothing in {damaged} can be read as a store of NDB; the file is left unchanged"
            )

    def _copy(self) -> bool:
        """Copy what can be read; tell whether there was anything."""
        store = Store(self._folder)
        try:
            with store.transaction() as database:
                found = [self._put(database, cell) for cell in self._pages.rows(_READ)]
            store.adopt_log(self._unfolded(), self._anchor)
        finally:
            store.start()
            store.close()
        return any(found)

    def _unfolded(self) -> LogContents:
        """Return what the log comes to, as far as it can be read."""
        unfolded = LogContents()
        for _, part in sorted(self._log.items()):
            load = part.record.load
            loaded = {} if load is None else self._loads.get(load.number, {})
            unfolded.add(part, [loaded[number] for number in sorted(loaded)])
        return unfolded

    def _put(self, database: sqlite3.Connection, cell: Cell) -> bool:
        table = cell.table if cell.columns is None else _table_of(cell.columns)
        try:
            if cell.columns is None or table is None:
                raise DamageError("its columns can't be read")
            self._put_row(database, table, (cell.rowid, *cell.columns[1:]))
        except DamageError:
            # Tokens are secrets, so of sessions only their number is told.
            self._lost.setdefault(table, []).append(cell.rowid)
            return False
        # Every store has a clock.
        return table != b"clock"

    def _put_row(
        self, database: sqlite3.Connection, table: bytes, columns: Sequence[object]
    ) -> None:
        match table:
            case b"sessions":
                decode_session(columns)
                database.execute(_PUT[table], columns)
            case b"keys":
                decode_key(columns[1:])
                database.execute(_PUT[table], columns)
            case b"log":
                part = decode_log_row(columns)
                self._log[part.seq] = part
            case b"loading":
                load = columns[1]
                assert isinstance(load, int)
                part = decode_load_part(load, (columns[0], *columns[2:]))
                self._loads.setdefault(load, {})[part.seq] = part
            case _:
                self._anchor = decode_anchor(columns[1:])

    def take_orphans(self) -> list[bytes]:
        """Take out the keys of sessions that are lost; return them as lines for import.

        What became of their sessions is unknown: imported, these would never expire.
        """
        store = Store(self._folder)
        try:
            with store.transaction() as database:
                numbers = database.execute(f"SELECT DISTINCT tkn {ORPHANED_KEYS}").fetchall()
                lines = [
                    session_line((number, 0, 0, None, None), read_keys(database, number)) + b"\n"
                    for (number,) in numbers
                ]
                database.execute(f"DELETE {ORPHANED_KEYS}")
                [(self._sessions,)] = database.execute("SELECT count(*) FROM sessions")
                [(self._keys,)] = database.execute("SELECT count(*) FROM keys WHERE tkn = 0")
        finally:
            store.start()
            store.close()
        return lines

    def told(self) -> Iterator[str]:
        """Yield what is in the new store, and what could not be read."""
        yield f"{self._sessions} sessions and {self._keys} independent keys were kept"
        pages = self._pages.unreadable()
        if self._anchor is None:
            yield (
                "the row of the clock could not be read: deadlines are taken as times of the "
                "machine's clock"
            )
        if pages:
            yield f"{len(pages)} pages could not be read completely: {_ranges(pages)}"
        for table, rowids in self._lost.items():
            if table == b"sessions":
                yield f"{len(rowids)} sessions could not be read"
            elif table is None:
                yield f"{len(rowids)} rows of unknown tables could not be read"
            else:
                name = table.decode()
                yield f"{len(rowids)} rows of the table {name} could not be read: {_ranges(rowids)}"


def _table_of(columns: tuple[Value, ...]) -> bytes | None:
    """Return which table a row is of, by its columns."""
    match columns:
        case (None, int(), int(), None | int(), None | bytes(), int()):
            return b"sessions"
        case (None, int(), bytes(), bytes(), int()):
            return b"keys"
        case (None, bytes(), int()):
            return b"log"
        case (None, int(), bytes(), int()):
            return b"loading"
        case (None, int(), int(), int()):
            return b"clock"
        case _:
            return None


def _ranges(numbers: list[int]) -> str:
    """Return numbers as text: 3, 5-9."""
    together = groupby(zip(sorted(numbers), count(), strict=False), lambda each: each[0] - each[1])
    runs = [[number for number, _ in run] for _, run in together]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
