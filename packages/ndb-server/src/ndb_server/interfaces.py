"""What the rooms of the server hand each other."""

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct
from ndb_protocol import Scope
from ndb_protocol.messages import Params, Reply

Handler = Callable[[Any, int], Reply | Awaitable[Reply]]
"""Runs a command, given its parameters and the time in ms since the epoch."""


class Waiting(Protocol):
    """Waits for batches of changes."""

    @property
    def holds(self) -> "Iterable[Hold]":
        """What its replies wait for."""
        ...

    def settled(self) -> None:
        """A batch has become durable, or was undone."""


class PendingBatch(Protocol):
    """Changes on their way to the disk.

    Attributes:
        waiting: who is to be told when the batch is done.
        done: None while the batch is on its way; then whether it is on disk.
    """

    waiting: dict[Waiting, None]
    done: bool | None

    async def wait(self) -> bool | None:
        """Wait until the batch is done; return whether it is on disk."""


class Journal(Protocol):
    """Tells which replies have to wait until a change is durable.

    Attributes:
        unsettled: the batches that replies wait for, newest first.
    """

    @property
    def unsettled(self) -> Sequence[PendingBatch]:
        """The batches that replies wait for, newest first."""
        ...

    def open_batch(self) -> PendingBatch | None:
        """Return the batch that gathers changes: none is newer."""

    def awaited(self, scope: Scope, params: Params) -> PendingBatch | None:
        """Return the batch that has to be done before the reply to a request may leave."""


class Hold(Struct, gc=False):
    """What replies of one read wait for.

    Attributes:
        first: the number of the first of them.
        batch: what has to be done before they leave.
        instead: returns what to answer to a message if it was undone, given its number and the time
            in ms; to be asked once for each that is answered so.
        notes: what was noted of the requests of that read, if anything is.
    """

    first: int
    batch: PendingBatch
    instead: Callable[[int, int], bytes]
    notes: list[Any] | None = None


Respond = Callable[
    [Sequence[bytes], int, bool], tuple[Sequence[bytes | Awaitable[bytes]], Hold | None]
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

    spent: int
