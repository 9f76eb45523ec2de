"""Asyncio client of the NDB session store."""

from ndb_protocol import Status, __version__

from .client import NdbClient
from .errors import (
    ConnectError,
    ConnectionLost,
    InvalidState,
    NdbException,
    RequestTimeout,
    ResponseError,
    SessionNotFound,
    UnreadableReply,
)
from .kvclient import KvClient
from .policy import ConnectionPolicy
from .session import Session
from .sessionclient import SessionClient

__all__ = [
    "ConnectError",
    "ConnectionLost",
    "ConnectionPolicy",
    "InvalidState",
    "KvClient",
    "NdbClient",
    "NdbException",
    "RequestTimeout",
    "ResponseError",
    "Session",
    "SessionClient",
    "SessionNotFound",
    "Status",
    "UnreadableReply",
    "__version__",
]
