"""The seam behind the engine: what changed, told in the order in which it changed."""

from typing import Protocol

from ndb_protocol.messages import Expiry

from .edits import Edit


class Journal(Protocol):
    """Takes every change the engine makes; replaying them makes the same store again.

    Deadlines are milliseconds since the epoch. The independent keys are told of as those of
    `ndb_protocol.NO_TOKEN`, which is no session's token.
    """

    def created(self, token: int, expiry: Expiry | None, deadline: int) -> None:
        """A session began, without keys."""

    def edited(self, token: int, edit: Edit) -> None:
        """Keys changed."""

    def extended(self, token: int, deadline: int) -> None:
        """A session's deadline moved."""

    def ended(self, token: int) -> None:
        """A session went, with its keys."""

    def ended_all(self) -> None:
        """Every session went, with its keys."""
