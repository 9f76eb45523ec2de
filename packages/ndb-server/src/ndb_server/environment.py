"""Variables of the environment that begin like the server's and are none of them.

Kubernetes tells each container of the Services around it: one called ``ndb`` makes ``NDB_PORT`` and
its like, one called ``ndb-ops`` makes ``NDB_OPS_PORT``. So does Docker for containers that are
linked.
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


class Strangers(NamedTuple):
    """Variables that are passed over.

    Attributes:
        of_services: those that were made for a Service or a link.
        hidden: those of them that would be options.
        unknown: what to say of each of the others.
    """

    of_services: list[str]
    hidden: list[str]
    unknown: list[str]


def set_aside(environment: MutableMapping[str, str], options: Collection[str]) -> Strangers:
    """Take what is made for Services out of `environment`; say what else is no option.

    Args:
        environment: the variables.
        options: the names of those that are options.
    """
    found = Strangers([], [], [])
    stems = [option.removeprefix(PREFIX) for option in options]
    for name in sorted(name for name in environment if name.startswith(PREFIX)):
        if _is_of_a_service(name, environment[name]):
            del environment[name]
            found.of_services.append(name)
            if name in options:
                found.hidden.append(name)
        elif name not in options:
            near = get_close_matches(name.removeprefix(PREFIX), stems, n=1)
            meant = f"; is {PREFIX}{near[0]} meant?" if near else ""
            found.unknown.append(f"the variable {name} has no effect: it is no option{meant}")
    return found


def _is_of_a_service(name: str, value: str) -> bool:
    if name.endswith("_PORT") and _ADDRESS.match(value):
        return True
    # Docker has the names of both containers in it, with slashes.
    if name.endswith("_NAME") and value.startswith("/"):
        return True
    return _OF_A_SERVICE.fullmatch(name) is not None
