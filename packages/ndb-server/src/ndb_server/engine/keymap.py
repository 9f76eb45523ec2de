"""The keys of a session in memory: a key map.

The keys and values of a small session are packed into one JSON object, in the text form that is
sent to clients. This takes about half the memory of a dict of values and is faster, because the
processor fetches one object from memory instead of nine. A key map of more than `MAX_PACKED_SIZE`
bytes is a dict, and stays a dict until it is cleared.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .edits import Edit

MAX_PACKED_SIZE = 512
"""Bytes up to which keys and values are packed."""

KeyMap = bytes | dict[str, Raw]
"""Keys and their values: packed into JSON text, or as a dict."""

EMPTY = b"{}"
"""The key map without keys."""

_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def unpack(keymap: KeyMap) -> dict[str, Raw]:
    """Return the keys with their values; only `apply_edit` may change them."""
    return _decode(keymap) if type(keymap) is bytes else keymap  # type: ignore[return-value]


COMPILE_AFTER = 64
"""Uses after which a projection gets a compiled decoder, which costs as much as ten requests."""

MAX_PROJECTIONS = 256
"""How many projections are cached."""


class _Projection:
    """Names of keys that are read together."""

    __slots__ = ("_names", "_uses", "decode")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._uses = 0
        self.decode: Callable[[bytes], Any] = self._decode

    def _decode(self, packed: bytes) -> Mapping[str, Raw]:
        self._uses += 1
        if self._uses == COMPILE_AFTER:
            fields = {f"key{number}": name for number, name in enumerate(self._names)}
            # A type can't have a name twice, nor a name that JSON escapes.
            with suppress(ValueError):
                selected = msgspec.defstruct(
                    "Selected",
                    [(field, Raw | UnsetType, UNSET) for field in fields],
                    rename=fields,
                    gc=False,
                )
                self.decode = msgspec.json.Decoder(selected).decode
        return _subset(_decode(packed), self._names)


projections: dict[tuple[str, ...], _Projection] = {}


def _subset(values: Mapping[str, Raw], names: Sequence[str]) -> Mapping[str, Raw]:
    return {name: values[name] for name in names if name in values}


def project(keymap: KeyMap, names: Sequence[str]) -> Any:
    """Return the keys of `names` that exist, with their values, as what encodes to that object.

    Programs read the same few keys again and again. To decode only these is twice as fast.
    """
    if type(keymap) is bytes:
        selected = tuple(names)
        projection = projections.get(selected)
        if projection is not None:
            return projection.decode(keymap)
        if len(selected) + sum(map(len, selected)) <= MAX_PACKED_SIZE:
            if len(projections) == MAX_PROJECTIONS:
                projections.clear()
            projections[selected] = _Projection(selected)
    return _subset(unpack(keymap), names)


def pack(values: dict[str, Raw]) -> KeyMap:
    """Return `values` as a key map."""
    text = _encode(values)
    if len(text) <= MAX_PACKED_SIZE:
        return text
    return {key: value.copy() for key, value in values.items()}


def apply_edit(keymap: KeyMap, values: dict[str, Raw], edit: Edit) -> KeyMap:
    """Apply `edit` to a key map.

    Args:
        keymap: the key map.
        values: what `unpack(keymap)` returned; it is changed.
        edit: the change. If the key map is a dict, the edit's values must be copies.

    Returns:
        The changed key map; the same dict if it was a dict and is not cleared.
    """
    if edit.clear:
        return pack(dict(edit.put))
    edit.apply(values)
    return keymap if type(keymap) is dict else pack(values)


def copy_keymap(keymap: KeyMap) -> KeyMap:
    """Return a copy of `keymap` that later edits do not change."""
    return keymap if type(keymap) is bytes else keymap.copy()  # type: ignore[union-attr]
