"""Folding: what the log holds is put into the tables, sorted and each session once.

It is done in steps, each a short transaction, so that batches are written in between. Folding again
what was folded already changes nothing: a crash between two steps loses nothing.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby, islice
from operator import itemgetter

from msgspec import Raw
from ndb_protocol import NO_TOKEN

from .edits import KEPT, MapChange
from .records import Unfolded, key_size, name_size, slices
from .rows import Row
from .tables import DROP_KEYS, END_SESSIONS, REMOVE_KEYS, put_keys, put_sessions

_SLICE = 4096
"""Sessions that are folded in one step."""

_PAGE = 4096
"""Bytes that a change writes at least: one page."""

_MOVE = """
UPDATE keys SET id = (SELECT max(id) + 1 FROM keys) WHERE tkn = ? AND key = ?
"""


class Folding:
    """The tables that are folded into.

    Args:
        database: where they are.

    Raises:
        sqlite3.Error: they can't be read.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        # Sessions that have keys in their table.
        self._spread = {
            number for (number,) in database.execute("SELECT tkn FROM sessions WHERE keys IS NULL")
        }

    def steps(self, unfolded: Unfolded) -> Iterator[None]:
        """Bring the tables up to date and empty the log, a step at a time.

        Raises:
            sqlite3.Error: a step can't be done; it is undone, those before it are not.
        """
        database = self._database
        # Batches that come between the steps are folded in part at most: they stay in the log.
        last, last_load = unfolded.seq, unfolded.load
        with transaction(database):
            dropped = self._fold_ends(unfolded)
        self._spread -= dropped
        yield
        numbers = iter(sorted(unfolded.rows))
        while some := list(islice(numbers, _SLICE)):
            with transaction(database):
                dropped = self._fold_rows([row for n in some if (row := unfolded.rows.get(n))])
            self._spread -= dropped
            yield
        maps = list(unfolded.maps.items())
        steps = (step for number, change in maps for step in self._fold_map(number, change))
        for together in slices(steps, itemgetter(0)):
            with transaction(database):
                for _, step in together:
                    step()
            yield
        with transaction(database):
            database.execute("DELETE FROM log WHERE seq <= ?", (last,))
            database.execute("DELETE FROM loading WHERE load <= ?", (last_load,))

    # Each returns which sessions have no keys in their table any more once it is committed.

    def _fold_ends(self, unfolded: Unfolded) -> set[int]:
        if unfolded.all_ended:
            self._database.execute("DELETE FROM sessions")
            self._database.execute("DELETE FROM keys WHERE tkn <> ?", (NO_TOKEN,))
            return self._spread.copy()
        END_SESSIONS.run(self._database, [(number,) for number in unfolded.ended])
        return self._drop_keys(unfolded.ended)

    def _fold_rows(self, rows: list[Row]) -> set[int]:
        put_sessions(self._database, rows)
        return self._drop_keys(row[0] for row in rows if row[-1] is not None)

    def _drop_keys(self, numbers: Iterable[int]) -> set[int]:
        spread = self._spread.intersection(numbers)
        DROP_KEYS.run(self._database, [(number,) for number in spread])
        return spread

    def _fold_map(self, number: int, change: MapChange) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield what is to be done for a change of a map, each with its size in bytes."""
        if number != NO_TOKEN:
            self._spread.add(number)
        if change.clear:
            yield _PAGE, partial(DROP_KEYS.run, self._database, [(number,)])
        # As it is now: batches that come between the steps change it.
        gone, put = list(change.removed), list(change.put.items())
        for names in slices(gone, name_size):
            removed = [(number, key) for key in names]
            yield (
                _PAGE + sum(map(name_size, names)),
                partial(REMOVE_KEYS.run, self._database, removed),
            )
        for some in slices(put, key_size):
            yield _PAGE + sum(map(key_size, some)), partial(self._put, number, some)

    def _put(self, number: int, items: list[tuple[str, Raw]]) -> None:
        for moved, some in groupby(items, key=lambda item: item[1] is KEPT):
            if moved:
                self._database.executemany(_MOVE, [(number, key) for key, _ in some])
            else:
                put_keys(self._database, number, some)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do all of something in `database`, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:  # Whatever it was, half of it must not stay open.
        # SQLite has done so already after some errors.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
