"""Admission of clients: decides whether a connection is served or refused.

`handshake` checks the request, and `credentials` checks the secret. This module counts the
connections and combines the decisions.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from ndb_protocol.commands import Role
from websockets.headers import build_www_authenticate_basic
from websockets.http11 import Request

from ..limits import CONNECTIONS_BEYOND, Limits
from ..websocket.connection import Respond
from .credentials import Credentials, Entry
from .request_checks import (
    Refusal,
    check_host,
    check_origin,
    client_key,
    forwarded_for,
    offered,
)

logger = logging.getLogger("ndb_server.admission")

EVERY_ROLE = frozenset(Role)

Identity = Refusal | frozenset[Role]
"""The refusal of a client, or its roles."""

Decision = Refusal | Respond
"""The refusal of a client, or the function that answers it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which clients may connect.

    Attributes:
        origins: the origins whose pages may connect.
        hosts: the names of this server; None for any.
        proxied: whether all connections come through a proxy that sends the client's address.
    """

    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = frozenset()
    proxied: bool = False


class Crowd:
    """Counts the open connections.

    Attributes:
        count: the number of all connections.
        present: the number of connections of each client.
    """

    def __init__(self) -> None:
        self.count = 0
        self.present: Counter[str] = Counter()

    def enter(self, client: str) -> None:
        """Count one more."""
        self.count += 1
        self.present[client] += 1

    def exit(self, client: str) -> None:
        """Count one less."""
        self.count -= 1
        self.present[client] -= 1
        if not self.present[client]:
            del self.present[client]


class Door:
    """Decides which connections are accepted.

    Args:
        policy: which clients may connect.
        limits: how many connections there may be.
        respond_for: returns the function that answers a client, given its roles, the key by which
            it is counted, and a future that is done when the client has gone.
        credentials: the valid credentials; None if none are required.

    Attributes:
        credentials: can be replaced.
        refused: the number of refusals, by reason.
        reached: how often a client reached a limit, by limit.
    """

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        respond_for: Callable[[frozenset[Role], str, asyncio.Future[None]], Respond],
        credentials: Credentials | None = None,
    ) -> None:
        self.policy = policy
        self.limits = limits
        self.respond_for = respond_for
        self.credentials = credentials
        self.refused: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.clients = Crowd()
        # However many clients there are, operators are told so.
        self.operators = Crowd()
        self._unnamed = False

    def warn_of_unnamed(self) -> None:
        """Warn, once, that the proxy says of a client not who it is."""
        if not self._unnamed:
            self._unnamed = True
            logger.warning(
                "the proxy does not send the client's address, so all its clients count as one: "
                "configure it to set X-Forwarded-For"
            )

    def arrive(self, address: str) -> "Visit | None":
        """Let a connection from `address` ask; None if there are far too many."""
        return Visit.begin(self, self.clients, client_key(address))

    def arrive_as_operator(self, address: str) -> "Visit | None":
        """Do the same on a port for operators."""
        return Visit.begin(self, self.operators, client_key(address))


class Visit:
    """One connection, from its beginning to its end.

    Attributes:
        entry: whose credentials it came with, if there are any.
    """

    def __init__(self, door: Door, crowd: Crowd, client: str) -> None:
        self._door = door
        self._crowd = crowd
        self._client = client
        self.entry: Entry | None = None
        self._named = False
        self._gone = asyncio.get_running_loop().create_future()
        crowd.enter(client)

    @classmethod
    def begin(cls, door: Door, crowd: Crowd, client: str) -> "Visit | None":
        """Return a new one; None if there are so many that no more are even answered."""
        limits = door.limits
        # Those beyond a limit are told so, unless they come in crowds.
        if _beyond(crowd.count, limits.connections) > CONNECTIONS_BEYOND or (
            not door.policy.proxied
            and _beyond(crowd.present[client], limits.connections_per_address) > 64
        ):
            door.refused["flood"] += 1
            return None
        return cls(door, crowd, client)

    def leave(self) -> None:
        """End."""
        self._gone.set_result(None)
        self._crowd.exit(self._client)

    def forwarded_for(self, request: Request) -> str | None:
        """Count the connection as one of the client that the proxy names; return its address.

        Returns:
            None where there is no proxy, or none that says it.
        """
        address = forwarded_for(request) if self._door.policy.proxied else None
        self._named = address is not None
        if address is not None:
            self._crowd.exit(self._client)
            self._client = client_key(address)
            self._crowd.enter(self._client)
        return address

    def admit(self, request: Request) -> Decision:
        """Decide on an opening handshake that is one."""
        door = self._door
        if door.policy.proxied and not self._named:
            door.warn_of_unnamed()
        refusal = (
            self._check_number()
            or check_host(request, door.policy.hosts)
            or check_origin(request, door.policy.origins)
        )
        if refusal is not None:
            return refusal
        found = self.identify(request)
        if isinstance(found, Refusal):
            return found
        return door.respond_for(found, self._client, self._gone)

    def check(self, request: Request) -> Refusal | None:
        """Refuse a request of plain HTTP for a host that is none of the server's."""
        return check_host(request, self._door.policy.hosts)

    def identify(self, request: Request) -> Identity:
        """Return the roles of who makes a request; refuse wrong credentials."""
        credentials = self._door.credentials
        if credentials is None:
            return EVERY_ROLE
        offer = offered(request)
        if offer is None:
            return _unauthorized("no_credentials", "this server requires credentials")
        self.entry = credentials.verify(offer)
        if self.entry is None:
            return _unauthorized("credentials", "the credentials are wrong")
        return frozenset(self.entry.roles)

    def _check_number(self) -> Refusal | None:
        door = self._door
        if _beyond(self._crowd.count, door.limits.connections) > 0:
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "connections",
                f"there are {door.limits.connections} connections already, and no more are "
                "allowed; try again later",
            )
        number = door.limits.connections_per_address
        if _beyond(self._crowd.present[self._client], number) > 0:
            return Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "connections_per_address",
                f"there are {number} connections from this address already, and no more are "
                "allowed; use these, or try again later",
            )
        return None

    def refused(self, reason: str) -> None:
        """Count that the client was refused."""
        self._door.refused[reason] += 1

    def reached(self, limit: str) -> None:
        """Count that the client came to a limit."""
        self._door.reached[limit] += 1

    @property
    def withdrawn(self) -> bool:
        """Whether its credentials are none any more."""
        credentials = self._door.credentials
        return self.entry is not None and credentials is not None and self.entry not in credentials


def _beyond(count: int, limit: int) -> int:
    return count - limit if limit else 0


def _unauthorized(cause: str, what: str) -> Refusal:
    return Refusal(
        HTTPStatus.UNAUTHORIZED,
        cause,
        f"{what}; send a name and its secret with HTTP Basic, or the secret as a Bearer token",
        {"WWW-Authenticate": f'{build_www_authenticate_basic("ndb")}, Bearer realm="ndb"'},
    )
