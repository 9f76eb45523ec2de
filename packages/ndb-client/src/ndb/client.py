"""The asyncio client with every command under its prefixed name.

Programs written for the Python API of NemesisDB 0.7 run on it unchanged, with one difference:
`NdbClient.open` raises `ConnectError` where that of NemesisDB returns False.
"""

import logging
import ssl as tls
from collections.abc import Iterable, Mapping
from typing import Any

from . import commands
from .baseclient import BaseClient
from .commands import KV, session
from .core import logger
from .errors import NdbException, ResponseError, SessionNotFound
from .policy import DEFAULT_POLICY, ConnectionPolicy
from .servers import Credentials, Uris
from .session import Session, Tkn

__all__ = ["NdbClient", "NdbException", "ResponseError", "Session", "SessionNotFound"]


class NdbClient(BaseClient):
    """A client for sessions (``sh_…``), independent keys (``kv_…``) and the server (``sv_…``).

    The methods do the same as those of `SessionClient` and `KvClient`. The token of a session is
    the first parameter.

    Args:
        debug: log each command and the status of its reply to stderr.
        uri: the default URI for `open`; the other arguments are those of `SessionClient`.
        timeout: the default timeout of a request, in seconds.
        credentials: a tuple of a name and its secret, or a token.
        ssl: the TLS context.
        policy: the timeouts, and what to do when the connection is lost.
    """

    def __init__(
        self,
        debug: bool = False,
        *,
        uri: Uris | None = None,
        timeout: float | None = None,
        credentials: Credentials | None = None,
        ssl: tls.SSLContext | None = None,
        policy: ConnectionPolicy = DEFAULT_POLICY,
    ) -> None:
        super().__init__(uri, timeout=timeout, credentials=credentials, ssl=ssl, policy=policy)
        if debug:
            logger.setLevel(logging.DEBUG)
            if not logger.handlers:
                logger.addHandler(logging.StreamHandler())

    # The server.

    async def sv_info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``serverVersion``, ``persistEnabled`` and what else the server tells."""
        return await self._run(commands.server_info(), timeout)

    # Independent keys.

    async def kv_set(self, keys: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Store `keys`, a dict of keys and values; an existing key is overwritten."""
        await self._run(commands.set(KV, keys), timeout)

    async def kv_add(self, keys: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Store `keys`, a dict of keys and values; an existing key is left unchanged."""
        await self._run(commands.add(KV, keys), timeout)

    async def kv_get(
        self, keys: Iterable[str] = (), key: str | None = None, *, timeout: float | None = None
    ) -> Any:
        """Return a dict of those of `keys` that exist, or the value of `key`, or None."""
        return await self._run(commands.get_either(KV, keys, key), timeout)

    async def kv_rmv(self, keys: Iterable[str], *, timeout: float | None = None) -> None:
        """Remove `keys`; those that do not exist are ignored.

        Raises:
            ValueError: there are no `keys`.
        """
        await self._run(commands.rmv(KV, commands.some(keys)), timeout)

    async def kv_contains(self, keys: Iterable[str], *, timeout: float | None = None) -> list[str]:
        """Return those of `keys` that exist, in the order asked."""
        return await self._run(commands.contains(KV, keys), timeout)

    async def kv_count(self, *, timeout: float | None = None) -> int:
        """Return how many keys there are."""
        return await self._run(commands.count(KV), timeout)

    async def kv_keys(self, *, timeout: float | None = None) -> list[str]:
        """Return all keys, in the order in which they were stored first."""
        return await self._run(commands.keys(KV), timeout)

    async def kv_clear(self, *, timeout: float | None = None) -> int:
        """Remove all keys and return how many there were."""
        return await self._run(commands.clear(KV), timeout)

    async def kv_clear_set(self, keys: Mapping[str, Any], *, timeout: float | None = None) -> int:
        """Replace all keys by `keys` at once and return how many there were before."""
        return await self._run(commands.clear_set(KV, keys), timeout)

    async def kv_find(
        self, path: str, rsp: str, keys: Iterable[str] = (), *, timeout: float | None = None
    ) -> list[str] | dict[str, Any]:
        """Find values by a JSONPath; see `KvClient.find`."""
        return await self._run(commands.find(KV, path, rsp, keys), timeout)

    async def kv_update(
        self, key: str, path: str, value: Any, *, timeout: float | None = None
    ) -> int:
        """Put `value` where a JSONPath selects; return at how many places."""
        return await self._run(commands.update(KV, key, path, value), timeout)

    async def kv_arr_append(
        self,
        key: str,
        items: Iterable[Any],
        name: str | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Append `items` to the array at `key`, or at member `name` of the object at `key`."""
        await self._run(commands.arr_append(KV, key, items, name), timeout)

    async def kv_save(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Save all keys as dataset `name`; return what `KvClient.save` does."""
        return await self._run(commands.save_keys(name), timeout)

    async def kv_load(self, name: str, *, timeout: float | None = None) -> int:
        """Load the keys of dataset `name` and return how many were loaded."""
        return await self._run(commands.load_keys_count(name), timeout)

    # Sessions.

    async def sh_create(
        self,
        durationSeconds: int = 0,
        deleteSessionOnExpire: bool = False,
        extendOnSetAdd: bool = False,
        extendOnGet: bool = False,
        *,
        deleteSession: bool = False,
        timeout: float | None = None,
    ) -> Session:
        """Create a session; see `SessionClient.create_session`.

        `deleteSessionOnExpire` and `deleteSession` are the same.
        """
        delete = deleteSessionOnExpire or deleteSession
        return await self._run(
            commands.create_session(durationSeconds, delete, extendOnSetAdd, extendOnGet), timeout
        )

    sh_create_session = sh_create

    async def sh_end(self, tkn: Tkn, *, timeout: float | None = None) -> None:
        """End a session and remove its keys."""
        await self._run(commands.end_session(tkn), timeout)

    async def sh_end_all(self, *, timeout: float | None = None) -> int:
        """End every session and return how many there were."""
        return await self._run(commands.end_all_sessions(), timeout)

    async def sh_session_exists(
        self, tkns: Iterable[Tkn], *, timeout: float | None = None
    ) -> list[int]:
        """Return the tokens of those of `tkns` that exist, in the order asked."""
        return await self._run(commands.session_exists(tkns), timeout)

    async def sh_info(self, tkn: Tkn, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``tkn``, ``keyCnt``, ``shared``, ``expires`` and, if it does, ``expiry``."""
        return await self._run(commands.session_info(tkn), timeout)

    async def sh_info_all(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``totalSessions`` and ``totalKeys``."""
        return await self._run(commands.session_info_all(), timeout)

    async def sh_save(
        self, name: str, tkns: Iterable[Tkn] = (), *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Save the sessions of `tkns`, by default all; return what `SessionClient.save` does."""
        return await self._run(commands.save_sessions(name, tkns), timeout)

    async def sh_load(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Load the sessions of dataset `name`; return what `SessionClient.load` does."""
        return await self._run(commands.load_sessions(name), timeout)

    async def sh_set(
        self, tkn: Tkn, keys: Mapping[str, Any], *, timeout: float | None = None
    ) -> None:
        """Store `keys`, a dict of keys and values; an existing key is overwritten."""
        await self._run(commands.set(session(tkn), keys), timeout)

    async def sh_add(
        self, tkn: Tkn, keys: Mapping[str, Any], *, timeout: float | None = None
    ) -> None:
        """Store `keys`, a dict of keys and values; an existing key is left unchanged."""
        await self._run(commands.add(session(tkn), keys), timeout)

    async def sh_get(
        self,
        tkn: Tkn,
        keys: Iterable[str] = (),
        key: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Return a dict of those of `keys` that exist, or the value of `key`, or None."""
        return await self._run(commands.get_either(session(tkn), keys, key), timeout)

    async def sh_rmv(self, tkn: Tkn, keys: Iterable[str], *, timeout: float | None = None) -> None:
        """Remove `keys`, at least one; those that do not exist are ignored."""
        await self._run(commands.rmv(session(tkn), keys), timeout)

    async def sh_contains(
        self, tkn: Tkn, keys: Iterable[str], *, timeout: float | None = None
    ) -> list[str]:
        """Return those of `keys` that exist, in the order asked."""
        return await self._run(commands.contains(session(tkn), keys), timeout)

    async def sh_count(self, tkn: Tkn, *, timeout: float | None = None) -> int:
        """Return how many keys there are."""
        return await self._run(commands.count(session(tkn)), timeout)

    async def sh_keys(self, tkn: Tkn, *, timeout: float | None = None) -> list[str]:
        """Return all keys, in the order in which they were stored first."""
        return await self._run(commands.keys(session(tkn)), timeout)

    async def sh_clear(self, tkn: Tkn, *, timeout: float | None = None) -> int:
        """Remove all keys and return how many there were."""
        return await self._run(commands.clear(session(tkn)), timeout)

    async def sh_clear_set(
        self, tkn: Tkn, keys: Mapping[str, Any], *, timeout: float | None = None
    ) -> int:
        """Replace all keys by `keys` at once and return how many there were before."""
        return await self._run(commands.clear_set(session(tkn), keys), timeout)

    async def sh_find(
        self,
        tkn: Tkn,
        path: str,
        rsp: str,
        keys: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> list[str] | dict[str, Any]:
        """Find values by a JSONPath; see `SessionClient.find`."""
        return await self._run(commands.find(session(tkn), path, rsp, keys), timeout)

    async def sh_update(
        self, tkn: Tkn, key: str, path: str, value: Any, *, timeout: float | None = None
    ) -> int:
        """Put `value` where a JSONPath selects; return at how many places."""
        return await self._run(commands.update(session(tkn), key, path, value), timeout)

    async def sh_arr_append(
        self,
        tkn: Tkn,
        key: str,
        items: Iterable[Any],
        name: str | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Append `items` to the array at `key`, or at member `name` of the object at `key`."""
        await self._run(commands.arr_append(session(tkn), key, items, name), timeout)
