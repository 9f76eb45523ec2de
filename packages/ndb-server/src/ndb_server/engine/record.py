"""The format of a session on disk: a row of the table `sessions`, and checksums of all records.

Each record on disk has a checksum, which detects changes after it was written. SQLite has no
checksums for its pages. A CRC-32 detects every change of a single byte.
"""

from struct import Struct as Format
from zlib import crc32

from msgspec import Raw
from ndb_protocol.messages import Expiry

from .session import NEVER, Session, intern_expiry

DELETE_SESSION, EXTEND_ON_SET_ADD, EXTEND_ON_GET = 1, 2, 4

SessionRow = tuple[int, int, int, int | None, Raw | None]
"""Signed token, duration in s, flags, deadline in ms or None, keys or None if not packed."""

_SIGN, _RANGE = 2**63, 2**64


def signed(token: int) -> int:
    """Return `token` as SQLite stores it: SQLite's integers are signed."""
    return token - _RANGE if token >= _SIGN else token


def unsigned(number: int) -> int:
    """Return the token that SQLite stores as `number`."""
    return number + _RANGE if number < 0 else number


_pack_session = Format("<qIBq").pack
_pack_key = Format("<qI").pack
_pack_pair = Format("<qq").pack
_NO_DEADLINE = -1


def session_checksum(
    tkn: int, duration: int, flags: int, deadline: int | None, keys: bytes | Raw | None
) -> int:
    """Return the checksum of a session's row."""
    head = _pack_session(tkn, duration, flags, _NO_DEADLINE if deadline is None else deadline)
    return crc32(head) if keys is None else crc32(keys, crc32(head))


def key_checksum(tkn: int, key: bytes, value: bytes | Raw) -> int:
    """Return the checksum of a key of a session, or of an independent key (`tkn` 0)."""
    return crc32(value, crc32(key, crc32(_pack_key(tkn, len(key)))))


def log_checksum(load: int, seq: int, changes: bytes | bytearray) -> int:
    """Return the checksum of a row of the log, or of a part of a load."""
    return crc32(changes, crc32(_pack_pair(load, seq)))


def clock_checksum(time: int, wall: int) -> int:
    """Return the checksum of the row that relates the server's time line to the wall clock."""
    return crc32(_pack_pair(time, wall))


def row_of(token: int, session: Session) -> SessionRow:
    """Return the row of a session."""
    packed, expiry = session.keys, session.expiry
    keys = Raw(packed) if type(packed) is bytes else None
    tkn = token - _RANGE if token >= _SIGN else token
    if expiry is None:
        return tkn, 0, 0, None, keys
    flags = (
        expiry.deleteSession * DELETE_SESSION
        + expiry.extendOnSetAdd * EXTEND_ON_SET_ADD
        + expiry.extendOnGet * EXTEND_ON_GET
    )
    return tkn, expiry.duration, flags, session.deadline, keys


def expiry_of(row: SessionRow) -> Expiry | None:
    """Return the expiry settings in the row of a session."""
    _, duration, flags, _, _ = row
    return intern_expiry(
        Expiry(
            duration=duration,
            deleteSession=bool(flags & DELETE_SESSION),
            extendOnSetAdd=bool(flags & EXTEND_ON_SET_ADD),
            extendOnGet=bool(flags & EXTEND_ON_GET),
        )
    )


def deadline_of(row: SessionRow) -> int:
    """Return the deadline in the row of a session."""
    return NEVER if row[3] is None else row[3]
