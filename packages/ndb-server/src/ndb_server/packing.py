"""A session's keys as they lie in memory.

While they are small they are packed into one JSON object, the text that would be sent for them.
That takes about half the memory of a dict of values and is the faster to use: one object has to
be fetched from memory, not nine. Beyond `PACKED_SIZE` they are a dict, and stay one until cleared.
"""

import msgspec
from msgspec import Raw

from .keyspace import Edit

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


def pack(values: dict[str, Raw]) -> Packed:
    """Return `values` as they are to be kept."""
    text = _encode(values)
    if len(text) <= PACKED_SIZE:
        return text
    return {key: value.copy() for key, value in values.items()}


def edited(packed: Packed, values: dict[str, Raw], edit: Edit) -> Packed:
    """Make `edit` in `values`, which `unpack(packed)` returned; return them as they are kept."""
    if type(packed) is dict and not edit.clear:
        edit.owned().apply(values)
        return packed
    edit.apply(values)
    return pack(values)


def copied(packed: Packed) -> Packed:
    """Return what `packed` is now, whatever becomes of it."""
    return packed if type(packed) is bytes else packed.copy()  # type: ignore[union-attr]
