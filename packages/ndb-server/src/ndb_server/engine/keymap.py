"""The representation of a session's keys in memory.

Small keys are packed into one JSON object, in the text form that is sent to clients. This takes
about half the memory of a dict of values and is faster, because the processor fetches one object
from memory instead of nine. Beyond `PACKED_SIZE` they are a dict, and stay one until cleared.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .edits import Edit

PACKED_SIZE = 512
"""Bytes up to which keys and values are packed."""

Packed = bytes | dict[str, Raw]

EMPTY = b"{}"
"""No keys."""

_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def unpack(packed: Packed) -> dict[str, Raw]:
    """Return the keys with their values; only `edited` may change them."""
    return _decode(packed) if type(packed) is bytes else packed  # type: ignore[return-value]


SOON = 64
"""Uses after which a selection of names gets a type; one takes as long to make as ten requests."""

SELECTIONS = 256
"""How many selections are remembered."""


class _Selection:
    """Some names of keys that are asked for together."""

    __slots__ = ("_names", "_uses", "decode")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._uses = 0
        self.decode: Callable[[bytes], Any] = self._decode

    def _decode(self, packed: bytes) -> Mapping[str, Raw]:
        self._uses += 1
        if self._uses == SOON:
            fields = {f"key{number}": name for number, name in enumerate(self._names)}
            # A name that stands there twice, or has to be escaped in JSON, no type can have.
            with suppress(ValueError):
                selected = msgspec.defstruct(
                    "Selected",
                    [(field, Raw | UnsetType, UNSET) for field in fields],
                    rename=fields,
                    gc=False,
                )
                self.decode = msgspec.json.Decoder(selected).decode
        return _among(_decode(packed), self._names)


selections: dict[tuple[str, ...], _Selection] = {}


def _among(values: Mapping[str, Raw], names: Sequence[str]) -> Mapping[str, Raw]:
    return {name: values[name] for name in names if name in values}


def picked(packed: Packed, names: Sequence[str]) -> Any:
    """Return the keys of `names` that are there, with their values: what encodes to that object.

    Programs ask for the same few keys again and again; decoding just these is twice as fast.
    """
    if type(packed) is bytes:
        together = tuple(names)
        selection = selections.get(together)
        if selection is not None:
            return selection.decode(packed)
        if len(together) + sum(map(len, together)) <= PACKED_SIZE:
            if len(selections) == SELECTIONS:
                selections.clear()
            selections[together] = _Selection(together)
    return _among(unpack(packed), names)


def pack(values: dict[str, Raw]) -> Packed:
    """Return `values` as they are to be kept."""
    text = _encode(values)
    if len(text) <= PACKED_SIZE:
        return text
    return {key: value.copy() for key, value in values.items()}


def edited(packed: Packed, values: dict[str, Raw], edit: Edit) -> Packed:
    """Make `edit`, owned if they are a dict, in `values`, which `unpack(packed)` returned.

    Returns:
        The keys as they are kept: those of a dict that is not cleared in that dict.
    """
    if edit.clear:
        return pack(dict(edit.put))
    edit.apply(values)
    return packed if type(packed) is dict else pack(values)


def copied(packed: Packed) -> Packed:
    """Return what `packed` is now, whatever becomes of it."""
    return packed if type(packed) is bytes else packed.copy()  # type: ignore[union-attr]
