"""The permissions of roles."""

from collections.abc import Collection, Mapping

from ndb_protocol import COMMANDS, Status
from ndb_protocol.commands import Role

from ..interfaces import Handler
from .dispatcher import RefusalHandler


def permitted(handlers: Mapping[str, Handler], roles: Collection[Role]) -> dict[str, Handler]:
    """Return `handlers` with refusals (status 14) in place of what none of `roles` may do.

    Made once for all clients with the same roles, it costs their requests nothing.
    """
    return {
        name: handler if role is None or role in roles else _refusing(name, role, roles)
        for name, handler in handlers.items()
        for role in [COMMANDS[name].role]
    }


def _refusing(name: str, needed: Role, roles: Collection[Role]) -> Handler:
    has = ", ".join(sorted(role.value for role in roles)) or "none"
    return RefusalHandler(
        Status.COMMAND_DISABLED, f"{name} needs the role {needed.value}; this client's: {has}"
    )
