"""Datasets of NemesisDB 0.7, read for import.

A dataset is a folder ``<name>/<time>/``. Its file ``md/md.json`` has the kind of the data and
whether it is complete. The files ``data/0``, ``data/1``, … have the data as JSON. Each SH_SAVE or
KV_SAVE of a name adds a time. The format is that of NemesisDB's source, v0.7.4:
``core/Persistance.h``, ``core/sh/ShExecutor.h`` and ``core/kv/KvExecutor.h``.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from ndb_protocol import NO_TOKEN, parse_token
from ndb_protocol.messages import DURATION_MAX, Expiry

from ..engine.keymap import pack
from ..engine.session import Session, deadline_after, intern_expiry
from ..errors import DataError
from .importer import KeyEntry, SessionEntry

_T = TypeVar("_T")

METADATA = Path("md", "md.json")

_COMPLETE = 1
_KEYS, _SESSIONS = 0, 1

_NUMBER = re.compile(r"[0-9]+\Z", re.ASCII)


class _Metadata(Struct):
    status: int
    saveDataType: int


class _Settings(Struct):
    duration: Annotated[int, Meta(ge=0, le=DURATION_MAX)]
    deleteSession: bool
    extendOnSetAdd: bool
    extendOnGet: bool


class _Head(Struct):
    tkn: int
    expiry: _Settings


class _Session(Struct):
    # NemesisDB may write an empty object.
    sh: _Head | UnsetType = UNSET
    keys: dict[str, Raw] = {}


class _KeyFile(Struct):
    keys: dict[str, Raw]


def read_nemesisdb_dataset(path: Path, now: int) -> Iterator[SessionEntry | KeyEntry]:
    """Yield the sessions and independent keys of a dataset of NemesisDB.

    Args:
        path: the folder of a dataset, whose newest save is read, or the folder of one save.
        now: the time in ms since the epoch, when the sessions' periods begin.

    Raises:
        DataError: it is no dataset, it is incomplete, or one of its files is invalid.
    """
    save = _newest(path)
    metadata = _read(save / METADATA, _Metadata)
    if metadata.status != _COMPLETE:
        raise DataError(
            f"{save} is not complete: NemesisDB did not finish it; "
            "choose the folder of another save of it"
        )
    if metadata.saveDataType not in {_KEYS, _SESSIONS}:
        raise DataError(f"{save / METADATA}: 'saveDataType' must be 0 or 1")
    for file in _numbered(save / "data"):
        if metadata.saveDataType == _KEYS:
            for key, value in _read(file, _KeyFile).keys.items():
                yield KeyEntry(key, value)
        else:
            for saved in _read(file, list[_Session]):
                if saved.sh is not UNSET:
                    yield _entry(file, saved.sh, saved.keys, now)


def _newest(path: Path) -> Path:
    if (path / METADATA).exists():
        return path
    saves = [save for save in _numbered(path) if save.is_dir()]
    if not saves:
        raise DataError(
            f"{path} is not a dataset of NemesisDB: it has neither {METADATA} nor a folder whose "
            "name is a time"
        )
    return saves[-1]


def _numbered(path: Path) -> list[Path]:
    """Return the entries of a folder whose names are numbers, in the order of the numbers."""
    try:
        found = [entry for entry in path.iterdir() if _NUMBER.match(entry.name)]
    except OSError as error:
        raise DataError(f"{path} can't be listed: {error.strerror}") from error
    return sorted(found, key=lambda entry: int(entry.name))


def _read(path: Path, type: type[_T]) -> _T:
    try:
        text = path.read_bytes()
        text.decode()
        return msgspec.json.decode(text, type=type)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise DataError(f"{path} does not have the format of NemesisDB 0.7: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON: {error}; NemesisDB doesn't escape the names of independent keys: "
            "fix those that have quotes, backslashes or control characters"
        ) from error


def _entry(file: Path, head: _Head, keys: dict[str, Raw], now: int) -> SessionEntry:
    token = parse_token(head.tkn)
    if token == NO_TOKEN:
        raise DataError(f"{file}: 'tkn' must be a session token: 1 to 2^64-1")
    expiry = intern_expiry(Expiry(**msgspec.structs.asdict(head.expiry)))
    return SessionEntry(token, Session(expiry, deadline_after(expiry, now), pack(keys)))
