"""Folding: moves the contents of the log into the tables, sorted and each session once.

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

from ..engine.edits import UNCHANGED, MapChange
from .log import Unfolded, key_size, name_size, slices
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
        # The sessions whose rows say that their keys are in the other table.
        self._spread = {
            number for (number,) in database.execute("SELECT tkn FROM sessions WHERE keys IS NULL")
        }

    def steps(self, unfolded: Unfolded) -> Iterator[None]:
        """Bring the tables up to date and empty the log, a step at a time.

        Batches may be added to `unfolded` between the steps. What is folded of them is whole
        sessions, or keys of sessions that are in the tables; all of them stay in the log.

        Raises:
            sqlite3.Error: a step can't be done; it is undone, those before it are not.
        """
        database = self._database
        last, last_load = unfolded.seq, unfolded.load
        if unfolded.all_ended:
            with transaction(database):
                database.execute("DELETE FROM sessions")
                database.execute("DELETE FROM keys WHERE tkn <> ?", (NO_TOKEN,))
            self._spread.clear()
            yield
        for ended in _slices(unfolded.ended):
            with transaction(database):
                END_SESSIONS.run(database, [(number,) for number in ended])
                self._drop_keys(ended)
            self._spread.difference_update(ended)
            yield
        for numbers in _slices(sorted(unfolded.rows)):
            rows = [row for number in numbers if (row := unfolded.rows.get(number))]
            packed = [row[0] for row in rows if row[-1] is not None]
            with transaction(database):
                put_sessions(database, rows)
                self._drop_keys(packed)
            self._spread.difference_update(packed)
            self._spread.update(row[0] for row in rows if row[-1] is None)
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

    def _drop_keys(self, numbers: Iterable[int]) -> None:
        """Drop the keys of sessions that have them in their table."""
        spread = self._spread.intersection(numbers)
        DROP_KEYS.run(self._database, [(number,) for number in spread])

    def _fold_map(self, number: int, change: MapChange) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield what is to be done for a change of a map, each with its size in bytes."""
        # The row of a session that came between the steps is folded the next time, with its keys.
        if number != NO_TOKEN and number not in self._spread:
            return
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
        for moved, some in groupby(items, key=lambda item: item[1] is UNCHANGED):
            if moved:
                self._database.executemany(_MOVE, [(number, key) for key, _ in some])
            else:
                put_keys(self._database, number, some)


def _slices(numbers: Iterable[int]) -> Iterator[list[int]]:
    remaining = iter(list(numbers))
    while some := list(islice(remaining, _SLICE)):
        yield some


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
