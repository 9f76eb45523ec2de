"""Changes to a map of keys.

A key maps to the JSON text of its value, kept as sent. The values of an edit may be views that keep
the whole message they came in alive. Who keeps them keeps copies: see `Edit.owned`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Raw, Struct


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
