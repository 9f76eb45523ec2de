"""The asyncio client for independent keys."""

from collections.abc import Iterable, Mapping
from typing import Any

from . import commands
from .baseclient import BaseClient
from .commands import KV
from .errors import NdbException, ResponseError

__all__ = ["KvClient", "NdbException", "ResponseError"]


class KvClient(BaseClient):
    """A client for independent keys: one map that all clients share. Its keys never expire.

    Every method takes a `timeout` in seconds, by default that of the client, and can raise the same
    errors as the methods of `SessionClient`.
    """

    async def set(self, keys: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Store `keys`, a dict of keys and values; an existing key is overwritten."""
        await self._run(commands.set(KV, keys), timeout)

    async def add(self, keys: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Store `keys`, a dict of keys and values; an existing key is left unchanged."""
        await self._run(commands.add(KV, keys), timeout)

    async def get(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """Return those of `keys` that exist, with their values, in the order asked."""
        return await self._run(commands.get(KV, keys), timeout)

    async def rmv(self, keys: Iterable[str], *, timeout: float | None = None) -> None:
        """Remove `keys`, at least one; those that do not exist are ignored."""
        await self._run(commands.rmv(KV, keys), timeout)

    async def contains(self, keys: Iterable[str], *, timeout: float | None = None) -> list[str]:
        """Return those of `keys` that exist, in the order asked."""
        return await self._run(commands.contains(KV, keys), timeout)

    async def count(self, *, timeout: float | None = None) -> int:
        """Return how many keys there are."""
        return await self._run(commands.count(KV), timeout)

    async def keys(self, *, timeout: float | None = None) -> list[str]:
        """Return all keys, in the order in which they were stored first."""
        return await self._run(commands.keys(KV), timeout)

    async def clear(self, *, timeout: float | None = None) -> int:
        """Remove all keys and return how many there were."""
        return await self._run(commands.clear(KV), timeout)

    async def clear_set(self, keys: Mapping[str, Any], *, timeout: float | None = None) -> int:
        """Replace all keys by `keys` at once and return how many there were before."""
        return await self._run(commands.clear_set(KV, keys), timeout)

    async def find(
        self, path: str, rsp: str, keys: Iterable[str] = (), *, timeout: float | None = None
    ) -> list[str] | dict[str, Any]:
        """Find the values in which a JSONPath selects something.

        Args:
            path: the JSONPath (RFC 9535), applied to each key's value.
            rsp: what to return: ``"keys"``, ``"paths"`` or ``"kv"``.
            keys: the keys to search; none = all.
            timeout: in seconds.

        Returns:
            For ``"keys"`` a list of the keys, for ``"paths"`` a list of the normalized paths of
            what was selected, for ``"kv"`` a dict of the keys and their whole values.
        """
        return await self._run(commands.find(KV, path, rsp, keys), timeout)

    async def update(self, key: str, path: str, value: Any, *, timeout: float | None = None) -> int:
        """Put `value` at every place in the value of `key` that a JSONPath selects.

        Returns:
            How many places there were.
        """
        return await self._run(commands.update(KV, key, path, value), timeout)

    async def arr_append(
        self,
        key: str,
        items: Iterable[Any],
        name: str | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Append `items` to the array at `key`, or at member `name` of the object at `key`."""
        await self._run(commands.arr_append(KV, key, items, name), timeout)

    async def save(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Save all keys as dataset `name`.

        Returns:
            ``name``, ``keys`` and ``duration``, in ms.
        """
        return await self._run(commands.save_keys(name), timeout)

    async def load(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Load the keys of dataset `name`; they overwrite, other keys stay.

        Returns:
            ``name``, ``keys`` and ``duration``, in ms.
        """
        return await self._run(commands.load_keys(name), timeout)

    async def server_info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``serverVersion``, ``persistEnabled`` and what else the server tells."""
        return await self._run(commands.server_info(), timeout)
