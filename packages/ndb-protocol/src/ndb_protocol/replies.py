"""Replies: typed replies to message bytes."""

import msgspec

from .messages import ExistReply, InfoReply, Reply, TokenReply

_encode = msgspec.json.Encoder().encode


def encode_reply(name: str, reply: Reply) -> bytes:
    """Return the message that carries `reply` under the member `name`."""
    return b'{"%b":%b}' % (name.encode(), _encode(reply))


def with_text_tokens(reply: Reply) -> Reply:
    """Return `reply` as subprotocol ``ndb.v1.text`` has it: tokens are decimal strings."""
    if isinstance(reply, TokenReply | InfoReply):
        return msgspec.structs.replace(reply, tkn=str(reply.tkn))
    if isinstance(reply, ExistReply):
        return msgspec.structs.replace(reply, exist=[str(token) for token in reply.exist])
    return reply
