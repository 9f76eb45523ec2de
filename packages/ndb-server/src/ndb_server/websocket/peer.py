"""The identity of the other end of a connection."""

import asyncio
import socket
import struct
from typing import NamedTuple

from ..addresses import shown_address

_CREDENTIALS = struct.Struct("3i")
"""The process, the user and the group that SO_PEERCRED tells (unix(7))."""


class Peer(NamedTuple):
    """The other end of a connection.

    Attributes:
        address: the key by which clients are counted: an IP address, or the user of a client on a
            Unix socket.
        detail: distinguishes the clients with this address.
    """

    address: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{shown_address(self.address)} {self.detail}" if self.address else "nowhere"


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Return who is at the other end of `transport`."""
    place = transport.get_extra_info("peername")
    if isinstance(place, tuple):
        return Peer(str(place[0]), f"port {place[1]}")
    one = transport.get_extra_info("socket")
    if one is None or one.family != socket.AF_UNIX:
        # It has gone already.
        return Peer()
    if not hasattr(socket, "SO_PEERCRED"):
        # Where systems don't say who it is, all are one.
        return Peer("unix", "socket")
    told = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(told)
    return Peer(f"uid {uid}", f"pid {pid}")
