"""Sessions as the server keeps them in memory."""

from functools import lru_cache

from msgspec import Struct
from ndb_protocol.messages import Expiry

from .keymap import Packed

NEVER = 2**62
"""The deadline of a session that does not expire: later than any time there is."""


class Session(Struct, gc=False):
    """A session: its settings (None if it never expires), its deadline and its keys, packed."""

    expiry: Expiry | None
    deadline: int
    packed: Packed


@lru_cache(maxsize=1024)
def _shared(
    duration: int, delete_session: bool, extend_on_set_add: bool, extend_on_get: bool
) -> Expiry:
    return Expiry(
        duration=duration,
        deleteSession=delete_session,
        extendOnSetAdd=extend_on_set_add,
        extendOnGet=extend_on_get,
    )


def settings(expiry: Expiry) -> Expiry | None:
    """Return `expiry` as a session holds it: None if it says never, else shared by those alike.

    A service makes its sessions with few different settings, and an object of its own for each
    session would be a fifth of its memory.
    """
    if expiry.duration == 0:
        return None
    return _shared(expiry.duration, expiry.deleteSession, expiry.extendOnSetAdd, expiry.extendOnGet)


def deadline_after(expiry: Expiry | None, now: int) -> int:
    """Return the deadline in ms of a period of `expiry` that begins at `now`."""
    return NEVER if expiry is None else now + expiry.duration * 1000
