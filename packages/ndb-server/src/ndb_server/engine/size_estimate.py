"""An estimate of the memory that sessions and keys take, updated with each change.

It covers only the data; the process needs another 40 MB, and memory for its connections.
"""

from collections.abc import Mapping

from msgspec import Raw

from .edits import Edit
from .keymap import Packed

SESSION_BYTES = 270
"""What a session takes beside its keys: its objects and entries in tables (measured on CPython)."""

KEY_BYTES = 140
"""What a key takes beside its name and value where keys are kept in a dict (measured likewise)."""


def of_key(name: str, value: Raw) -> int:
    """Return how many bytes a key in a dict takes."""
    return KEY_BYTES + len(name) + len(value)


def of_keys(packed: Packed) -> int:
    """Return how many bytes the keys of a session take."""
    if isinstance(packed, bytes):
        return len(packed)
    return sum(of_key(name, value) for name, value in packed.items())


def growth(values: Mapping[str, Raw], edit: Edit) -> int:
    """Return how many bytes more keys in a dict take once `edit` is made, which is not to clear."""
    grown = 0
    for name, value in edit.put.items():
        old = values.get(name)
        grown += of_key(name, value) if old is None else len(value) - len(old)
    for name in edit.remove:
        grown -= of_key(name, values[name])
    return grown
