"""Reads and counts the data of a load, and checks it against the limits, before it takes effect."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Raw
from ndb_protocol import NO_TOKEN

from ..json_depth import nests_deeper
from ..limits import Limits
from .batch import ChangeSet, LoadCommit
from .edits import MapChange
from .keymap import KeyMap, unpack
from .record import SessionRow, expiry_of, row_of, signed, unsigned
from .session import NEVER, Session
from .size_estimate import SESSION_BYTES, keys_size

_AROUND = 3
"""How deep a value stands in the message that sets it: ``{"KV_SET":{"keys":{"name":…}}}``."""


class Coming:
    """Sessions and independent keys that are to be loaded together.

    Args:
        limits: the limits that each of them is checked against.

    Attributes:
        sessions: the sessions, by their tokens; their periods have not begun.
        keys: the independent keys.
        session_keys: how many keys the sessions have.
        memory: how many bytes the sessions take.
        beyond: the first limit that one of them exceeds, and a sentence that says so.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.sessions: dict[int, Session] = {}
        self.keys: dict[str, Raw] = {}
        self.session_keys = self.memory = 0
        self.beyond: tuple[str, str] | None = None
        # Of the independent keys, those that were new when it was staged.
        self._new: set[str] = set()

    def add_session(self, row: SessionRow, keymap: KeyMap) -> None:
        """Add a session that was saved."""
        values = unpack(keymap)
        most = self._limits.keys
        if most and len(values) > most:
            self._note("keys", f"a session has {len(values)} keys; {most} are allowed")
        self._check(values)
        session = self.sessions[unsigned(row[0])] = Session(expiry_of(row), NEVER, keymap)
        self._count(session, 1)

    def add_keys(self, values: Mapping[str, Raw]) -> None:
        """Add independent keys."""
        self._check(values)
        self.keys.update(values)

    def drop(self, token: int) -> None:
        """Leave a session out."""
        self._count(self.sessions.pop(token), -1)

    def _count(self, session: Session, times: int) -> None:
        self.session_keys += times * len(unpack(session.keys))
        self.memory += times * (SESSION_BYTES + keys_size(session.keys))

    def _check(self, values: Mapping[str, Raw]) -> None:
        length, depth = self._limits.key_length, self._limits.depth - _AROUND
        if length and (longest := max(map(len, values), default=0)) > length:
            self._note("key_length", f"a key has {longest} characters; {length} are allowed")
        if any(nests_deeper(bytes(value), depth) for value in values.values()):
            self._note("depth", f"a value nests deeper than a message may, {self._limits.depth}")

    def _note(self, limit: str, sentence: str) -> None:
        self.beyond = self.beyond or (limit, sentence)

    def stage(self, there: Mapping[str, Raw]) -> Callable[[], ChangeSet]:
        """Return what makes it all as it is to be staged, given the independent keys there are.

        It has no deadlines, which are not known yet.
        """
        self._new = {key for key in self.keys if key not in there}
        return self._changed

    def _changed(self) -> ChangeSet:
        maps = {
            token: MapChange.replace_all(session.keys)
            for token, session in self.sessions.items()
            if isinstance(session.keys, dict)
        }
        rows = [row_of(token, session) for token, session in self.sessions.items()]
        if self.keys:
            # Done again, the change leaves the same order: what is new is put at the end each time.
            maps[NO_TOKEN] = MapChange(dict.fromkeys(self._new), self.keys)
        return ChangeSet(False, [], rows, maps)

    def counts(
        self, number: int, parts: int, now: int, known: Iterable[int], there: Mapping[str, Raw]
    ) -> LoadCommit:
        """Return that it counts from `now` on, as it was staged, without the sessions `known`."""
        changed = [key for key in self.keys if (key in self._new) == (key in there)]
        return LoadCommit(
            number,
            parts,
            now,
            [*map(signed, known)],
            keys_set=[key for key in changed if key in there],
            keys_removed=[key for key in changed if key not in there],
        )
