"""Compaction: moves the contents of the log into the tables, sorted and each session once.

A compaction is done in steps, each a short transaction, so that batches can be written in between.
To compact the same contents again changes nothing, so a crash between two steps loses nothing.
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
from .log import LogContents, chunks, key_record_size, name_record_size
from .tables import DELETE_ALL_KEYS, DELETE_KEYS, DELETE_SESSIONS, put_keys, put_sessions

_SESSIONS_PER_STEP = 4096
"""The most sessions of a step."""

_PAGE = 4096
"""The least bytes that a change writes: one page."""

_MOVE = """
UPDATE keys SET id = (SELECT max(id) + 1 FROM keys) WHERE tkn = ? AND key = ?
"""


class Compactor:
    """Compacts the log of a store.

    Args:
        database: the store.

    Raises:
        sqlite3.Error: the tables can't be read.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        # Signed tokens of the sessions whose keys are in the table `keys`.
        self._unpacked = {
            tkn for (tkn,) in database.execute("SELECT tkn FROM sessions WHERE keys IS NULL")
        }

    def steps(self, contents: LogContents) -> Iterator[None]:
        """Move `contents` into the tables and delete them from the log, one step at a time.

        Batches may be added to `contents` between the steps. Only whole sessions of them, and keys
        of sessions that are in the tables, are moved. All of them stay in the log.

        Raises:
            sqlite3.Error: a step failed. It is rolled back, and the steps before it are not.
        """
        database = self._database
        last, last_load = contents.seq, contents.load
        if contents.all_ended:
            with transaction(database):
                database.execute("DELETE FROM sessions")
                database.execute("DELETE FROM keys WHERE tkn <> ?", (NO_TOKEN,))
            self._unpacked.clear()
            yield
        for ended in _step_chunks(contents.ended):
            with transaction(database):
                DELETE_SESSIONS.run(database, [(tkn,) for tkn in ended])
                self._delete_keys(ended)
            self._unpacked.difference_update(ended)
            yield
        for tkns in _step_chunks(sorted(contents.rows)):
            rows = [row for tkn in tkns if (row := contents.rows.get(tkn))]
            packed = [row[0] for row in rows if row[-1] is not None]
            with transaction(database):
                put_sessions(database, rows)
                self._delete_keys(packed)
            self._unpacked.difference_update(packed)
            self._unpacked.update(row[0] for row in rows if row[-1] is None)
            yield
        maps = list(contents.maps.items())
        steps = (step for tkn, change in maps for step in self._map_steps(tkn, change))
        for chunk in chunks(steps, itemgetter(0)):
            with transaction(database):
                for _, step in chunk:
                    step()
            yield
        with transaction(database):
            database.execute("DELETE FROM log WHERE seq <= ?", (last,))
            database.execute("DELETE FROM loading WHERE load <= ?", (last_load,))

    def _delete_keys(self, tkns: Iterable[int]) -> None:
        """Delete the keys of sessions from the table `keys`."""
        unpacked = self._unpacked.intersection(tkns)
        DELETE_ALL_KEYS.run(self._database, [(tkn,) for tkn in unpacked])

    def _map_steps(self, tkn: int, change: MapChange) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield functions that apply a change of a map, each with the bytes that it writes."""
        # The next compaction moves a session that was added between the steps, with its keys.
        if tkn != NO_TOKEN and tkn not in self._unpacked:
            return
        if change.clear:
            yield _PAGE, partial(DELETE_ALL_KEYS.run, self._database, [(tkn,)])
        # Copies: batches that are added between the steps change it.
        removed_keys, put = list(change.removed), list(change.put.items())
        for names in chunks(removed_keys, name_record_size):
            removed = [(tkn, key) for key in names]
            yield (
                _PAGE + sum(map(name_record_size, names)),
                partial(DELETE_KEYS.run, self._database, removed),
            )
        for chunk in chunks(put, key_record_size):
            yield _PAGE + sum(map(key_record_size, chunk)), partial(self._put, tkn, chunk)

    def _put(self, tkn: int, items: list[tuple[str, Raw]]) -> None:
        for moved, chunk in groupby(items, key=lambda item: item[1] is UNCHANGED):
            if moved:
                self._database.executemany(_MOVE, [(tkn, key) for key, _ in chunk])
            else:
                put_keys(self._database, tkn, chunk)


def _step_chunks(tkns: Iterable[int]) -> Iterator[list[int]]:
    remaining = iter(list(tkns))
    while chunk := list(islice(remaining, _SESSIONS_PER_STEP)):
        yield chunk


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction of `database`."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:  # Whatever happened, the transaction must end.
        # After some errors SQLite has rolled back already.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
