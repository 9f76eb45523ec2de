"""A store made from nothing but what a journal is told."""

from typing import Any

from ndb_protocol import NO_TOKEN
from ndb_protocol.messages import Expiry
from ndb_server.edits import Edit

ReplicaSession = tuple[Expiry | None, int, dict[str, bytes]]
"""Settings, deadline and keys."""


class Replica:
    """A journal that remembers what it is told; `replay` makes plain dictionaries of it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def created(self, token: int, expiry: Expiry | None, deadline: int) -> None:
        self.told.append(("created", token, expiry, deadline))

    def edited(self, token: int, edit: Edit) -> None:
        self.told.append(("edited", token, edit))

    def extended(self, token: int, deadline: int) -> None:
        self.told.append(("extended", token, deadline))

    def ended(self, token: int) -> None:
        self.told.append(("ended", token))

    def ended_all(self) -> None:
        self.told.append(("ended_all",))


class Replay:
    """Sessions and independent keys, as far as a replica's memory has been replayed.

    A session that was told of twice, or changed after its end, is a `KeyError` or an
    `AssertionError`.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._done = 0
        self.sessions: dict[int, ReplicaSession] = {}
        self.keys: dict[str, bytes] = {}

    def catch_up(self) -> None:
        told = self._replica.told
        for event in told[self._done :]:
            match event:
                case ("created", token, expiry, deadline):
                    assert token not in self.sessions
                    self.sessions[token] = (expiry, deadline, {})
                case ("edited", token, edit):
                    self._edit(self.keys if token == NO_TOKEN else self.sessions[token][2], edit)
                case ("extended", token, deadline):
                    expiry, _, values = self.sessions[token]
                    self.sessions[token] = (expiry, deadline, values)
                case ("ended", token):
                    del self.sessions[token]
                case ("ended_all",):
                    self.sessions.clear()
                case _:
                    raise AssertionError(event)
        self._done = len(told)

    def _edit(self, values: dict[str, bytes], edit: Edit) -> None:
        if edit.clear:
            values.clear()
        for key in edit.remove:
            del values[key]
        values.update((key, bytes(value)) for key, value in edit.put.items())
