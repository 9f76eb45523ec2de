"""Environment variables that begin with the server's prefix but are not options.

Kubernetes sets variables for Services in each container: for a Service called ``ndb`` it sets
``NDB_PORT`` and similar ones, for one called ``ndb-ops`` it sets ``NDB_OPS_PORT``. Docker does the
same for linked containers.
"""

import re
from collections.abc import Collection, MutableMapping
from difflib import get_close_matches
from typing import NamedTuple

PREFIX = "NDB_"

_OF_A_SERVICE = re.compile(
    r"NDB_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?|ENV_\w+)"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class UnknownVariables(NamedTuple):
    """Variables that are not options.

    Attributes:
        of_services: those that were set for a Service or a link; they are ignored.
        hidden: those of them that have the name of an option.
        unknown: a warning for each of the others.
    """

    of_services: list[str]
    hidden: list[str]
    unknown: list[str]


def remove_unknown_variables(
    environment: MutableMapping[str, str], options: Collection[str]
) -> UnknownVariables:
    """Take what is made for Services out of `environment`; say what else is no option.

    Args:
        environment: the variables.
        options: the names of those that are options.
    """
    found = UnknownVariables([], [], [])
    stems = [option.removeprefix(PREFIX) for option in options]
    for name in sorted(name for name in environment if name.startswith(PREFIX)):
        if _is_of_a_service(name, environment[name]):
            del environment[name]
            found.of_services.append(name)
            if name in options:
                found.hidden.append(name)
        elif name not in options:
            near = get_close_matches(name.removeprefix(PREFIX), stems, n=1)
            meant = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            found.unknown.append(f"the variable {name} has no effect: it is not an option{meant}")
    return found


def _is_of_a_service(name: str, value: str) -> bool:
    if name.endswith("_PORT") and _ADDRESS.match(value):
        return True
    # Docker has the names of both containers in it, with slashes.
    if name.endswith("_NAME") and value.startswith("/"):
        return True
    return _OF_A_SERVICE.fullmatch(name) is not None
