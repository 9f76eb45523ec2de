"""Salvage: copies the readable data of a damaged store into a new one."""

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

_INSERT = {
    b"sessions": "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)",
    b"keys": "INSERT OR IGNORE INTO keys VALUES (?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?)",
}

_SALVAGED_TABLES = {*_INSERT, b"log", b"loading", b"clock"}
"""The tables whose rows are salvaged."""


def salvage(folder: Path) -> list[str]:
    """Replace the store of a data folder, if it is damaged, by a new store of its readable data.

    The damaged store is kept beside the new one under another name.

    Args:
        folder: the data folder.

    Returns:
        A report: what was done, what was kept and what could not be read, one sentence each. It is
        empty if the store is not damaged.

    Raises:
        StoreError: a server uses the folder, the store has another version, or nothing of it can be
            read.
    """
    path = folder / STORE_FILE
    descriptor = lock(folder / LOCK_FILE)
    try:
        damage = check_store(path) if path.exists() else []
        if not damage:
            return []
        with TemporaryDirectory(dir=folder, prefix="salvage-") as new_folder:
            salvaged = _SalvagedStore(path, Path(new_folder))
            orphans = salvaged.remove_orphans()
            kept_as = replace_store(path, Path(new_folder) / STORE_FILE, "damaged")
            if orphans:
                Path(f"{kept_as}-keys.jsonl").write_bytes(b"".join(orphans))
    except OSError as error:
        raise StoreError(f"{path} can't be salvaged: {error}") from error
    finally:
        os.close(descriptor)
    first = " ".join(damage[0].split())
    more = f" (and {len(damage) - 1} more)" if damage[1:] else ""
    report = [f"{path} is damaged: {first}{more}; it is kept as {kept_as}", *salvaged.report()]
    if orphans:
        report.append(
            f"the keys of {len(orphans)} sessions that could not be read are in "
            f"{kept_as}-keys.jsonl and can be imported"
        )
    return report


class _SalvagedStore:
    """A new store with the readable rows of a damaged one.

    Args:
        damaged: the damaged store.
        folder: an empty folder for the new store.
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
        """Copy all readable rows; return whether there were any."""
        store = Store(self._folder)
        try:
            with store.transaction() as database:
                found = [self._put(database, cell) for cell in self._pages.rows(_SALVAGED_TABLES)]
            store.adopt_log(self._log_contents(), self._anchor)
        finally:
            store.start()
            store.close()
        return any(found)

    def _log_contents(self) -> LogContents:
        """Return the contents of the log, as far as it can be read."""
        contents = LogContents()
        for _, part in sorted(self._log.items()):
            load = part.record.load
            parts = {} if load is None else self._loads.get(load.number, {})
            contents.add(part, [parts[number] for number in sorted(parts)])
        return contents

    def _put(self, database: sqlite3.Connection, cell: Cell) -> bool:
        table = cell.table if cell.columns is None else _table_of(cell.columns)
        try:
            if cell.columns is None or table is None:
                raise DamageError("its columns can't be read")
            self._put_row(database, table, (cell.rowid, *cell.columns[1:]))
        except DamageError:
            # Tokens are secrets, so the report has only the number of lost sessions.
            self._lost.setdefault(table, []).append(cell.rowid)
            return False
        # Every store has a row of the clock.
        return table != b"clock"

    def _put_row(
        self, database: sqlite3.Connection, table: bytes, columns: Sequence[object]
    ) -> None:
        match table:
            case b"sessions":
                decode_session(columns)
                database.execute(_INSERT[table], columns)
            case b"keys":
                decode_key(columns[1:])
                database.execute(_INSERT[table], columns)
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

    def remove_orphans(self) -> list[bytes]:
        """Remove the keys of lost sessions from the new store; return them as lines for import.

        The settings of their sessions are unknown: an imported session would never expire.
        """
        store = Store(self._folder)
        try:
            with store.transaction() as database:
                tkns = database.execute(f"SELECT DISTINCT tkn {ORPHANED_KEYS}").fetchall()
                lines = [
                    session_line((tkn, 0, 0, None, None), read_keys(database, tkn)) + b"\n"
                    for (tkn,) in tkns
                ]
                database.execute(f"DELETE {ORPHANED_KEYS}")
                [(self._sessions,)] = database.execute("SELECT count(*) FROM sessions")
                [(self._keys,)] = database.execute("SELECT count(*) FROM keys WHERE tkn = 0")
        finally:
            store.start()
            store.close()
        return lines

    def report(self) -> Iterator[str]:
        """Yield sentences about what was kept, and what could not be read."""
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
    """Return the name of the table that has such columns; None if there is none."""
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
    """Return numbers as text, such as ``3, 5-9``."""
    together = groupby(zip(sorted(numbers), count(), strict=False), lambda each: each[0] - each[1])
    runs = [[number for number, _ in run] for _, run in together]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
