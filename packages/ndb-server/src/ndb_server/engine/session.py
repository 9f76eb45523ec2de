"""Sessions in memory."""

from functools import lru_cache

from msgspec import Struct
from ndb_protocol.messages import Expiry

from .keymap import KeyMap

NEVER = 2**62
"""The deadline of a session that does not expire: later than any time."""


class Session(Struct, gc=False):
    """A session.

    Attributes:
        expiry: the settings of its expiry; None if it never expires.
        deadline: when it expires, in ms.
        keys: its keys.
    """

    expiry: Expiry | None
    deadline: int
    keys: KeyMap


@lru_cache(maxsize=1024)
def _interned(
    duration: int, delete_session: bool, extend_on_set_add: bool, extend_on_get: bool
) -> Expiry:
    return Expiry(
        duration=duration,
        deleteSession=delete_session,
        extendOnSetAdd=extend_on_set_add,
        extendOnGet=extend_on_get,
    )


def intern_expiry(expiry: Expiry) -> Expiry | None:
    """Return the one shared object that equals `expiry`; None if the duration is 0 (never).

    An application creates its sessions with few different settings. An object of its own for each
    session would take a fifth of the session's memory.
    """
    if expiry.duration == 0:
        return None
    return _interned(
        expiry.duration, expiry.deleteSession, expiry.extendOnSetAdd, expiry.extendOnGet
    )


def deadline_after(expiry: Expiry | None, now: int) -> int:
    """Return the deadline in ms of a period of `expiry` that begins at `now`."""
    return NEVER if expiry is None else now + expiry.duration * 1000
