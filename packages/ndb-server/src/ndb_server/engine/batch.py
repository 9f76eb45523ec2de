"""The changes of one turn of the event loop: the new state for the disk, and the old state.

The independent keys are those of `ndb_protocol.NO_TOKEN`, which is no session's token.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from msgspec import Raw, Struct
from ndb_protocol import NO_TOKEN

from ..interfaces import Hold, Waiting
from .edits import Edit, MapChange
from .record import Row, row_of
from .session import Session

T = TypeVar("T")


class Load(Struct, gc=False):
    """That a load which was staged counts.

    Attributes:
        number: which one.
        parts: of how many parts it is.
        now: the time in ms at which the periods of its sessions begin.
        without: tokens, signed, of sessions in it that are not loaded.
        there: independent keys that were to be new, as it was staged, and are there by now.
        gone: those that were there then, and are new by now.
    """

    number: int
    parts: int
    now: int
    without: list[int] = []
    there: list[str] = []
    gone: list[str] = []


class Changed(Struct, gc=False):
    """What a batch changed, as it is to be on disk.

    Attributes:
        all_ended: every session goes first.
        ended: sessions that go.
        rows: sessions that are to be so.
        maps: what became of keys that are not packed, by token.
        moved: keys that had gone to the end of their maps before any of this, by token.
        load: a load that was staged, and counts from now on.
        complete: it is all there is, whatever was there before.
    """

    all_ended: bool
    ended: list[int]
    rows: list[Row]
    maps: dict[int, MapChange]
    moved: Mapping[int, Iterable[str]] = MappingProxyType({})
    load: Load | None = None
    complete: bool = False


class _Waiter:
    holds: "tuple[Hold, ...]" = ()

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Batch(Generic[T]):
    """Changes that become durable together, or are undone together.

    Attributes:
        before: what was there of all that changed, by token; None where there was no session.
        timed: sessions whose deadline moved or came: that is neither waited for nor undone.
        moved: keys that went to the end of their maps when batches before it were undone: that is
            neither waited for nor undone.
        load: what it is, if it is a load and nothing else.
        all_before: what was there when all sessions were ended, if they were; of what had changed
            until then, `before_all` is what `before` was.
        waiting: who is to be told when the batch is done.
        done: None while the batch is on its way; then whether it is on disk.
    """

    def __init__(self) -> None:
        self.before: dict[int, Session | None] = {}
        self.timed: set[int] = set()
        self.moved: dict[int, dict[str, None]] = {}
        self.load: Load | None = None
        self.all_before: T | None = None
        self.before_all: dict[int, Session | None] = {}
        self.waiting: dict[Waiting, None] = {}
        self.done: bool | None = None
        self._maps: dict[int, _MapHistory] = {}

    def __bool__(self) -> bool:
        return bool(self.awaited or self.timed or self.moved)

    @property
    def awaited(self) -> bool:
        """Whether anybody has to wait for it."""
        return bool(self.before) or self.all_before is not None

    def has_changed(self, token: int) -> bool:
        """Return whether it changed a session, or the independent keys (`NO_TOKEN`)."""
        return token in self.before or (token != NO_TOKEN and self.all_before is not None)

    async def wait(self) -> bool | None:
        """Wait until it is done; return whether it is on disk."""
        if self.done is None:
            waiter = _Waiter()
            self.waiting[waiter] = None
            await waiter.future
        return self.done

    def holds(self) -> "Iterator[Hold]":
        """Yield what replies wait for until it is done."""
        for waiting in self.waiting:
            yield from (hold for hold in waiting.holds if hold.batch is self)

    def editing(self, token: int, values: dict[str, Raw], edit: Edit) -> None:
        """Note a map of keys before it changes by `edit`; what it belongs to is in `before`."""
        image = self.before[token]
        # Another map than the one it began with is written as a whole.
        if image is not None and image.packed is values and not edit.clear:
            self._maps.setdefault(token, _MapHistory()).note(values, edit)

    def ending_all(self, all_before: T) -> None:
        """Note all sessions before they are ended."""
        keys = self.before.pop(NO_TOKEN, None)
        if self.all_before is None:
            self.all_before = all_before
            self.before_all = self.before
        self.before = {} if keys is None else {NO_TOKEN: keys}
        self.timed.clear()

    def changed(self, sessions: Mapping[int, Session], keys: dict[str, Raw]) -> Changed:
        """Return what is to be on disk, given the sessions and the independent keys in memory."""
        if self.load is not None:
            return Changed(False, [], [], {}, load=self.load)
        changed = Changed(self.all_before is not None, [], [], {}, self.moved)
        others = self.timed | self.moved.keys() if self.moved else self.timed
        # Bound to names: this is done for every write there is.
        find, add = sessions.get, changed.rows.append
        for token in {**self.before, **dict.fromkeys(others)} if others else self.before:
            session = find(token)
            if session is not None:
                add(row_of(token, session))
                if type(session.packed) is dict:
                    self._add_map(changed, token, session.packed)
            elif token == NO_TOKEN:
                self._add_map(changed, token, keys)
            else:
                changed.ended.append(token)
        return changed

    def _add_map(self, changed: Changed, token: int, values: dict[str, Raw]) -> None:
        change = self._map_change(token, values)
        if change is not None:
            changed.maps[token] = change

    def _map_change(self, token: int, values: dict[str, Raw]) -> MapChange | None:
        if token in self.before:
            image = self.before[token]
            if image is None or image.packed is not values:
                return MapChange.whole(values)
        history = self._maps.get(token)
        return None if history is None else history.change

    def images(self, before: Mapping[int, Session | None]) -> Iterator[tuple[int, Session | None]]:
        """Yield what was there, of `before`, with its maps put back as they were."""
        for token, image in before.items():
            if image is not None and token in self._maps:
                assert isinstance(image.packed, dict)
                self._maps[token].put_back(image.packed)
            yield token, image

    def replaced(self, tokens: Iterable[int]) -> list[int]:
        """Return those of `tokens` whose map is another one once this is undone."""
        return [
            token
            for token in tokens
            if token not in self._maps
            and (token in self.before or (token != NO_TOKEN and self.all_before is not None))
        ]

    def reordered(self) -> Iterator[tuple[int, Iterable[str]]]:
        """Yield the keys that stand at the end of their maps once they are put back, by token."""
        return ((token, history.reordered) for token, history in self._maps.items())


def complete(sessions: Mapping[int, Session], keys: dict[str, Raw]) -> Changed:
    """Return all there is, to be on disk, given the sessions and the independent keys."""
    maps = {
        token: MapChange.whole(session.packed)
        for token, session in sessions.items()
        if isinstance(session.packed, dict)
    }
    maps[NO_TOKEN] = MapChange.whole(keys)
    return Changed(True, [], [*map(row_of, sessions, sessions.values())], maps, complete=True)


class _MapHistory:
    """How a map of keys changed, and how it was."""

    def __init__(self) -> None:
        self.change = MapChange({}, {})
        self._old: dict[str, Raw | None] = {}

    def note(self, values: Mapping[str, Raw], edit: Edit) -> None:
        for key in (*edit.remove, *edit.put):
            self._old.setdefault(key, values.get(key))
        # Made again, the change leaves the same order: what is new is put at the end each time.
        new = (key for key in edit.put if key not in values)
        self.change.then((*edit.remove, *new), edit.put)

    @property
    def reordered(self) -> list[str]:
        return [key for key in self.change.removed if self._old[key] is not None]

    def put_back(self, values: dict[str, Raw]) -> None:
        for key in self.reordered:
            values.pop(key, None)
        for key, old in self._old.items():
            if old is None:
                values.pop(key, None)
            elif key not in self.change.removed:
                values[key] = old
        for key in self.reordered:
            values[key] = self._old[key]  # type: ignore[assignment]
