"""The client without its connection: requests, and the replies that belong to them.

Pure: no I/O, no clock, no event loop. An asyncio or a blocking client can be built on it.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from ndb_protocol import (
    COMMANDS,
    SUCCESS,
    ReplyError,
    Status,
    UnreadableValue,
    decode_reply,
    encode_request,
    parse_token,
)

from .errors import (
    ConnectionLost,
    NdbException,
    RequestTimeout,
    ResponseError,
    UnreadableReply,
    refusal,
)

logger = logging.getLogger("ndb")

T = TypeVar("T")
Params = dict[str, Any]
Body = dict[str, Any]


class OutOfStep(NdbException):
    """A sign that the next reply may be another request's: the connection can't be trusted."""


class StrayReply(OutOfStep, UnreadableReply):
    """What came is no reply, or the reply to another request."""


class StrayRefusal(OutOfStep, ResponseError):
    """The refusal of a request as the server never got it from here, or of another's."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do, as it has said.

    Attributes:
        pipelining: it answers every request, in their order, however many are in flight. What is
            not known to do so is asked one thing at a time: NemesisDB drops replies while many are
            unread, and then the next would be taken for those.
        message_size: the most bytes of a message that it takes.
    """

    pipelining: bool
    message_size: float = math.inf


class Waiter(Protocol):
    """Who waits for a reply, such as a future."""

    def done(self) -> bool:
        """Tell whether it has stopped waiting."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Tell it the result."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Tell it what went wrong."""
        ...


def _raise(error: ResponseError) -> NoReturn:
    raise error


# Not frozen: that would take longer to make than the request takes to encode.
@dataclass(slots=True, repr=False)
class Request(Generic[T]):
    """A request, and how its reply becomes a result.

    Nothing but the command is in its ``repr``: the rest is secret, and crash reporters show it.

    Attributes:
        command: the name of the command.
        params: its parameters.
        result: turns the body of a successful reply into the result; is told the parameters, too.
        refused: turns a refusal into the result; raises it, unless the request says otherwise.
        done: the refusal of a request sent again that says that it was executed the first time.
        message: what is sent; set when the request is made, as are the next two.
        waiter: who waits for the result.
        deadline: when a sweep ends the wait, by any clock; `math.inf` = something else does.
        sendings: how many times it was handed to the socket.
    """

    command: str
    params: Params
    result: Callable[[Body, Params], T]
    refused: Callable[[ResponseError], T] = _raise
    done: Status | None = None
    message: bytes = field(init=False)
    waiter: Waiter = field(init=False)
    deadline: float = field(init=False)
    sendings: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"<Request {self.command}>"

    def encode(self) -> bytes:
        """Return the message to send.

        Raises:
            ValueError: a parameter has no exact JSON form; the message names its place.
        """
        try:
            return encode_request(self.command, self.params)
        except ValueError as error:
            problem = str(error)
        # Anew, for the frames of the other hold the parameters.
        raise ValueError(problem)

    def outcome(self, message: str, *, alone: bool = False) -> T:
        """Return the result, given the text of the reply.

        Args:
            message: the text.
            alone: no other request was in flight, so a refusal under any name is that of this one.
                NemesisDB refuses commands that it does not know under the name of another.

        Raises:
            ResponseError: the server refused the request.
            OutOfStep: no further reply can be trusted to be the one it should be.
            UnreadableReply: `message` is not a reply to this command, or has a value that Python
                can't hold.
        """
        try:
            name, body = decode_reply(message)
        except UnreadableValue as error:
            raise UnreadableReply(f"the reply to {self.command} can't be read: {error}") from None
        except ReplyError as error:
            raise StrayReply(f"the reply to {self.command} can't be read: {error}") from None
        status = body["st"]
        logger.debug("%s: status %d", self.command, status)
        own_name = name == f"{self.command}_RSP"
        if status not in SUCCESS:
            if not own_name and not alone:
                raise StrayRefusal(self.command, body)
            if status == self.done and self.sendings > 1:
                return self.result(body, self.params)
            return self.refused(refusal(self.command, body))
        if not own_name:
            raise StrayReply(f"{self.command} was answered by {name[:64]!a}")
        try:
            asked = self.params
            # Nearly no reply has a token.
            if "tkn" in body and "tkn" in asked and parse_token(body["tkn"]) != asked["tkn"]:
                raise StrayReply(f"{self.command} was answered for another session")
            return self.result(body, asked)
        except KeyError as error:
            raise UnreadableReply(f"the reply to {self.command} has no member {error}") from None
        except (AttributeError, TypeError, ValueError):
            # What it is does not matter, and may hold a value.
            raise UnreadableReply(
                f"the reply to {self.command} has a member of the wrong type"
            ) from None


class Pipeline:
    """The requests of a client, and whose reply is whose.

    Replies come in the order in which the requests were sent (on one connection). The pipeline
    outlives connections: what is in flight when one is lost is sent again on the next, in its
    order and in front of what was not sent yet, if the command may be repeated and this is the
    first time. So nothing is ever sent more than twice.
    """

    def __init__(self) -> None:
        self._unsent: deque[Request[Any]] = deque()
        self._in_flight: deque[Request[Any]] = deque()
        self._capabilities = Capabilities(pipelining=False)

    @property
    def is_stuck(self) -> bool:
        """Whether nothing is sent for a reply that nobody waits for any more."""
        return (
            not self._capabilities.pipelining
            and bool(self._in_flight)
            and self._in_flight[0].waiter.done()
        )

    def connected(self, capabilities: Capabilities) -> None:
        """Send to another server from now on."""
        self._capabilities = capabilities

    def add(self, request: Request[Any]) -> int:
        """Line up a request to be sent; return how many wait to be."""
        unsent = self._unsent
        unsent.append(request)
        return len(unsent)

    def take(self, size: int) -> list[bytes]:
        """Return the next messages to send, at least one and up to `size` bytes if there are any.

        They count as sent. A request nobody waits for any more is dropped, and so is one that is
        larger than the server takes, whose waiter is told.
        """
        unsent, in_flight = self._unsent, self._in_flight
        most = math.inf if self._capabilities.pipelining else 1
        largest = self._capabilities.message_size
        messages: list[bytes] = []
        while unsent and size > 0 and len(in_flight) < most:
            request = unsent.popleft()
            if request.waiter.done():
                continue
            message = request.message
            if len(message) > largest:
                self._refuse(request)
                continue
            messages.append(message)
            size -= len(message)
            request.sendings += 1
            in_flight.append(request)
        return messages

    def _refuse(self, request: Request[Any]) -> None:
        reason = (
            f"the request has {len(request.message):,} bytes, and the server takes at most "
            f"{self._capabilities.message_size:,} (limits.messageSize in SV_INFO)"
        )
        if request.sendings:
            # By another server, which took more.
            _fail(request, ConnectionLost(reason, maybe_executed=True))
        else:
            _fail(request, ValueError(f"{reason}; send less at once"))

    def answer(self, reply: str) -> None:
        """Give a reply to who waits for it, if anyone still does.

        Raises:
            OutOfStep: it belongs to no request, or shows that the next ones can't be trusted to
                be whose they should be. Who waited for it has been told.
        """
        if not self._in_flight:
            raise StrayReply("a reply came that answers no request")
        request = self._in_flight.popleft()
        try:
            result = request.outcome(reply, alone=not self._capabilities.pipelining)
        except Exception as error:
            # Without its frames, for they hold the reply.
            _fail(request, error.with_traceback(None))
            if isinstance(error, OutOfStep):
                raise OutOfStep(str(error)) from None
        else:
            if not request.waiter.done():
                request.waiter.set_result(result)

    def lost(self, reason: str, *, too_big: bool = False) -> None:
        """Line up again what may be sent again, now that the connection is lost.

        Who waits for what may not be is told that the connection was lost.

        Args:
            reason: why the connection was lost.
            too_big: it was lost because of the size of the first message in flight, which would
                have the same effect again.
        """
        repeated: list[Request[Any]] = []
        for number, request in enumerate(self._in_flight):
            again = request.sendings == 1 and COMMANDS[request.command].repeatable
            if again and not (too_big and number == 0):
                repeated.append(request)
            else:
                _fail(request, ConnectionLost(reason, maybe_executed=True))
        self._in_flight.clear()
        self._unsent.extendleft(reversed(repeated))

    def abandon(self, reason: str) -> None:
        """Tell everyone who waits that the connection is lost for good, and forget all."""
        for request in chain(self._in_flight, self._unsent):
            _fail(request, ConnectionLost(reason, maybe_executed=request.sendings > 0))
        self._in_flight.clear()
        self._unsent.clear()

    def sweep(self, now: float, seconds: float, trouble: str | None) -> float:
        """End the wait for replies whose deadline has passed.

        The deadlines that are swept have to be in the order of the requests.

        Args:
            now: the time, by the clock of the deadlines.
            seconds: how long the requests were given, for the error.
            trouble: why nothing is sent at the moment, for the error.

        Returns:
            The next deadline; `math.inf` if there is none.
        """
        # Nobody waits for these; while no connection can be made, nothing else would forget them.
        while self._unsent and self._unsent[0].waiter.done():
            self._unsent.popleft()
        for request in chain(self._in_flight, self._unsent):
            if request.deadline == math.inf or request.waiter.done():
                continue
            if request.deadline > now:
                return request.deadline
            expire(request, seconds, trouble)
        return math.inf


def expire(request: Request[Any], seconds: float, trouble: str | None) -> None:
    """End the wait for the reply to `request`."""
    sent = request.sendings > 0
    _fail(request, RequestTimeout(seconds, maybe_executed=sent, trouble=trouble))


def _fail(request: Request[Any], error: Exception) -> None:
    if not request.waiter.done():
        request.waiter.set_exception(error)
