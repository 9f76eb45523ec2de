"""The first request of a client on each connection: SV_INFO, to learn the server's features. Pure.

A client needs the answer before it uses anything that NemesisDB does not have.
"""

import math

from ndb_protocol import Status

from . import commands
from .core import Body, Capabilities
from .errors import ResponseError

_REQUEST = commands.server_info()

GREETING = _REQUEST.encode()
"""The message."""


_MISREAD = {Status.OP_CODE_INVALID, Status.JSON_INVALID, Status.COMMAND_SYNTAX}
"""What a server answers that has not got the message as it was sent."""


def read_greeting(reply: str) -> Capabilities:
    """Return what the server can do, given the text of its reply.

    Raises:
        NdbException: it is no reply to `GREETING`.
    """
    try:
        body = _REQUEST.outcome(reply, alone=True)
    except ResponseError as error:
        if error.status in _MISREAD:
            raise
        return Capabilities(pipelining=False)
    return Capabilities("protocol" in body, _message_size(body))


def _message_size(body: Body) -> float:
    match body:
        case {"limits": {"messageSize": int(size)}} if size > 0:
            return size
        case _:
            return math.inf
