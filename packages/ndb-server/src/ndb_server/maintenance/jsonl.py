"""Sessions and independent keys as lines of JSON, for export and import.

The members of a line are described in docs/reference/data-folder.md.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from ndb_protocol import NO_TOKEN, parse_token
from ndb_protocol.messages import DURATION_MAX, Expiry

from ..clock import Anchor
from ..engine.keymap import KeyMap, pack
from ..engine.record import SessionRow, expiry_of, unsigned
from ..engine.session import NEVER, Session, deadline_after, intern_expiry
from ..errors import DataError
from .importer import KeyEntry, SessionEntry


class _Expiry(Struct, forbid_unknown_fields=True, kw_only=True):
    duration: Annotated[int, Meta(ge=0, le=DURATION_MAX)]
    deleteSession: bool = False
    extendOnSetAdd: bool = False
    extendOnGet: bool = False


class _Session(Struct, forbid_unknown_fields=True, kw_only=True):
    tkn: str | int
    expiry: _Expiry | UnsetType = UNSET
    deadline: Annotated[int, Meta(ge=0, le=NEVER)] | UnsetType = UNSET
    keys: Raw


class _Key(Struct, forbid_unknown_fields=True):
    key: str
    value: Raw


_ONE_LINE = bytes.maketrans(b"\n\r", b"  ")
"""Replaces line breaks, which JSON allows only between tokens."""

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_session = msgspec.json.Decoder(_Session).decode
_key = msgspec.json.Decoder(_Key).decode


def session_line(row: SessionRow, keymap: KeyMap, anchor: Anchor | None = None) -> bytes:
    """Return the line of a session, without a line feed.

    Args:
        row: the session.
        keymap: its keys.
        anchor: relates its deadline to the wall clock; without it, the line has no deadline.
    """
    expiry = expiry_of(row)
    deadline = None if anchor is None or row[3] is None else max(0, row[3] + anchor.offset)
    session = _Session(
        tkn=str(unsigned(row[0])),
        expiry=UNSET if expiry is None else _Expiry(**msgspec.structs.asdict(expiry)),
        deadline=UNSET if expiry is None or deadline is None else deadline,
        keys=Raw(keymap if isinstance(keymap, bytes) else _encode(keymap)),
    )
    return _encode(session).translate(_ONE_LINE)


def key_lines(values: Mapping[str, Raw]) -> Iterator[bytes]:
    """Yield the line of each independent key, without a line feed."""
    for key, value in values.items():
        yield _encode(_Key(key, value)).translate(_ONE_LINE)


def read_lines(lines: Iterable[bytes], source: str, now: int) -> Iterator[SessionEntry | KeyEntry]:
    """Yield the sessions and independent keys of `lines`; empty lines are ignored.

    Args:
        lines: the lines.
        source: the name of their source, for errors.
        now: the time in ms since the epoch, when the period of a session without deadline begins.

    Raises:
        DataError: a line is invalid; the message has its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            line.decode()
            yield _key_of(line) if "tkn" not in _members(line) else _session_of(line, now)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DataError(f"{source}, line {number}: {error}; nothing was imported") from error


def _key_of(line: bytes) -> KeyEntry:
    entry = _key(line)
    return KeyEntry(entry.key, entry.value)


def _session_of(line: bytes, now: int) -> SessionEntry:
    entry = _session(line)
    token = parse_token(entry.tkn)
    if token == NO_TOKEN:
        raise ValueError("'tkn' must be a session token: decimal text, 1 to 2^64-1")
    expiry = None
    if entry.expiry is not UNSET:
        expiry = intern_expiry(Expiry(**msgspec.structs.asdict(entry.expiry)))
    if entry.deadline is not UNSET and expiry is None:
        raise ValueError("'deadline' needs an 'expiry' with a duration")
    deadline = deadline_after(expiry, now) if entry.deadline is UNSET else entry.deadline
    return SessionEntry(token, Session(expiry, deadline, pack(_members(entry.keys))))
