"""A store made from nothing but what the journal has written."""

from collections.abc import Callable

from msgspec import Raw
from ndb_protocol import NO_TOKEN
from ndb_protocol.messages import Expiry
from ndb_server.engine.batch import ChangeSet
from ndb_server.engine.journal import Journal
from ndb_server.engine.keymap import unpack
from ndb_server.engine.record import deadline_of, expiry_of, signed, unsigned

Keys = dict[str, bytes]


class Replica:
    """A disk of plain dictionaries, with a journal that writes to it when the test says so."""

    def __init__(self) -> None:
        self.sessions: dict[int, tuple[Expiry | None, int]] = {}
        self.keys: dict[int, Keys] = {NO_TOKEN: {}}
        self._due: list[Callable[[], None]] = []
        self._writing: list[tuple[ChangeSet, Callable[[str | None], None]]] = []
        self.journal = Journal(
            lambda changed, written: self._writing.append((changed, written)),
            lambda _, action: self._due.append(action),
        )

    def send(self) -> None:
        """End the turn of the event loop: what has changed in it goes to the disk."""
        due, self._due = self._due, []
        for action in due:
            action()

    @property
    def is_writing(self) -> bool:
        """Whether a batch is on its way to the disk."""
        return bool(self._writing)

    def succeed(self) -> None:
        """Let the batch that is being written be written."""
        changed, written = self._writing.pop()
        self._apply(changed)
        written(None)

    def fail(self, trouble: str = "the disk is full") -> None:
        """Let the batch that is being written not be written."""
        _, written = self._writing.pop()
        written(trouble)

    def settle(self) -> None:
        """Write everything."""
        self.send()
        while self._writing:
            self.succeed()
            self.send()

    def _apply(self, changed: ChangeSet) -> None:
        for token, moved in changed.moved.items():
            for key in moved:
                self.keys[token][key] = self.keys[token].pop(key)
        if changed.all_ended:
            self.sessions.clear()
            self.keys = {NO_TOKEN: self.keys[NO_TOKEN]}
        for token in changed.ended:
            self.sessions.pop(token, None)
            self.keys.pop(token, None)
        for row in changed.rows:
            token = unsigned(row[0])
            assert signed(token) == row[0]
            self.sessions[token] = (expiry_of(row), deadline_of(row))
            if row[-1] is not None:
                self.keys[token] = unpacked(row[-1])
        for token, change in changed.maps.items():
            keys = {} if change.clear else self.keys[token]
            for key in change.removed:
                keys.pop(key, None)
            keys.update((key, bytes(value)) for key, value in change.put.items())
            self.keys[token] = keys


def unpacked(packed: Raw) -> Keys:
    """Return the keys of a row, as bytes."""
    return {key: bytes(value) for key, value in unpack(bytes(packed)).items()}
