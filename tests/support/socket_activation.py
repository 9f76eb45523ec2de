"""Sockets that a service manager passes to a server: sd_listen_fds(3)."""

import socket
from typing import Any


def activated(sockets: list[socket.socket], names: str = "") -> dict[str, Any]:
    """Return how to start a server to which a manager passes these sockets, from 3 on."""
    passed = [one.fileno() for one in sockets]
    # Further up first, so that none is in the place where one of them is to be.
    moves = [f"{number + 20}<&{fd}" for number, fd in enumerate(passed)]
    moves += [f"{number + 3}<&{number + 20}" for number in range(len(passed))]
    script = f'export LISTEN_PID=$$; exec {" ".join(moves)}; exec "$@"'
    return {
        "through": ["bash", "-c", script, "bash"],
        "pass_fds": passed,
        "env": {"LISTEN_FDS": str(len(passed))} | ({"LISTEN_FDNAMES": names} if names else {}),
    }


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))
