"""The journal: collects the engine's changes in batches that become durable together.

The engine announces each change before it makes it, and the journal keeps the old state. All
changes of one turn of the event loop are one batch. While a batch is written, the next one collects
changes. Until a batch is on disk, nobody may see its changes: replies that depend on it wait. If it
can't be written, it and the batches after it are undone, newest first. Then memory has the same
state as the disk.

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

from ..interfaces import Hold
from .batch import Batch, Changed, Load, complete
from .edits import Edit
from .session import NEVER, Session

logger = logging.getLogger("ndb_server.journal")

RETRY = 1.0
"""Seconds after which it is tried again whether changes can be written."""


class Memory(Protocol):
    """Whose changes are written: the engine."""

    def everything(self) -> tuple[Mapping[int, Session], dict[str, Raw]]:
        """Return the sessions by their tokens, and the independent keys."""
        ...

    def undo(self, batch: Batch[Any]) -> None:
        """Put back what `batch` found; time has gone on."""


class Journal:
    """Gathers changes, has them written, and tells who waits.

    Args:
        write: begins to write a batch, and calls back in this thread when it is on disk, with None,
            or when it is certain not to be, with the reason.
        later: calls something after so many seconds; after none, once this turn is over.
        incomplete: tells whether the disk has lost what it had: the next batch is all there is.

    Attributes:
        memory: whose changes they are.
        unsettled: the batches that replies wait for, newest first.
        trouble: why the last batch could not be written, if so.
        undone: how many batches have been undone.
    """

    memory: Memory

    def __init__(
        self,
        write: Callable[[Changed, Callable[[str | None], None]], None],
        later: Callable[[float, Callable[[], None]], object],
        incomplete: Callable[[], bool] = lambda: False,
    ) -> None:
        self._write = write
        self._later = later
        self._incomplete = incomplete
        self._open: Batch[Any] = Batch()
        # Those that nothing is added to any more, oldest first, and what they are on disk: memory
        # goes on meanwhile.
        self._sealed: deque[tuple[Batch[Any], Changed]] = deque()
        self._writing: Batch[Any] | None = None
        self._sending = False
        self._retrying = False
        self.unsettled: list[Batch[Any]] = []
        self.trouble: str | None = None
        self.undone = 0

    # For the engine

    def changing(self, token: int, session: Session | None, edit: Edit | None = None) -> None:
        """Take note: what a client asked for is about to change, end or (None) begin a session.

        Args:
            token: the session's, or `NO_TOKEN` for the independent keys.
            session: what is there.
            edit: what is done to its keys.
        """
        batch = self._open
        before = batch.before
        if token not in before:
            if not before:
                self._begin()
            # Written out: this is done for every write there is.
            before[token] = session and Session(session.expiry, session.deadline, session.packed)
        if edit is not None and session is not None and type(session.packed) is dict:
            batch.editing(token, session.packed, edit)

    def ending_all(self, sessions: object) -> None:
        """Take note: every session is about to end; `sessions` is what puts them back."""
        self._open.ending_all(sessions)
        self._begin()

    def timed(self, token: int) -> None:
        """Take note: the deadline of a session moved or came."""
        self._open.timed.add(token)
        self._send_soon()

    def loading(
        self, load: Load | None, tokens: Iterable[int], keys: Edit, values: dict[str, Raw]
    ) -> None:
        """Take note: sessions and independent keys are about to come in, all or none of them.

        They are a batch of their own.

        Args:
            load: what was staged, if there is a store.
            tokens: of sessions that are not there.
            keys: what becomes of the independent keys.
            values: the independent keys that are there.
        """
        batch: Batch[Any] = Batch()
        batch.load = load
        batch.before = dict.fromkeys(tokens)
        if keys.put:
            batch.before[NO_TOKEN] = Session(None, NEVER, values)
            batch.editing(NO_TOKEN, values, keys)
        if self._open:
            self._seal()
        # Only now: there may be no memory for any of that.
        self._open = batch
        self._begin()

    def not_loading(self) -> None:
        """Take note: they have not come in, after all."""
        self.unsettled.remove(self._open)
        self._open = Batch()

    def loaded(self) -> Batch[Any]:
        """Take note: they have come in; return the batch that they are."""
        return self._seal()

    def _seal(self) -> Batch[Any]:
        batch, following = self._open, Batch[Any]()
        self._sealed.append((batch, batch.changed(*self.memory.everything())))
        self._open = following
        return batch

    # For who answers

    def open_batch(self) -> Batch[Any]:
        """Return the batch that gathers: none is newer."""
        return self._open

    def awaited(self, scope: Scope, params: Params) -> Batch[Any] | None:
        """Return the batch that has to be done before the reply to a request may leave."""
        if scope is Scope.SERVER:
            return None
        if scope is Scope.STORE:
            return next(iter(self.unsettled), None)
        token = params.tkn if scope is Scope.SESSION else NO_TOKEN  # type: ignore[attr-defined]
        return next((batch for batch in self.unsettled if batch.has_changed(token)), None)

    def holds(self) -> Iterator[Hold]:
        """Yield what replies wait for."""
        for batch in self.unsettled:
            yield from batch.holds()

    async def flush(self) -> None:
        """Wait until all that has changed by now is on disk or was undone."""
        batch = self._newest()
        if batch is not None:
            await batch.wait()

    async def recover(self) -> None:
        """Find out whether the trouble is over, and write what has to be written if it is."""
        # The disk may have lost what it had: the first time it says so, the second it has it.
        for _ in range(2):
            if self.trouble is None:
                break
            self._send()
            if self._writing is not None:
                await self._writing.wait()

    def distrust(self, reason: str) -> None:
        """Take note that the disk has lost what it had: nobody has to write to find that out."""
        self._fails(reason)
        self._retry_later()

    # Writing

    def _newest(self) -> Batch[Any] | None:
        if self._open:
            return self._open
        return self._sealed[-1][0] if self._sealed else self._writing

    def _begin(self) -> None:
        if self._open not in self.unsettled:
            self.unsettled.insert(0, self._open)
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._sending and self._writing is None:
            self._sending = True
            self._later(0, self._send)

    def _send(self) -> None:
        self._sending = False
        # Without any change it tells whether the trouble is over.
        if self._writing is None and (self._sealed or self._open or self.trouble):
            try:
                if not self._sealed:
                    self._seal()
                self._writing, changed = self._sealed.popleft()
                if self._incomplete() and not self._sealed and not self._open:
                    changed = complete(*self.memory.everything())
                self._write(changed, self._written)
            except MemoryError:
                if self._writing is None:
                    self._writing, self._open = self._open, Batch()
                self._written("out of memory")

    def _written(self, trouble: str | None) -> None:
        batch, self._writing = self._writing, None
        assert batch is not None
        if trouble is None:
            if self.trouble is not None:
                logger.warning("changes are durable again")
            self.trouble = None
            if batch in self.unsettled:
                self.unsettled.remove(batch)
            self._settle(batch, done=True)
        else:
            self._fails(trouble)
            self._undo(batch)
        if self._sealed or self._open.awaited or (self._open and trouble is None):
            self._send()
        elif trouble is not None:
            self._retry_later()

    def _fails(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.error("changes can't be made durable and are refused: %s", trouble)
        self.trouble = trouble

    def _retry_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._later(RETRY, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._send()

    def _undo(self, batch: Batch[Any]) -> None:
        undone = (self._open, *(sealed for sealed, _ in reversed(self._sealed)), batch)
        self.undone += len(undone)
        self._open = Batch()
        self._sealed.clear()
        self.unsettled.clear()
        moved = self._open.moved
        for each in reversed(undone):
            for token, keys in each.moved.items():
                _move(moved, token, keys)
        put_back: dict[int, dict[str, None]] = {}
        for each in undone:
            self.memory.undo(each)
            self._open.timed |= each.timed
            # Whatever was put back in a map is of no account where another map comes back.
            for token in each.replaced(put_back):
                del put_back[token]
            for token, keys in each.reordered():
                _move(put_back, token, keys)
        for token, keys in put_back.items():
            _move(moved, token, keys)
        for each in reversed(undone):
            self._settle(each, done=False)

    def _settle(self, batch: Batch[Any], *, done: bool) -> None:
        batch.done = done
        for waiting in batch.waiting:
            waiting.settled()


def _move(moved: dict[int, dict[str, None]], token: int, keys: Iterable[str]) -> None:
    for key in keys:
        order = moved.setdefault(token, {})
        order.pop(key, None)
        order[key] = None
