"""The client without its connection: requests, what becomes of their replies, and whose they are.

Pure: no I/O, no clock, no event loop. An asyncio and a blocking client can stand on it.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from ndb_protocol import SUCCESS, ReplyError, decode_reply, encode_request

from .errors import ResponseError, UnreadableReply

logger = logging.getLogger("ndb")

T = TypeVar("T")
Body = dict[str, Any]


class OutOfStep(UnreadableReply):
    """A reply that belongs to another request: the connection can't be trusted any more."""


def _raise(error: ResponseError) -> NoReturn:
    raise error


# Not frozen: that would take longer to make than the request takes to encode.
@dataclass(slots=True)
class Request(Generic[T]):
    """A request, and how its reply becomes a result.

    Attributes:
        command: the name of the command.
        params: its parameters.
        result: turns the body of a successful reply into the result.
        refused: turns a refusal into the result; raises it, unless the request says otherwise.
    """

    command: str
    params: dict[str, Any]
    result: Callable[[Body], T]
    refused: Callable[[ResponseError], T] = _raise

    def encode(self) -> bytes:
        """Return the message to send.

        Raises:
            ValueError: a parameter has no exact JSON form; the message names its place.
        """
        return encode_request(self.command, self.params)

    def outcome(self, message: str) -> T:
        """Return the result, given the text of the reply.

        Raises:
            ResponseError: the server refused the request.
            UnreadableReply: `message` is not a reply to this command, or has a value that Python
                can't hold.
        """
        try:
            name, body = decode_reply(message)
        except ReplyError as error:
            raise UnreadableReply(f"the reply to {self.command} can't be read: {error}") from None
        status = body["st"]
        logger.debug("%s: status %d", self.command, status)
        if status not in SUCCESS:
            # Under whatever name: it may be ``ERR``, and NemesisDB refuses commands that it does
            # not know under the name of the first of them.
            return self.refused(ResponseError(self.command, body))
        if name != f"{self.command}_RSP":
            raise OutOfStep(f"{self.command} was answered by {name[:64]!a}")
        try:
            return self.result(body)
        except KeyError as error:
            raise UnreadableReply(f"the reply to {self.command} has no member {error}") from None


class Waiter(Protocol):
    """Who waits for a reply, such as a future."""

    def done(self) -> bool:
        """Tell whether it has stopped waiting."""
        ...


W = TypeVar("W", bound=Waiter)


class Pipeline(Generic[W]):
    """Matches replies to requests: they come in the order in which the requests were sent."""

    def __init__(self) -> None:
        self._unsent: deque[tuple[bytes, W]] = deque()
        self._in_flight: deque[W] = deque()

    @property
    def unsent(self) -> int:
        """How many requests wait to be sent."""
        return len(self._unsent)

    def add(self, message: bytes, waiter: W) -> None:
        """Line up a request to be sent."""
        self._unsent.append((message, waiter))

    def take(self, size: int) -> list[bytes]:
        """Return the next messages to send, at least one and up to `size` bytes if there are any.

        They count as sent. A request whose waiter has stopped waiting is dropped.
        """
        messages: list[bytes] = []
        while self._unsent and size > 0:
            message, waiter = self._unsent.popleft()
            if not waiter.done():
                messages.append(message)
                size -= len(message)
                self._in_flight.append(waiter)
        return messages

    def answered(self) -> W | None:
        """Return whose reply has come, waiting or not; None if no reply was due."""
        return self._in_flight.popleft() if self._in_flight else None

    def is_sent(self, waiter: W) -> bool:
        """Tell whether the request of `waiter` was sent."""
        return all(waiter is not other for _, other in self._unsent)

    def abandon(self) -> tuple[list[W], list[W]]:
        """Return those still waiting for a reply, of requests sent and unsent, and forget all."""
        sent = [waiter for waiter in self._in_flight if not waiter.done()]
        unsent = [waiter for _, waiter in self._unsent if not waiter.done()]
        self._in_flight.clear()
        self._unsent.clear()
        return sent, unsent
