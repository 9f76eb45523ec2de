"""Options that have no effect in the combination in which they are given."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..access.request_checks import is_safe_from_rebinding, parse_allowed_host
from ..limits import Limits
from ..server.systemd import OPS_SOCKET


def contradiction(given: Mapping[str, Any]) -> str | None:
    """Return why what is asked for can't be had; None if it can.

    Args:
        given: the options that were given, wherever, by the names of the parameters.
    """
    if "data_dir" not in given:
        if "durability" in given:
            return (
                "--durability has no effect without --data-dir: add --data-dir, or leave out "
                "--durability"
            )
        if given.get("salvage"):
            return (
                "--salvage has no effect without --data-dir: add --data-dir, or leave out --salvage"
            )
    if "when_full" in given and given.get("max_memory") == 0:
        return (
            "--when-full has no effect with --max-memory 0, which means no limit: leave one of "
            "them out"
        )
    return None


def options_without_effect(given: Mapping[str, Any], passed: Collection[str] = ()) -> list[str]:
    """Return what to say of options that do no harm, and nothing else.

    Args:
        given: as above.
        passed: the names of the sockets that the service manager passes.
    """
    said = list(_beside_sockets(given, passed))
    most = given.get("max_connections", Limits().connections)
    of_one = given.get("max_connections_per_address", 0)
    if 0 < most < of_one:
        said.append(
            f"--max-connections-per-address {of_one} has no effect: --max-connections allows only "
            f"{most} connections in total"
        )
    if {"unix", "port"} <= given.keys() and "host" not in given and not _for_clients(passed):
        said.append("--port has no effect with --unix alone: add --host, or leave out --port")
    if given.get("insecure") and given.get("behind_proxy"):
        said.append("--insecure has no effect with --behind-proxy: leave it out")
    if "auth_file" not in given:
        said += [
            f"--allow-host {host} has no effect: addresses and localhost are always accepted"
            for host in given.get("allow_host", ())
            if is_safe_from_rebinding(parse_allowed_host(host))
        ]
    return said


def _for_clients(passed: Collection[str]) -> bool:
    return any(name != OPS_SOCKET for name in passed)


def _beside_sockets(given: Mapping[str, Any], passed: Collection[str]) -> Iterator[str]:
    if _for_clients(passed):
        on_host = "ops_port" in given and OPS_SOCKET not in passed
        # A name of this server is one by which clients may know it, wherever it listens.
        named = not all(is_safe_from_rebinding(host.lower()) for host in given.get("host", ()))
        for option in ("host", "port", "unix"):
            if option in given and not (option == "host" and (on_host or named)):
                yield f"--{option} has no effect: the service manager has passed a socket"
    if OPS_SOCKET in passed and "ops_port" in given:
        yield (
            "--ops-port has no effect: the service manager has passed a socket for health and "
            "metrics"
        )
