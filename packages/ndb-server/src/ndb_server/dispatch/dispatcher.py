"""Message bytes to reply bytes, without a clock, I/O or knowledge of the client.

A handler answers at once, or with an awaitable if the answer needs a thread (or, in future, another
machine). In the first case no coroutine is created.
"""

import logging
import secrets
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ndb_protocol import (
    COMMANDS,
    Command,
    RequestError,
    Status,
    decode_request,
    encode_reply,
    with_text_tokens,
)
from ndb_protocol.messages import DONE, Reply
from ndb_protocol.replies import encode_body_into, reply_opening
from ndb_protocol.requests import BEGINNING, NO_COMMAND, SHORT_WAY, UNREADABLE

from ..errors import RefusedError, trace_of
from ..interfaces import CommitGate, Handler, Journal, PendingBatch, StepCounter, TokenCounter
from ..json_depth import nests_deeper
from ..path_size import PathTooLargeError, check_path_size

logger = logging.getLogger("ndb_server.dispatch")

_OK = int(Status.OK)


class _Uncounted:
    unknown_tokens = total = 0


class RefusalHandler:
    """A handler that refuses a command instead of running it.

    Args:
        status: why.
        sentence: why, for a human.
    """

    def __init__(self, status: Status, sentence: str) -> None:
        self._status = status
        self._sentence = sentence

    def __call__(self, _: Any, __: int) -> Reply:
        raise RefusedError(self._status, self._sentence)


Note = Callable[[Command | None, int], Any]
"""Returns what to note of a request: of its command, if it names one, and its reply's status."""

Amend = Callable[[Any, Any], None]
"""Takes back what was noted of a request, the first, and notes the second."""

NOT_TEXT = encode_reply(
    NO_COMMAND,
    Reply(
        st=Status.OP_CODE_INVALID,
        m="the message is binary; send each request as a text message",
    ),
)
"""The answer to a binary message."""


NOT_DURABLE = Reply(
    st=Status.NOT_DURABLE,
    m="the change could not be made durable, so it was not made; the server's log says why",
)

_TOO_DEEP = encode_reply(
    NO_COMMAND,
    Reply(st=Status.JSON_INVALID, m="the message nests arrays and objects too deeply"),
)

MAX_REPLY_BYTES = 2**18
"""Bytes of replies after which no further request is run at once."""

MAX_STEPS = 10_000
"""Steps through values after which no further request is run at once: some 10 ms of work."""


class Dispatcher:
    """Answers messages.

    Args:
        handlers: the function that runs each command, by the command's name.
        journal: tells which replies have to wait until a change is durable; None if none has to.
        note: returns the note to keep of a request, for the metrics.
        amend: is told when a reply was replaced by another before it was sent.
        depth: how deep arrays and objects of a message may nest.
        steps: counts the steps that requests take through values.
        counting: counts the unknown tokens that requests ask for; None if none can.

    Attributes:
        too_deep: how many messages nested deeper.
        large_paths: how many paths exceeded each limit on paths.
        out_of_memory: how many requests failed because memory ran out.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        journal: Journal | None = None,
        note: Note = lambda *_: None,
        amend: Amend = lambda *_: None,
        depth: int = sys.maxsize,
        steps: StepCounter | None = None,
        counting: TokenCounter | None = None,
    ) -> None:
        self._unsettled: Sequence[object] = () if journal is None else journal.pending
        self._awaited = _nothing if journal is None else journal.pending_batch
        self._newest = _nothing if journal is None else journal.open_batch
        self._note = note
        self._amend = amend
        self._depth = depth
        self._steps = _Uncounted() if steps is None else steps
        self._counting = _Uncounted() if counting is None else counting
        self._body = bytearray()
        self.too_deep = 0
        self.large_paths: Counter[str] = Counter()
        self._handlers = handlers
        self.out_of_memory = 0
        self._rows = {
            name: (
                self._bounded(handler) if "path" in command.params.__struct_fields__ else handler,
                reply_opening(command.reply_name),
                encode_reply(command.reply_name, DONE),
                command,
                note(command, _OK),
            )
            for name, handler in handlers.items()
            for command in [COMMANDS[name]]
        }
        self._short_way = {
            beginning: (decode, *self._rows[command.name])
            for beginning, (command, decode) in SHORT_WAY.items()
            if command.name in handlers
        }

    def _bounded(self, handler: Handler) -> Handler:
        """Return a handler that refuses a path that is too large before anything else."""

        def run(params: Any, now: int) -> Reply | Awaitable[Reply]:
            try:
                check_path_size(params.path)
            except PathTooLargeError as error:
                self.large_paths[error.limit] += 1
                raise
            return handler(params, now)

        return run

    def dispatch(
        self,
        messages: Sequence[bytes],
        now: int,
        text_tokens: bool = False,
        notes: list[Any] | None = None,
    ) -> tuple[list[bytes | Awaitable[bytes]], CommitGate | None]:
        """Run the requests that `messages` (valid UTF-8) are, in their order.

        Stops behind one that is answered later, because those that follow have to wait for it;
        behind one that asks for an unknown token, because its reply may be delayed; once the
        replies have `MAX_REPLY_BYTES` bytes, so that a client that does not read is noticed; and
        once they took `MAX_STEPS` steps, so that other clients do not wait long.

        Args:
            messages: the text messages.
            now: the time in ms since the epoch; never less than at an earlier call.
            text_tokens: write tokens as decimal strings (subprotocol ``ndb.v1.text``).
            notes: where to add, if given, the note of each request; later if it comes later.

        Returns:
            The replies to those that were run; the last one may come later. And what those from
            one on have to wait for, if they have to.
        """
        replies: list[bytes | Awaitable[bytes]] = []
        unsettled, newest = self._unsettled, self._newest()
        batch: PendingBatch | None = None
        first = 0
        size = 0
        short_way = self._short_way
        body = self._body
        steps = self._steps
        steps_until = steps.total + MAX_STEPS
        counting = self._counting
        unknown = counting.unknown_tokens
        # A shorter one can't nest as deep: what begins has to end.
        suspect = self._depth * 2
        for message in messages:
            if len(message) > suspect and nests_deeper(message, self._depth):
                self.too_deep += 1
                if notes is not None:
                    notes.append(self._note(None, Status.JSON_INVALID))
                replies.append(_TOO_DEEP)
                continue
            try:
                decode, handler, opening, done, command, noted = short_way[message[BEGINNING]]
                params = decode(message).params
            except UNREADABLE:
                try:
                    command, params = decode_request(message)
                except RequestError as error:
                    if notes is not None:
                        named = COMMANDS.get(error.reply_name.removesuffix("_RSP"))
                        notes.append(self._note(named, error.status))
                    refusal = Reply(st=error.status, m=error.message)
                    replies.append(encode_reply(error.reply_name, refusal))
                    continue
                handler, opening, done, _, noted = self._rows[command.name]
            try:
                reply = handler(params, now)
                if reply is DONE:
                    status, text = _OK, done
                elif isinstance(reply, Reply):
                    status = reply.st
                    if text_tokens:
                        reply = with_text_tokens(reply)
                    encode_body_into(reply, body)
                    text = opening + body + b"}"
                else:
                    replies.append(self._later(command, reply, text_tokens, notes))
                    break
            except Exception as error:
                status, text = self._refusal(command, error)
            if notes is not None:
                notes.append(noted if status == _OK else self._note(command, status))
            if unsettled and batch is not newest:
                awaited = self._awaited(command.scope, params)
                if awaited is not None:
                    if batch is None:
                        first = len(replies)
                    batch = awaited
            replies.append(text)
            size += len(text)
            if (
                size >= MAX_REPLY_BYTES
                or steps.total >= steps_until
                or counting.unknown_tokens != unknown
            ):
                break
        if batch is None:
            return replies, None
        instead = partial(self._instead, messages, text_tokens, notes)
        return replies, CommitGate(first, batch, instead, notes)

    def _instead(
        self,
        messages: Sequence[bytes],
        text_tokens: bool,
        notes: list[Any] | None,
        number: int,
        now: int,
    ) -> bytes:
        """Return the reply to a message whose batch was undone: what was read is read again.

        A change that might have been made was not; one that nobody may ask for is still that.
        """
        message = messages[number]
        again: list[Any] = []
        reply = self._refused(message, again) or self._reread(message, now, text_tokens, again)
        if notes is not None:
            self._amend(notes[number], again[0])
        return reply

    def _refused(self, message: bytes, notes: list[Any]) -> bytes | None:
        """Return the reply to a message that asks for a change, which was undone."""
        if not nests_deeper(message, self._depth):
            with suppress(RequestError):
                command, _ = decode_request(message)
                if command.changes and not isinstance(self._handlers[command.name], RefusalHandler):
                    notes.append(self._note(command, NOT_DURABLE.st))
                    return encode_reply(command.reply_name, NOT_DURABLE)
        return None

    def _reread(self, message: bytes, now: int, text_tokens: bool, notes: list[Any]) -> bytes:
        [reply], _ = self.dispatch([message], now, text_tokens, notes)
        assert isinstance(reply, bytes)
        return reply

    async def _later(
        self,
        command: Command,
        coming: Awaitable[Reply],
        text_tokens: bool,
        notes: list[Any] | None,
    ) -> bytes:
        try:
            reply = await coming
            status = reply.st
            if text_tokens:
                reply = with_text_tokens(reply)
            text = encode_reply(command.reply_name, reply)
        except Exception as error:
            status, text = self._refusal(command, error)
        if notes is not None:
            notes.append(self._note(command, status))
        return text

    def _refusal(self, command: Command, error: Exception) -> tuple[int, bytes]:
        if isinstance(error, RefusedError):
            refusal = Reply(st=error.status, m=error.message)
        elif isinstance(error, MemoryError):
            # Counted and not logged: there may be many.
            self.out_of_memory += 1
            refusal = Reply(st=Status.UNKNOWN, m="the server ran out of memory")
        else:
            incident = secrets.token_hex(4)
            logger.error("internal error %s in %s\n%s", incident, command.name, trace_of(error))
            sentence = f"internal error {incident}; the server's log has the cause"
            refusal = Reply(st=Status.UNKNOWN, m=sentence)
        return refusal.st, encode_reply(command.reply_name, refusal)


def _nothing(*_: object) -> None:
    """What waits for nothing."""
