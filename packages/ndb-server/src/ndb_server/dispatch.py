"""Message bytes to reply bytes: no clock, no I/O, no knowledge of who asks.

A handler answers at once, or with an awaitable when the answer takes a thread or, one day, another
machine. In the first case nothing here costs a coroutine.
"""

import logging
import secrets
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
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
from ndb_protocol.messages import Reply
from ndb_protocol.replies import encode_body, reply_opening
from ndb_protocol.requests import BEGINNING, NO_COMMAND, SHORT_WAY, UNREADABLE

from .errors import RefusedError
from .nesting import nests_deeper

logger = logging.getLogger(__name__)

Handler = Callable[[Any, int], Reply | Awaitable[Reply]]
"""Runs a command, given its parameters and the time in ms since the epoch."""

NOT_TEXT = encode_reply(
    NO_COMMAND,
    Reply(
        st=Status.OP_CODE_INVALID,
        m="the message is binary; send each request as a text message",
    ),
)
"""The answer to a binary message."""


_TOO_DEEP = encode_reply(
    NO_COMMAND,
    Reply(st=Status.JSON_INVALID, m="the message nests arrays and objects too deeply"),
)

ENOUGH = 2**18
"""Bytes of replies after which no further request is run at once."""


class Dispatcher:
    """Answers messages.

    Args:
        handlers: runs each command, by its name.
        depth: how deep arrays and objects of a message may nest.

    Attributes:
        too_deep: how many messages nested deeper.
    """

    def __init__(self, handlers: Mapping[str, Handler], depth: int = sys.maxsize) -> None:
        self._depth = depth
        self.too_deep = 0
        self._rows = {
            name: (handler, reply_opening(COMMANDS[name].reply_name), COMMANDS[name])
            for name, handler in handlers.items()
        }
        self._short_way = {
            beginning: (decode, *self._rows[command.name])
            for beginning, (command, decode) in SHORT_WAY.items()
            if command.name in handlers
        }

    def dispatch(
        self, messages: Iterable[bytes], now: int, text_tokens: bool = False
    ) -> list[bytes | Awaitable[bytes]]:
        """Run the requests that `messages` (valid UTF-8) are, in their order.

        Stops behind one that is answered later, as those that follow have to wait for it, and once
        the replies come to `ENOUGH` bytes, so that who asks and does not read is noticed.

        Args:
            messages: the text messages.
            now: the time in ms since the epoch; never less than at an earlier call.
            text_tokens: write tokens as decimal strings (subprotocol ``ndb.v1.text``).

        Returns:
            The replies to those that were run. The last one may come later.
        """
        replies: list[bytes | Awaitable[bytes]] = []
        size = 0
        short_way = self._short_way
        # A shorter one can't nest as deep: what begins has to end.
        suspect = self._depth * 2
        for message in messages:
            if len(message) > suspect and nests_deeper(message, self._depth):
                self.too_deep += 1
                replies.append(_TOO_DEEP)
                continue
            try:
                decode, handler, opening, command = short_way[message[BEGINNING]]
                params = decode(message).params
            except UNREADABLE:
                try:
                    command, params = decode_request(message)
                except RequestError as error:
                    refusal = Reply(st=error.status, m=error.message)
                    replies.append(encode_reply(error.reply_name, refusal))
                    continue
                handler, opening, _ = self._rows[command.name]
            try:
                reply = handler(params, now)
                if not isinstance(reply, Reply):
                    replies.append(_later(command, reply, text_tokens))
                    break
                if text_tokens:
                    reply = with_text_tokens(reply)
                text = opening + encode_body(reply) + b"}"
            except Exception as error:
                text = _refusal(command, error)
            replies.append(text)
            size += len(text)
            if size >= ENOUGH:
                break
        return replies


async def _later(command: Command, coming: Awaitable[Reply], text_tokens: bool) -> bytes:
    try:
        reply = await coming
        return encode_reply(command.reply_name, with_text_tokens(reply) if text_tokens else reply)
    except Exception as error:
        return _refusal(command, error)


def _refusal(command: Command, error: Exception) -> bytes:
    if isinstance(error, RefusedError):
        return encode_reply(command.reply_name, Reply(st=error.status, m=error.message))
    incident = secrets.token_hex(4)
    logger.error("internal error %s in %s\n%s", incident, command.name, _trace(error))
    return encode_reply(
        command.reply_name,
        Reply(st=Status.UNKNOWN, m=f"internal error {incident}; the server's log has the cause"),
    )


def _trace(error: BaseException) -> str:
    """Say where `error` was raised, and what led to it, without a token or a value.

    An exception's message may hold one; its type and the lines of code do not.
    """
    lines = ["Traceback (most recent call last):\n"]
    cause: BaseException | None = error
    while cause is not None:
        lines += [*traceback.format_tb(cause.__traceback__), f"{type(cause).__name__}\n"]
        cause = cause.__cause__ or cause.__context__
    return "".join(lines)
