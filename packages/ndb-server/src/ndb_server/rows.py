"""A session as it is on disk: a row of numbers and the text of its keys."""

from msgspec import Raw
from ndb_protocol.messages import Expiry

from .sessions import NEVER, Session, settings

DELETE_SESSION, EXTEND_ON_SET_ADD, EXTEND_ON_GET = 1, 2, 4

Row = tuple[int, int, int, int | None, Raw | None]
"""Token (signed), duration in s, flags, deadline in ms or None, keys or None if not packed."""

_SIGN, _RANGE = 2**63, 2**64


def signed(token: int) -> int:
    """Return `token` as SQLite has it, whose integers are signed."""
    return token - _RANGE if token >= _SIGN else token


def unsigned(number: int) -> int:
    """Return the token that SQLite has as `number`."""
    return number + _RANGE if number < 0 else number


def row_of(token: int, session: Session) -> Row:
    """Return a session as its row."""
    packed, expiry = session.packed, session.expiry
    keys = Raw(packed) if type(packed) is bytes else None
    number = token - _RANGE if token >= _SIGN else token
    if expiry is None:
        return number, 0, 0, None, keys
    flags = (
        expiry.deleteSession * DELETE_SESSION
        + expiry.extendOnSetAdd * EXTEND_ON_SET_ADD
        + expiry.extendOnGet * EXTEND_ON_GET
    )
    return number, expiry.duration, flags, session.deadline, keys


def settings_of(row: Row) -> Expiry | None:
    """Return the settings of the session that is `row`."""
    _, duration, flags, _, _ = row
    return settings(
        Expiry(
            duration=duration,
            deleteSession=bool(flags & DELETE_SESSION),
            extendOnSetAdd=bool(flags & EXTEND_ON_SET_ADD),
            extendOnGet=bool(flags & EXTEND_ON_GET),
        )
    )


def deadline_of(row: Row) -> int:
    """Return the deadline of the session that is `row`."""
    return NEVER if row[3] is None else row[3]
