"""What the rooms of the server hand each other."""

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct
from ndb_protocol import Scope
from ndb_protocol.messages import Params, Reply

Handler = Callable[[Any, int], Reply | Awaitable[Reply]]
"""Runs a command, given its parameters and the time in ms since the epoch."""


class BatchWaiter(Protocol):
    """Waits for batches of changes."""

    @property
    def gates(self) -> "Iterable[CommitGate]":
        """What its replies wait for."""
        ...

    def batch_done(self) -> None:
        """A batch has become durable, or was undone."""


class PendingBatch(Protocol):
    """Changes on their way to the disk.

    Attributes:
        waiters: who is called when the batch is committed or undone.
        committed: None while the batch is not finished; then whether it is on disk.
    """

    waiters: dict[BatchWaiter, None]
    committed: bool | None


class Journal(Protocol):
    """Tells which replies have to wait until a change is durable.

    Attributes:
        pending: the batches that replies wait for, newest first.
    """

    @property
    def pending(self) -> Sequence[PendingBatch]:
        """The batches that replies wait for, newest first."""
        ...

    def open_batch(self) -> PendingBatch | None:
        """Return the batch that gathers changes: none is newer."""

    def pending_batch(self, scope: Scope, params: Params) -> PendingBatch | None:
        """Return the batch that has to be done before the reply to a request may leave."""


class CommitGate(Struct, gc=False):
    """Holds replies of one read until a batch is committed or undone.

    Attributes:
        first: the index of the first reply that is held.
        batch: the batch that the replies wait for.
        reply_if_undone: returns the reply to send if the batch was undone, given the index of the
            request and the time in ms. It is called once for each held reply.
        notes: the notes of the requests of that read for the metrics, if there are any.
    """

    first: int
    batch: PendingBatch
    reply_if_undone: Callable[[int, int], bytes]
    notes: list[Any] | None = None


Respond = Callable[
    [Sequence[bytes], int, bool], tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]
]
"""Answers text messages (valid UTF-8), given the time in ms and whether tokens are to be text.

It may stop early, but not before the first: it returns the replies to those that it has run. Only
the last of them may be one that comes later. Beside them it returns what they have to wait for.
"""


@dataclass(frozen=True, slots=True)
class ThrottledReply(Awaitable[bytes]):
    """A reply that comes later because its client asks for too much.

    Attributes:
        reply: the reply, in its time.
    """

    reply: Awaitable[bytes]

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self.reply.__await__()


class TokenCounter(Protocol):
    """Counts the unknown tokens that requests ask for."""

    unknown_tokens: int


class StepCounter(Protocol):
    """Counts the steps that requests take through values."""

    total: int
