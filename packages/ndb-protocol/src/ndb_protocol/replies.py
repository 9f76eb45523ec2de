"""Replies: typed replies to message bytes, and message text to Python values."""

from typing import Any

import msgspec
from msgspec import Raw

from .messages import ExistReply, InfoReply, Reply, TokenReply

_encoder = msgspec.json.Encoder()

encode_body = _encoder.encode
"""Returns the JSON text of a reply: what stands between its opening and a closing brace."""

encode_body_into = _encoder.encode_into
"""Puts that text into a `bytearray`. Where memory runs out, `encode_body` ends the process."""


def reply_opening(name: str) -> bytes:
    """Return how a message begins that carries a reply under the member `name`."""
    return b'{"%b":' % name.encode()


def encode_reply(name: str, reply: Reply) -> bytes:
    """Return the message that carries `reply` under the member `name`."""
    return reply_opening(name) + encode_body(reply) + b"}"


def with_text_tokens(reply: Reply) -> Reply:
    """Return `reply` as subprotocol ``ndb.v1.text`` has it: tokens are decimal strings."""
    if isinstance(reply, TokenReply | InfoReply):
        return msgspec.structs.replace(reply, tkn=str(reply.tkn))
    if isinstance(reply, ExistReply):
        return msgspec.structs.replace(reply, exist=[str(token) for token in reply.exist])
    return reply


class ReplyError(ValueError):
    """A message that is not a reply, or has a value that Python can't represent."""


class UnreadableValue(ReplyError):
    """A reply with a value that Python can't represent."""


_decode = msgspec.json.Decoder(dict[str, dict[str, Any]]).decode


def decode_reply(message: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return the name and the body of the reply that `message` is.

    Integers of any size are exact; a token is an integer or text, as the server wrote it.

    Raises:
        ReplyError: `message` is not an object with one member, which is an object with an integer
            ``st``.
        UnreadableValue: a value is out of range for Python or nests too deeply, and is named.
    """
    try:
        [(name, body)] = _decode(message).items()
        if type(body["st"]) is int:
            return name, body
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _unreadable(message, error) from None
    except (ValueError, KeyError):
        pass
    raise ReplyError("the message is not a reply: one object, with a status 'st', under one name")


_bodies = msgspec.json.Decoder(dict[str, dict[str, Raw]]).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_anything = msgspec.json.Decoder().decode


def _unreadable(message: str | bytes, error: Exception) -> ReplyError:
    """Return why `message` was not decoded, with the key whose value is at fault."""
    deep = isinstance(error, RecursionError)
    reason = "nests too deeply for this Python" if deep else str(error)
    kind = UnreadableValue if deep else ReplyError
    try:
        [body] = _bodies(message).values()
        kind = UnreadableValue
        values = _members(body["keys"])
    except (msgspec.MsgspecError, RecursionError, ValueError, KeyError):
        return kind(reason)
    for key, value in values.items():
        try:
            _anything(value)
        except (msgspec.MsgspecError, RecursionError):
            return kind(f"keys[{key!a}]: {reason}")
    return kind(reason)
