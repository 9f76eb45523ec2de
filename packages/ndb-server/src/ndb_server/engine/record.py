"""A session as it is on disk: a row of numbers and the text of its keys.

Each record on disk has a checksum, which detects changes after it was written. SQLite has no
checksums for its pages. A CRC-32 detects every change of a single byte.
"""

from struct import Struct as Format
from zlib import crc32

from msgspec import Raw
from ndb_protocol.messages import Expiry

from .session import NEVER, Session, settings

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


_SESSION = Format("<qIBq").pack
_KEY = Format("<qI").pack
_LOG = Format("<qq").pack
_NO_DEADLINE = -1


def session_checksum(
    number: int, duration: int, flags: int, deadline: int | None, keys: bytes | Raw | None
) -> int:
    """Return the checksum of a session's row."""
    head = _SESSION(number, duration, flags, _NO_DEADLINE if deadline is None else deadline)
    return crc32(head) if keys is None else crc32(keys, crc32(head))


def key_checksum(number: int, key: bytes, value: bytes | Raw) -> int:
    """Return the checksum of a key of the session that is `number`, or of an independent key."""
    return crc32(value, crc32(key, crc32(_KEY(number, len(key)))))


def log_checksum(part_of: int, seq: int, changes: bytes | bytearray) -> int:
    """Return the checksum of a row of the log, or of a part of the load `part_of`."""
    return crc32(changes, crc32(_LOG(part_of, seq)))


def clock_checksum(time: int, wall: int) -> int:
    """Return the checksum of the row that ties the time of the store to the wall clock."""
    return crc32(_LOG(time, wall))


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
