"""The journal: collects the engine's changes in batches that are committed together.

The engine records each change before it makes it, and the journal keeps the old state. All changes
of one turn of the event loop are one batch. While a batch is written, the next one collects
changes. Until a batch is on disk, no client may see its changes: replies that depend on it wait. If
a batch can't be written, it and the batches after it are undone, newest first. Then memory has the
same state as the disk.

Changes of deadlines by time or by reads are simpler. They follow from known data, so they are
written with the next batch, no reply waits for them, and they are never undone.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from msgspec import Raw
from ndb_protocol import NO_TOKEN, Scope
from ndb_protocol.messages import Params

from ..interfaces import CommitGate
from .batch import Batch, ChangeSet, LoadCommit, complete_change_set
from .edits import Edit
from .session import NEVER, Session

logger = logging.getLogger("ndb_server.journal")

RETRY_SECONDS = 1.0
"""Seconds between a failed write and the next attempt."""


class JournaledEngine(Protocol):
    """The engine whose changes are written."""

    def everything(self) -> tuple[Mapping[int, Session], dict[str, Raw]]:
        """Return the sessions by their tokens, and the independent keys."""
        ...

    def undo(self, batch: Batch[Any]) -> None:
        """Restore the state before `batch`, except for what time has changed since."""


class Journal:
    """Collects changes in batches, has the batches written, and calls their waiters.

    Args:
        write: starts to write a batch. Later it calls its second argument in this thread: with None
            when the batch is on disk, or with the reason when the batch could not be written.
        call_later: calls a function after a number of seconds; with 0, after this turn of the
            event loop.
        needs_rewrite: returns whether the files on disk are lost, so that the next batch must be
            all data.

    Attributes:
        engine: the engine whose changes are collected.
        pending: the batches that replies wait for, newest first.
        last_error: why the last batch could not be written; None if it was written.
        undone_batches: how many batches were undone.
    """

    engine: JournaledEngine

    def __init__(
        self,
        write: Callable[[ChangeSet, Callable[[str | None], None]], None],
        call_later: Callable[[float, Callable[[], None]], object],
        needs_rewrite: Callable[[], bool] = lambda: False,
    ) -> None:
        self._write = write
        self._call_later = call_later
        self._needs_rewrite = needs_rewrite
        self._open: Batch[Any] = Batch()
        # Batches that collect no more changes, oldest first, with their change sets: memory changes
        # before they are written.
        self._sealed: deque[tuple[Batch[Any], ChangeSet]] = deque()
        self._writing: Batch[Any] | None = None
        self._write_scheduled = False
        self._retry_scheduled = False
        self.pending: list[Batch[Any]] = []
        self.last_error: str | None = None
        self.undone_batches = 0

    # For the engine

    def record_change(self, token: int, session: Session | None, edit: Edit | None = None) -> None:
        """Record a session before a client's request creates, changes or ends it.

        Args:
            token: the session's token, or `NO_TOKEN` for the independent keys.
            session: the session before the change; None if it is created.
            edit: the change of its keys, if they are a dict.
        """
        batch = self._open
        before = batch.before_images
        if token not in before:
            if not before:
                self._add_pending()
            # A copy in one expression: every write runs it.
            before[token] = session and Session(session.expiry, session.deadline, session.keys)
        if edit is not None and session is not None and type(session.keys) is dict:
            batch.record_edit(token, session.keys, edit)

    def record_end_all(self, sessions: object) -> None:
        """Record all sessions before all are ended; `sessions` is what restores them."""
        self._open.record_end_all(sessions)
        self._add_pending()

    def record_deadline(self, token: int) -> None:
        """Record that the deadline of a session moved or passed."""
        self._open.deadline_changes.add(token)
        self._schedule_write()

    def begin_load(
        self, load: LoadCommit | None, tokens: Iterable[int], keys: Edit, values: dict[str, Raw]
    ) -> None:
        """Record sessions and independent keys before they are loaded, as a batch of their own.

        Args:
            load: commits what was staged, if there is a store.
            tokens: tokens of the sessions, which do not exist yet.
            keys: the change of the independent keys.
            values: the independent keys before the change.
        """
        batch: Batch[Any] = Batch()
        batch.load = load
        batch.before_images = dict.fromkeys(tokens)
        if keys.put:
            batch.before_images[NO_TOKEN] = Session(None, NEVER, values)
            batch.record_edit(NO_TOKEN, values, keys)
        if self._open:
            self._seal()
        # Only now: the steps before may fail for lack of memory.
        self._open = batch
        self._add_pending()

    def cancel_load(self) -> None:
        """Drop the batch of a load that failed; nothing was loaded."""
        self.pending.remove(self._open)
        self._open = Batch()

    def finish_load(self) -> Batch[Any]:
        """Close the batch of a load that is now in memory; return it."""
        return self._seal()

    def _seal(self) -> Batch[Any]:
        batch, following = self._open, Batch[Any]()
        self._sealed.append((batch, batch.change_set(*self.engine.everything())))
        self._open = following
        return batch

    # For those who send replies

    def open_batch(self) -> Batch[Any]:
        """Return the batch that collects changes now, which is the newest."""
        return self._open

    def pending_batch(self, scope: Scope, params: Params) -> Batch[Any] | None:
        """Return the newest unfinished batch that the reply to a request depends on."""
        if scope is Scope.SERVER:
            return None
        if scope is Scope.STORE:
            return next(iter(self.pending), None)
        token = params.tkn if scope is Scope.SESSION else NO_TOKEN  # type: ignore[attr-defined]
        return next((batch for batch in self.pending if batch.has_changed(token)), None)

    def gates(self) -> Iterator[CommitGate]:
        """Yield the gates of all replies that wait."""
        for batch in self.pending:
            yield from batch.gates()

    def newest_batch(self) -> Batch[Any] | None:
        """Return the newest batch that is neither committed nor undone, if there is one."""
        if self._open:
            return self._open
        return self._sealed[-1][0] if self._sealed else self._writing

    def write_again(self) -> Batch[Any] | None:
        """Try to write again if the last write failed; return the batch that is written."""
        if self.last_error is not None:
            self._write_next()
            return self._writing
        return None

    def report_store_lost(self, reason: str) -> None:
        """Report that the files are lost: until they are rewritten, no batch can be written."""
        self._report_error(reason)
        self._schedule_retry()

    # Writing

    def _add_pending(self) -> None:
        if self._open not in self.pending:
            self.pending.insert(0, self._open)
        self._schedule_write()

    def _schedule_write(self) -> None:
        if not self._write_scheduled and self._writing is None:
            self._write_scheduled = True
            self._call_later(0, self._write_next)

    def _write_next(self) -> None:
        self._write_scheduled = False
        # After an error an empty batch is written, to see whether writes work again.
        if self._writing is None and (self._sealed or self._open or self.last_error):
            try:
                if not self._sealed:
                    self._seal()
                self._writing, changes = self._sealed.popleft()
                if self._needs_rewrite() and not self._sealed and not self._open:
                    changes = complete_change_set(*self.engine.everything())
                self._write(changes, self._on_written)
            except MemoryError:
                if self._writing is None:
                    self._writing, self._open = self._open, Batch()
                self._on_written("out of memory")

    def _on_written(self, error: str | None) -> None:
        batch, self._writing = self._writing, None
        assert batch is not None
        if error is None:
            if self.last_error is not None:
                logger.warning("changes are durable again")
            self.last_error = None
            if batch in self.pending:
                self.pending.remove(batch)
            self._finish(batch, committed=True)
        else:
            self._report_error(error)
            self._undo(batch)
        if self._sealed or self._open.delays_replies or (self._open and error is None):
            self._write_next()
        elif error is not None:
            self._schedule_retry()

    def _report_error(self, error: str) -> None:
        if error != self.last_error:
            logger.error("changes can't be made durable and are refused: %s", error)
        self.last_error = error

    def _schedule_retry(self) -> None:
        if not self._retry_scheduled:
            self._retry_scheduled = True
            self._call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retry_scheduled = False
        self._write_next()

    def _undo(self, batch: Batch[Any]) -> None:
        undone = (self._open, *(sealed for sealed, _ in reversed(self._sealed)), batch)
        self.undone_batches += len(undone)
        self._open = Batch()
        self._sealed.clear()
        self.pending.clear()
        moved = self._open.moved
        for each in reversed(undone):
            for token, keys in each.moved.items():
                _move_to_end(moved, token, keys)
        reordered: dict[int, dict[str, None]] = {}
        for each in undone:
            self.engine.undo(each)
            self._open.deadline_changes |= each.deadline_changes
            # The order in a restored map does not matter if the map itself is replaced.
            for token in each.replaced_maps(reordered):
                del reordered[token]
            for token, keys in each.reordered():
                _move_to_end(reordered, token, keys)
        for token, keys in reordered.items():
            _move_to_end(moved, token, keys)
        for each in reversed(undone):
            self._finish(each, committed=False)

    def _finish(self, batch: Batch[Any], *, committed: bool) -> None:
        batch.committed = committed
        for waiter in batch.waiters:
            waiter.batch_done()


def _move_to_end(moved: dict[int, dict[str, None]], token: int, keys: Iterable[str]) -> None:
    for key in keys:
        order = moved.setdefault(token, {})
        order.pop(key, None)
        order[key] = None
