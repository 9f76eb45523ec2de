"""The wire protocol of NDB: messages, status values, tokens and the codec of both sides."""

from .commands import COMMANDS, COMMON_STATUSES, Command, Extends, Role, Scope
from .replies import ReplyError, UnreadableValue, decode_reply, encode_reply, with_text_tokens
from .requests import RequestError, decode_request, encode_request
from .status import SUCCESS, Status
from .subprotocols import DEFAULT_PORT, NDB_V1, NDB_V1_TEXT, PROTOCOL_VERSION
from .tokens import NO_TOKEN, TOKEN_MAX, new_token, parse_token

__version__ = "0.1.0"

__all__ = [
    "COMMANDS",
    "COMMON_STATUSES",
    "DEFAULT_PORT",
    "NDB_V1",
    "NDB_V1_TEXT",
    "NO_TOKEN",
    "PROTOCOL_VERSION",
    "SUCCESS",
    "TOKEN_MAX",
    "Command",
    "Extends",
    "ReplyError",
    "RequestError",
    "Role",
    "Scope",
    "Status",
    "UnreadableValue",
    "decode_reply",
    "decode_request",
    "encode_reply",
    "encode_request",
    "new_token",
    "parse_token",
    "with_text_tokens",
]
