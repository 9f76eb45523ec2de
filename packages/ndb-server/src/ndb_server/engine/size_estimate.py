"""Estimates the memory of sessions and keys; the engine updates its sum with each change.

The estimate covers only the data. The process needs another 40 MB, and memory for its connections.
"""

from collections.abc import Mapping

from msgspec import Raw

from .edits import Edit
from .keymap import KeyMap

SESSION_BYTES = 270
"""Bytes of a session without its keys: its objects and table entries (measured on CPython)."""

KEY_BYTES = 140
"""Bytes of a key in a dict without its name and value (measured likewise)."""


def key_size(name: str, value: Raw) -> int:
    """Return how many bytes a key in a dict takes."""
    return KEY_BYTES + len(name) + len(value)


def keys_size(keymap: KeyMap) -> int:
    """Return how many bytes a key map takes."""
    if isinstance(keymap, bytes):
        return len(keymap)
    return sum(key_size(name, value) for name, value in keymap.items())


def growth(values: Mapping[str, Raw], edit: Edit) -> int:
    """Return how many more bytes a dict of keys takes after `edit`, which must not clear it."""
    grown = 0
    for name, value in edit.put.items():
        old = values.get(name)
        grown += key_size(name, value) if old is None else len(value) - len(old)
    for name in edit.remove:
        grown -= key_size(name, values[name])
    return grown
