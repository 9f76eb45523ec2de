"""The asyncio client for sessions."""

from collections.abc import Iterable, Mapping
from typing import Any

from . import commands
from .baseclient import BaseClient
from .commands import session
from .errors import NdbException, ResponseError, SessionNotFound
from .session import Session, Tkn

__all__ = ["NdbException", "ResponseError", "Session", "SessionClient", "SessionNotFound"]


class SessionClient(BaseClient):
    """A client for sessions. Each session is a map of keys, identified by its token.

    A parameter `tkn` is the `Session`, or its token as an integer or as decimal text. Every method
    takes a `timeout` in seconds, by default that of the client. Every method can raise:

    - `SessionNotFound` if there is no session of the token, and another `ResponseError` if the
      server refuses the request for another reason;
    - `ConnectionLost` if the connection was lost and the request could not be sent again, and
      `RequestTimeout`; both say whether it may have run;
    - `ValueError`, before anything is sent, for a value that JSON can't carry exactly, or a request
      that is larger than the server takes;
    - `InvalidState`, before anything is sent, if the client is not open in this event loop, thread
      and process;
    - `UnreadableReply` if the reply can't be read, or has a value that Python can't represent.
    """

    async def create_session(
        self,
        durationSeconds: int = 0,
        deleteSession: bool = False,
        extendOnSetAdd: bool = False,
        extendOnGet: bool = False,
        *,
        timeout: float | None = None,
    ) -> Session:
        """Create a session.

        Args:
            durationSeconds: how long until the session expires; 0 = never.
            deleteSession: delete the session itself when it expires; otherwise only its keys are
                deleted, and the session continues with a new period.
            extendOnSetAdd: restart the duration with every method that stores keys.
            extendOnGet: restart the duration with `get`.
            timeout: in seconds.

        Returns:
            The session. If the server refused to create one, `isValid` is False, and `status` and
            `message` say why.

        Raises:
            ValueError: `durationSeconds` is negative, or is 0 while a flag is given.
        """
        return await self._run(
            commands.create_session(durationSeconds, deleteSession, extendOnSetAdd, extendOnGet),
            timeout,
        )

    sh_create_session = create_session

    async def set(self, keys: Mapping[str, Any], tkn: Tkn, *, timeout: float | None = None) -> None:
        """Store `keys`, a dict of keys and values; an existing key is overwritten."""
        await self._run(commands.set(session(tkn), keys), timeout)

    async def add(self, keys: Mapping[str, Any], tkn: Tkn, *, timeout: float | None = None) -> None:
        """Store `keys`, a dict of keys and values; an existing key is left unchanged."""
        await self._run(commands.add(session(tkn), keys), timeout)

    async def get(
        self, keys: Iterable[str], tkn: Tkn, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return those of `keys` that exist, with their values, in the order asked."""
        return await self._run(commands.get(session(tkn), keys), timeout)

    async def rmv(self, keys: Iterable[str], tkn: Tkn, *, timeout: float | None = None) -> None:
        """Remove `keys`, at least one; those that do not exist are ignored."""
        await self._run(commands.rmv(session(tkn), keys), timeout)

    async def contains(
        self, keys: Iterable[str], tkn: Tkn, *, timeout: float | None = None
    ) -> list[str]:
        """Return those of `keys` that exist, in the order asked."""
        return await self._run(commands.contains(session(tkn), keys), timeout)

    async def count(self, tkn: Tkn, *, timeout: float | None = None) -> int:
        """Return how many keys there are."""
        return await self._run(commands.count(session(tkn)), timeout)

    async def keys(self, tkn: Tkn, *, timeout: float | None = None) -> list[str]:
        """Return all keys, in the order in which they were stored first."""
        return await self._run(commands.keys(session(tkn)), timeout)

    async def clear(self, tkn: Tkn, *, timeout: float | None = None) -> int:
        """Remove all keys and return how many there were."""
        return await self._run(commands.clear(session(tkn)), timeout)

    async def clear_set(
        self, keys: Mapping[str, Any], tkn: Tkn, *, timeout: float | None = None
    ) -> int:
        """Replace all keys by `keys` at once and return how many there were before."""
        return await self._run(commands.clear_set(session(tkn), keys), timeout)

    async def find(
        self,
        path: str,
        rsp: str,
        tkn: Tkn,
        keys: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> list[str] | dict[str, Any]:
        """Find the values in which a JSONPath selects something.

        Args:
            path: the JSONPath (RFC 9535), applied to each key's value.
            rsp: what to return: ``"keys"``, ``"paths"`` or ``"kv"``.
            tkn: the session.
            keys: the keys to search; none = all.
            timeout: in seconds.

        Returns:
            For ``"keys"`` a list of the keys, for ``"paths"`` a list of the normalized paths of
            what was selected, for ``"kv"`` a dict of the keys and their whole values.
        """
        return await self._run(commands.find(session(tkn), path, rsp, keys), timeout)

    async def update(
        self, key: str, path: str, value: Any, tkn: Tkn, *, timeout: float | None = None
    ) -> int:
        """Put `value` at every place in the value of `key` that a JSONPath selects.

        Returns:
            How many places there were.
        """
        return await self._run(commands.update(session(tkn), key, path, value), timeout)

    async def arr_append(
        self,
        key: str,
        items: Iterable[Any],
        tkn: Tkn,
        name: str | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Append `items` to the array at `key`, or at member `name` of the object at `key`."""
        await self._run(commands.arr_append(session(tkn), key, items, name), timeout)

    async def end_session(self, tkn: Tkn, *, timeout: float | None = None) -> None:
        """End a session and remove its keys."""
        await self._run(commands.end_session(tkn), timeout)

    async def end_all_sessions(self, *, timeout: float | None = None) -> int:
        """End every session and return how many there were."""
        return await self._run(commands.end_all_sessions(), timeout)

    async def session_exists(
        self, tkns: Iterable[Tkn], *, timeout: float | None = None
    ) -> list[int]:
        """Return the tokens of those of `tkns` that exist, in the order asked."""
        return await self._run(commands.session_exists(tkns), timeout)

    async def session_info(self, tkn: Tkn, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``tkn``, ``keyCnt``, ``shared``, ``expires`` and, if it does, ``expiry``."""
        return await self._run(commands.session_info(tkn), timeout)

    async def session_info_all(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``totalSessions`` and ``totalKeys``."""
        return await self._run(commands.session_info_all(), timeout)

    async def save(
        self, name: str, tkns: Iterable[Tkn] = (), *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Save the sessions of `tkns`, by default all, as dataset `name`.

        Returns:
            ``name``, ``sessions``, ``keys`` and ``duration``, in ms.
        """
        return await self._run(commands.save_sessions(name, tkns), timeout)

    async def load(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Load the sessions of dataset `name`; those that exist are left as they are.

        Returns:
            ``name``, ``sessions`` and ``keys``.
        """
        return await self._run(commands.load_sessions(name), timeout)

    async def server_info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return ``serverVersion``, ``persistEnabled`` and what else the server tells."""
        return await self._run(commands.server_info(), timeout)
