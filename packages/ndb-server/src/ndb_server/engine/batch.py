"""A batch: the changes of one turn of the event loop, as one transaction.

A batch keeps the state before its changes (before-images), to undo them, and makes a change set,
which is written to disk. The independent keys have the token `ndb_protocol.NO_TOKEN`, which no
session has.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from msgspec import Raw, Struct
from ndb_protocol import NO_TOKEN

from ..interfaces import BatchWaiter, CommitGate
from .edits import Edit, MapChange
from .record import SessionRow, row_of
from .session import Session

T = TypeVar("T")


class LoadCommit(
    Struct,
    gc=False,
    # What they are called on disk.
    rename={
        "period_start": "now",
        "skipped": "without",
        "keys_set": "there",
        "keys_removed": "gone",
    },
):
    """The record that commits a staged load: from here on the load has its effect.

    Attributes:
        number: the number of the load.
        parts: how many parts the load has.
        period_start: the time in ms at which the periods of its sessions begin.
        skipped: signed tokens of staged sessions that are not loaded, because they exist already.
        keys_set: independent keys of the load that were set by others since it was staged.
        keys_removed: independent keys of the load that were removed by others since it was staged.
    """

    number: int
    parts: int
    period_start: int
    skipped: list[int] = []
    keys_set: list[str] = []
    keys_removed: list[str] = []


class ChangeSet(Struct, gc=False):
    """The changes of a batch, as they are written to disk.

    Attributes:
        all_ended: whether all sessions are deleted before the other changes.
        ended: tokens of sessions that are deleted.
        rows: sessions that are created or replaced.
        maps: changes to maps of keys that are not packed into the session's row, by token.
        moved: keys that move to the end of their maps before the other changes, by token.
        load: commits a staged load.
        complete: whether these are all data there are; what was on disk before is replaced.
    """

    all_ended: bool
    ended: list[int]
    rows: list[SessionRow]
    maps: dict[int, MapChange]
    moved: Mapping[int, Iterable[str]] = MappingProxyType({})
    load: LoadCommit | None = None
    complete: bool = False


class Batch(Generic[T]):
    """Changes that are committed together, or undone together.

    Attributes:
        before_images: the sessions as they were before their first change, by token; None for a
            session that is new.
        deadline_changes: tokens of sessions whose deadline moved or passed. No reply waits for
            these changes, and they are never undone.
        moved: keys that moved to the end of their maps when earlier batches were undone, by token.
            No reply waits for these changes, and they are never undone.
        load: the commit of a load, if this is the batch of a load.
        all_sessions_image: all sessions as they were before all were ended, if they were.
        images_before_end_all: what `before_images` was when all sessions were ended.
        waiters: who is called when the batch is committed or undone.
        committed: None while the batch is not finished; then whether it is on disk.
    """

    def __init__(self) -> None:
        self.before_images: dict[int, Session | None] = {}
        self.deadline_changes: set[int] = set()
        self.moved: dict[int, dict[str, None]] = {}
        self.load: LoadCommit | None = None
        self.all_sessions_image: T | None = None
        self.images_before_end_all: dict[int, Session | None] = {}
        self.waiters: dict[BatchWaiter, None] = {}
        self.committed: bool | None = None
        self._map_histories: dict[int, _MapHistory] = {}

    def __bool__(self) -> bool:
        return bool(self.delays_replies or self.deadline_changes or self.moved)

    @property
    def delays_replies(self) -> bool:
        """Whether replies wait for the batch."""
        return bool(self.before_images) or self.all_sessions_image is not None

    def has_changed(self, token: int) -> bool:
        """Return whether the batch changed a session, or the independent keys (`NO_TOKEN`)."""
        return token in self.before_images or (
            token != NO_TOKEN and self.all_sessions_image is not None
        )

    def gates(self) -> "Iterator[CommitGate]":
        """Yield the gates of the replies that wait for the batch."""
        for waiter in self.waiters:
            yield from (gate for gate in waiter.gates if gate.batch is self)

    def record_edit(self, token: int, values: dict[str, Raw], edit: Edit) -> None:
        """Record a map of keys before `edit` changes it; its owner is in `before_images`."""
        image = self.before_images[token]
        # A map that replaced the one of the image is written as a whole.
        if image is not None and image.keys is values and not edit.clear:
            self._map_histories.setdefault(token, _MapHistory()).record(values, edit)

    def record_end_all(self, image: T) -> None:
        """Record all sessions before they are ended."""
        keys = self.before_images.pop(NO_TOKEN, None)
        if self.all_sessions_image is None:
            self.all_sessions_image = image
            self.images_before_end_all = self.before_images
        self.before_images = {} if keys is None else {NO_TOKEN: keys}
        self.deadline_changes.clear()

    def change_set(self, sessions: Mapping[int, Session], keys: dict[str, Raw]) -> ChangeSet:
        """Return the changes for the disk, given the sessions and independent keys in memory."""
        if self.load is not None:
            return ChangeSet(False, [], [], {}, load=self.load)
        changes = ChangeSet(self.all_sessions_image is not None, [], [], {}, self.moved)
        others = self.deadline_changes | self.moved.keys() if self.moved else self.deadline_changes
        # Local names are faster, and every write runs this loop.
        find, add = sessions.get, changes.rows.append
        for token in (
            {**self.before_images, **dict.fromkeys(others)} if others else self.before_images
        ):
            session = find(token)
            if session is not None:
                add(row_of(token, session))
                if type(session.keys) is dict:
                    self._add_map(changes, token, session.keys)
            elif token == NO_TOKEN:
                self._add_map(changes, token, keys)
            else:
                changes.ended.append(token)
        return changes

    def _add_map(self, changes: ChangeSet, token: int, values: dict[str, Raw]) -> None:
        change = self._map_change(token, values)
        if change is not None:
            changes.maps[token] = change

    def _map_change(self, token: int, values: dict[str, Raw]) -> MapChange | None:
        if token in self.before_images:
            image = self.before_images[token]
            if image is None or image.keys is not values:
                return MapChange.replace_all(values)
        history = self._map_histories.get(token)
        return None if history is None else history.change

    def restored_images(
        self, before: Mapping[int, Session | None]
    ) -> Iterator[tuple[int, Session | None]]:
        """Restore the maps of keys of `before`, and yield its images."""
        for token, image in before.items():
            if image is not None and token in self._map_histories:
                assert isinstance(image.keys, dict)
                self._map_histories[token].undo(image.keys)
            yield token, image

    def replaced_maps(self, tokens: Iterable[int]) -> list[int]:
        """Return those of `tokens` whose map of keys is replaced when the batch is undone."""
        return [
            token
            for token in tokens
            if token not in self._map_histories
            and (
                token in self.before_images
                or (token != NO_TOKEN and self.all_sessions_image is not None)
            )
        ]

    def reordered(self) -> Iterator[tuple[int, Iterable[str]]]:
        """Yield the keys that are at the end of their maps after an undo, by token."""
        return ((token, history.reordered) for token, history in self._map_histories.items())


def complete_change_set(sessions: Mapping[int, Session], keys: dict[str, Raw]) -> ChangeSet:
    """Return a change set of all data, given the sessions and the independent keys."""
    maps = {
        token: MapChange.replace_all(session.keys)
        for token, session in sessions.items()
        if isinstance(session.keys, dict)
    }
    maps[NO_TOKEN] = MapChange.replace_all(keys)
    return ChangeSet(True, [], [*map(row_of, sessions, sessions.values())], maps, complete=True)


class _MapHistory:
    """The change of a map of keys in a batch, and the values to undo it."""

    def __init__(self) -> None:
        self.change = MapChange({}, {})
        self._old_values: dict[str, Raw | None] = {}

    def record(self, values: Mapping[str, Raw], edit: Edit) -> None:
        for key in (*edit.remove, *edit.put):
            self._old_values.setdefault(key, values.get(key))
        # New keys are also removed first. So a change that is applied twice leaves the same order.
        new = (key for key in edit.put if key not in values)
        self.change.add((*edit.remove, *new), edit.put)

    @property
    def reordered(self) -> list[str]:
        return [key for key in self.change.removed if self._old_values[key] is not None]

    def undo(self, values: dict[str, Raw]) -> None:
        for key in self.reordered:
            values.pop(key, None)
        for key, old in self._old_values.items():
            if old is None:
                values.pop(key, None)
            elif key not in self.change.removed:
                values[key] = old
        for key in self.reordered:
            values[key] = self._old_values[key]  # type: ignore[assignment]
