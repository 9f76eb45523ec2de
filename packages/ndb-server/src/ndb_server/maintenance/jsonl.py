"""Sessions and independent keys as lines of JSON, for export and import.

What a line has is described in docs/reference/data-folder.md.
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
"""Between the tokens of a value there can be line breaks, elsewhere there can't."""

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_session = msgspec.json.Decoder(_Session).decode
_key = msgspec.json.Decoder(_Key).decode


def session_line(row: SessionRow, keymap: KeyMap, anchor: Anchor | None = None) -> bytes:
    """Return the line of a session, without its end.

    Args:
        row: the session.
        keymap: its keys.
        anchor: ties its deadline to the wall clock; without it, the line has no deadline.
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
    """Yield the line of each independent key, without its end."""
    for key, value in values.items():
        yield _encode(_Key(key, value)).translate(_ONE_LINE)


def read_lines(lines: Iterable[bytes], source: str, now: int) -> Iterator[SessionEntry | KeyEntry]:
    """Yield what `lines` say; empty ones say nothing.

    Args:
        lines: the lines.
        source: what to call where they come from.
        now: the time in ms since the epoch: where a period without a deadline begins.

    Raises:
        DataError: a line is not as it has to be; its number is in the text.
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
