"""The messages of the conformance vectors, and the statuses that messages are answered with."""

import re
from typing import Protocol, runtime_checkable

from ndb_protocol import NO_TOKEN, RequestError, Status, decode_request, parse_token
from ndb_protocol.vectors import Exchange, load_vectors

NOT_BY_TEXT = {
    Status.OP_CODE_INVALID,
    Status.SESSION_NEW_FAIL,
    Status.SAVE_ERROR,
    Status.LIMIT_EXCEEDED,
    Status.NOT_DURABLE,
    Status.UNKNOWN,
}
"""Statuses that no text message provokes of every server; the README names them."""


@runtime_checkable
class HasToken(Protocol):
    tkn: int


SAMPLES = {
    "any:string": '"text"',
    "any:uint": "0",
    "any:boolean": "true",
    "any:array": '["text"]',
    "any:object": '{"messageSize":1,"writeTimeout":0.5}',
}


def filled(text: str) -> str:
    """Return a message of a vector with something for each placeholder."""

    def sample(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith("tkn"):
            return "18446744073709551615"
        return '"a sentence"' if name.startswith("naming:") else SAMPLES[name]

    return re.sub(r"\{\{((?:tkn|any:|naming:)\w+)\}\}", sample, text)


EXCHANGES = [
    step for vector in load_vectors() for step in vector.steps if isinstance(step, Exchange)
]
# Many vectors begin alike.
SENT = sorted({filled(exchange.send) for exchange in EXCHANGES})
EXPECTED = sorted({filled(exchange.expect) for exchange in EXCHANGES})


def refusal(message: str) -> Status | None:
    """Return the status by which the codec refuses a request, if it does.

    A token that is none goes through the codec, and is refused behind it.
    """
    try:
        _, params = decode_request(message.encode())
    except RequestError as error:
        return error.status
    if isinstance(params, HasToken) and parse_token(params.tkn) == NO_TOKEN:
        return Status.SESSION_NOT_EXIST
    return None
