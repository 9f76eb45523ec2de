"""Changes to a map of keys.

A key maps to the JSON text of its value, kept as sent. The values of an edit may be views, which
keep the whole message alive from which they come. To keep them longer, copy them: see `Edit.owned`.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Raw, Struct

KEPT = Raw(b"")
"""What stands for the value of a key that is only moved to the end: no value is empty."""


class Edit(Struct, frozen=True, gc=False):
    """A change to a map of keys: everything out if `clear`, `remove` out, then `put` in."""

    put: Mapping[str, Raw] = MappingProxyType({})
    remove: tuple[str, ...] = ()
    clear: bool = False

    def apply(self, values: dict[str, Raw]) -> None:
        """Make the change in `values`."""
        if self.clear:
            values.clear()
        for key in self.remove:
            del values[key]
        values.update(self.put)

    def owned(self) -> "Edit":
        """Return the same change with values that keep nothing but themselves alive."""
        put = {key: value.copy() for key, value in self.put.items()}
        return Edit(put, self.remove, self.clear)


class MapChange(Struct, gc=False):
    """Edits to a map of keys, one after the other, as one: `removed` out, then `put` in.

    Attributes:
        removed: keys to take out, whether they are there or not.
        put: keys to put in, in this order; one that is there keeps its place, one whose value is
            `KEPT` keeps that and goes to the end.
        clear: everything goes out first.
    """

    removed: dict[str, None]
    put: dict[str, Raw]
    clear: bool = False

    @classmethod
    def whole(cls, values: Mapping[str, Raw]) -> "MapChange":
        """Return the change that makes `values` of whatever is there."""
        return cls({}, dict(values), clear=True)

    def then(self, remove: Iterable[str], put: Mapping[str, Raw]) -> None:
        """Add a change that comes after."""
        for key in remove:
            # Put in again, it stands at the end.
            self.put.pop(key, None)
            self.removed[key] = None
        # A key that was moved and then changed is taken out, and put in where it was moved to.
        self.removed.update((key, None) for key in put if self.put.get(key) is KEPT)
        self.put.update(put)

    def move(self, keys: Iterable[str]) -> None:
        """Add that `keys`, which are there, go to the end."""
        for key in keys:
            value = self.put.pop(key, KEPT)
            if value is not KEPT:
                self.removed[key] = None
            self.put[key] = value

    def apply(self, values: Mapping[str, Raw]) -> dict[str, Raw]:
        """Return what the change makes of `values`."""
        changed = {} if self.clear else {k: v for k, v in values.items() if k not in self.removed}
        for key, value in self.put.items():
            if value is not KEPT:
                changed[key] = value
            elif key in changed:
                changed[key] = changed.pop(key)
        return changed
