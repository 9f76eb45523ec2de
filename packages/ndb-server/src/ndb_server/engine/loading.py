"""Collects the data of a load, and checks it against the limits, before it takes effect."""

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

_MESSAGE_DEPTH = 3
"""Levels around a value in the message that sets it: ``{"KV_SET":{"keys":{"name":…}}}``."""


class PendingLoad:
    """Sessions and independent keys that will be loaded together.

    Args:
        limits: the limits for each session and key.

    Attributes:
        sessions: the sessions, by their tokens. Their deadlines are not known yet.
        keys: the independent keys.
        session_keys: how many keys the sessions have.
        memory: how many bytes the sessions take, estimated.
        exceeded: the first limit that is exceeded, and a sentence about it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.sessions: dict[int, Session] = {}
        self.keys: dict[str, Raw] = {}
        self.session_keys = self.memory = 0
        self.exceeded: tuple[str, str] | None = None
        # The independent keys that did not exist when the load was staged.
        self._new_keys: set[str] = set()

    def add_session(self, row: SessionRow, keymap: KeyMap) -> None:
        """Add a session."""
        values = unpack(keymap)
        limit = self._limits.keys
        if limit and len(values) > limit:
            self._note_exceeded("keys", f"a session has {len(values)} keys; {limit} are allowed")
        self._check(values)
        session = self.sessions[unsigned(row[0])] = Session(expiry_of(row), NEVER, keymap)
        self._count(session, 1)

    def add_keys(self, values: Mapping[str, Raw]) -> None:
        """Add independent keys."""
        self._check(values)
        self.keys.update(values)

    def drop(self, token: int) -> None:
        """Remove a session."""
        self._count(self.sessions.pop(token), -1)

    def _count(self, session: Session, times: int) -> None:
        self.session_keys += times * len(unpack(session.keys))
        self.memory += times * (SESSION_BYTES + keys_size(session.keys))

    def _check(self, values: Mapping[str, Raw]) -> None:
        length, depth = self._limits.key_length, self._limits.depth - _MESSAGE_DEPTH
        if length and (longest := max(map(len, values), default=0)) > length:
            self._note_exceeded(
                "key_length", f"a key has {longest} characters; {length} are allowed"
            )
        if any(nests_deeper(bytes(value), depth) for value in values.values()):
            self._note_exceeded(
                "depth", f"a value nests deeper than a message may, {self._limits.depth}"
            )

    def _note_exceeded(self, limit: str, sentence: str) -> None:
        self.exceeded = self.exceeded or (limit, sentence)

    def prepare_staging(self, existing: Mapping[str, Raw]) -> Callable[[], ChangeSet]:
        """Return a function that returns the change set to stage.

        Args:
            existing: the independent keys that exist now.
        """
        self._new_keys = {key for key in self.keys if key not in existing}
        return self._change_set

    def _change_set(self) -> ChangeSet:
        maps = {
            token: MapChange.replace_all(session.keys)
            for token, session in self.sessions.items()
            if isinstance(session.keys, dict)
        }
        rows = [row_of(token, session) for token, session in self.sessions.items()]
        if self.keys:
            # New keys are also removed first. So a change that is applied twice leaves the same
            # order.
            maps[NO_TOKEN] = MapChange(dict.fromkeys(self._new_keys), self.keys)
        return ChangeSet(False, [], rows, maps)

    def commit(
        self, number: int, parts: int, now: int, skipped: Iterable[int], existing: Mapping[str, Raw]
    ) -> LoadCommit:
        """Return the record that commits the load.

        Args:
            number: the number of the load.
            parts: how many parts were staged.
            now: the time in ms.
            skipped: tokens of the sessions that were staged and are not loaded.
            existing: the independent keys that exist now.
        """
        changed = [key for key in self.keys if (key in self._new_keys) == (key in existing)]
        return LoadCommit(
            number,
            parts,
            now,
            [*map(signed, skipped)],
            keys_set=[key for key in changed if key in existing],
            keys_removed=[key for key in changed if key not in existing],
        )
