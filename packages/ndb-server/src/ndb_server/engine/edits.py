"""Changes to a map of keys.

A key maps to the JSON text of its value, kept as sent. The values of an edit may be views into a
message, and a view keeps its whole message in memory. `Edit.copy_values` copies them.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Raw, Struct

UNCHANGED = Raw(b"")
"""Marks a key that moves to the end and keeps its value. No real value is empty."""


class Edit(Struct, frozen=True, gc=False):
    """A change to a map of keys.

    Attributes:
        put: keys that are set, last.
        remove: keys that are removed, before that.
        clear: whether all keys are removed, first.
    """

    put: Mapping[str, Raw] = MappingProxyType({})
    remove: tuple[str, ...] = ()
    clear: bool = False

    def apply(self, values: dict[str, Raw]) -> None:
        """Apply the edit to `values`."""
        if self.clear:
            values.clear()
        for key in self.remove:
            del values[key]
        values.update(self.put)

    def copy_values(self) -> "Edit":
        """Return the same edit with copies of its values."""
        put = {key: value.copy() for key, value in self.put.items()}
        return Edit(put, self.remove, self.clear)


class MapChange(Struct, gc=False):
    """Several edits of a map of keys, merged into one.

    Attributes:
        removed: keys that are removed if they exist, before `put`.
        put: keys that are set, in this order. A key that exists keeps its place. A key with the
            value `UNCHANGED` keeps its value and moves to the end.
        clear: whether all keys are removed, first.
    """

    removed: dict[str, None]
    put: dict[str, Raw]
    clear: bool = False

    @classmethod
    def replace_all(cls, values: Mapping[str, Raw]) -> "MapChange":
        """Return the change that replaces all keys by `values`."""
        return cls({}, dict(values), clear=True)

    def add(self, remove: Iterable[str], put: Mapping[str, Raw]) -> None:
        """Merge a later change into this one."""
        for key in remove:
            # If it is put again, it is at the end.
            self.put.pop(key, None)
            self.removed[key] = None
        # A key that moved and then changed is removed, and put where it moved to.
        self.removed.update((key, None) for key in put if self.put.get(key) is UNCHANGED)
        self.put.update(put)

    def move_to_end(self, keys: Iterable[str]) -> None:
        """Merge a later move of `keys`, which exist, to the end."""
        for key in keys:
            value = self.put.pop(key, UNCHANGED)
            if value is not UNCHANGED:
                self.removed[key] = None
            self.put[key] = value

    def apply(self, values: Mapping[str, Raw]) -> dict[str, Raw]:
        """Return `values` with the change applied."""
        result = {} if self.clear else {k: v for k, v in values.items() if k not in self.removed}
        for key, value in self.put.items():
            if value is not UNCHANGED:
                result[key] = value
            elif key in result:
                result[key] = result.pop(key)
        return result
