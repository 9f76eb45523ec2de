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

from ..addresses import client_key
from ..http.responses import Refusal
from ..interfaces import Respond
from ..limits import CONNECTIONS_BEYOND, Limits
from .credentials import Credentials, Entry
from .request_checks import (
    check_host,
    check_origin,
    forwarded_for,
    sent_credentials,
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
        behind_proxy: whether all connections come through a proxy that sends the client's address.
    """

    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = frozenset()
    behind_proxy: bool = False


class ConnectionCounts:
    """Counts the open connections.

    Attributes:
        count: the number of all connections.
        by_client: the number of connections of each client.
    """

    def __init__(self) -> None:
        self.count = 0
        self.by_client: Counter[str] = Counter()

    def add(self, client: str) -> None:
        """Count one more."""
        self.count += 1
        self.by_client[client] += 1

    def remove(self, client: str) -> None:
        """Count one less."""
        self.count -= 1
        self.by_client[client] -= 1
        if not self.by_client[client]:
            del self.by_client[client]


class AdmissionControl:
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
        self.clients = ConnectionCounts()
        # However many clients there are, operators are told so.
        self.operators = ConnectionCounts()
        self._warned = False

    def warn_without_forwarded_for(self) -> None:
        """Warn, once, that the proxy says of a client not who it is."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "the proxy does not send the client's address, so all its clients count as one: "
                "configure it to set X-Forwarded-For"
            )

    def admit_client(self, address: str) -> "ConnectionAdmission | None":
        """Let a connection from `address` ask; None if there are far too many."""
        return ConnectionAdmission.begin(self, self.clients, client_key(address))

    def admit_operator(self, address: str) -> "ConnectionAdmission | None":
        """Do the same on a port for operators."""
        return ConnectionAdmission.begin(self, self.operators, client_key(address))


class ConnectionAdmission:
    """One connection, from its beginning to its end.

    Attributes:
        entry: whose credentials it came with, if there are any.
    """

    def __init__(self, control: AdmissionControl, counts: ConnectionCounts, client: str) -> None:
        self._control = control
        self._counts = counts
        self._client = client
        self.entry: Entry | None = None
        self._is_forwarded = False
        self._ended = asyncio.get_running_loop().create_future()
        counts.add(client)

    @classmethod
    def begin(
        cls, control: AdmissionControl, counts: ConnectionCounts, client: str
    ) -> "ConnectionAdmission | None":
        """Return a new one; None if there are so many that no more are even answered."""
        limits = control.limits
        # Those beyond a limit are told so, unless they come in crowds.
        if _excess(counts.count, limits.connections) > CONNECTIONS_BEYOND or (
            not control.policy.behind_proxy
            and _excess(counts.by_client[client], limits.connections_per_address) > 64
        ):
            control.refused["flood"] += 1
            return None
        return cls(control, counts, client)

    def leave(self) -> None:
        """End."""
        self._ended.set_result(None)
        self._counts.remove(self._client)

    def forwarded_for(self, request: Request) -> str | None:
        """Count the connection as one of the client that the proxy names; return its address.

        Returns:
            None where there is no proxy, or none that says it.
        """
        address = forwarded_for(request) if self._control.policy.behind_proxy else None
        self._is_forwarded = address is not None
        if address is not None:
            self._counts.remove(self._client)
            self._client = client_key(address)
            self._counts.add(self._client)
        return address

    def admit(self, request: Request) -> Decision:
        """Decide on an opening handshake that is one."""
        control = self._control
        if control.policy.behind_proxy and not self._is_forwarded:
            control.warn_without_forwarded_for()
        refusal = (
            self._check_number()
            or check_host(request, control.policy.hosts)
            or check_origin(request, control.policy.origins)
        )
        if refusal is not None:
            return refusal
        found = self.identify(request)
        if isinstance(found, Refusal):
            return found
        return control.respond_for(found, self._client, self._ended)

    def check(self, request: Request) -> Refusal | None:
        """Refuse a request of plain HTTP for a host that is none of the server's."""
        return check_host(request, self._control.policy.hosts)

    def identify(self, request: Request) -> Identity:
        """Return the roles of who makes a request; refuse wrong credentials."""
        credentials = self._control.credentials
        if credentials is None:
            return EVERY_ROLE
        sent = sent_credentials(request)
        if sent is None:
            return _unauthorized("no_credentials", "this server requires credentials")
        self.entry = credentials.verify(sent)
        if self.entry is None:
            return _unauthorized("credentials", "the credentials are wrong")
        return frozenset(self.entry.roles)

    def _check_number(self) -> Refusal | None:
        control = self._control
        if _excess(self._counts.count, control.limits.connections) > 0:
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "connections",
                f"there are {control.limits.connections} connections already, and no more are "
                "allowed; try again later",
            )
        number = control.limits.connections_per_address
        if _excess(self._counts.by_client[self._client], number) > 0:
            return Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "connections_per_address",
                f"there are {number} connections from this address already, and no more are "
                "allowed; use these, or try again later",
            )
        return None

    def refused(self, reason: str) -> None:
        """Count that the client was refused."""
        self._control.refused[reason] += 1

    def reached(self, limit: str) -> None:
        """Count that the client came to a limit."""
        self._control.reached[limit] += 1

    @property
    def withdrawn(self) -> bool:
        """Whether its credentials are none any more."""
        credentials = self._control.credentials
        return self.entry is not None and credentials is not None and self.entry not in credentials


def _excess(count: int, limit: int) -> int:
    return count - limit if limit else 0


def _unauthorized(cause: str, what: str) -> Refusal:
    return Refusal(
        HTTPStatus.UNAUTHORIZED,
        cause,
        f"{what}; send a name and its secret with HTTP Basic, or the secret as a Bearer token",
        {"WWW-Authenticate": f'{build_www_authenticate_basic("ndb")}, Bearer realm="ndb"'},
    )
