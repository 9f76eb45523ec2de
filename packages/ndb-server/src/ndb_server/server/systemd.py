"""The interface to systemd: sd_notify(3) and sd_listen_fds(3)."""

import os
import socket
from contextlib import suppress

OPS_SOCKET = "ops"
"""The name of a socket, of those the service manager passes, that is for health and metrics."""

_FIRST = 3
"""The descriptor of the first socket that is passed (SD_LISTEN_FDS_START)."""


def notify(state: str) -> None:
    """Tell the service manager something, such as ``READY=1``, if there is one to tell.

    One that can't be told changes nothing: the server runs as well without.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # "@" stands for the null byte of an abstract address (unix(7)).
    place = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
        telling.sendto(state.encode(), place)


def passed_names() -> list[str]:
    """Return the names of the sockets that `passed_sockets` has yet to take over."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    # A manager that names none leaves the names out.
    names = os.environ.get("LISTEN_FDNAMES")
    return names.split(":") if names else [""] * int(os.environ.get("LISTEN_FDS") or 0)


def passed_sockets() -> list[tuple[str, socket.socket]]:
    """Take over the listening sockets that the service manager has opened for this process.

    They are taken once: what this process starts is not told of them.

    Returns:
        Each socket with its name (``FileDescriptorName=``), in the order of the descriptors.

    Raises:
        ValueError: one of them is no TCP or Unix socket that listens; says which.
    """
    names = passed_names()
    _, count, _ = (
        os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    descriptors = range(_FIRST, _FIRST + int(count)) if names else ()
    return [
        (name, _listening(descriptor)) for descriptor, name in zip(descriptors, names, strict=True)
    ]


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
        if (
            (passed.family in (socket.AF_INET, socket.AF_INET6) or _is_file(passed))
            and passed.type == socket.SOCK_STREAM
            and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            return passed
    except OSError:
        # It is no socket, or nothing at all.
        pass
    raise ValueError(
        f"descriptor {descriptor}, passed by the service manager, is not a listening TCP or Unix "
        "socket"
    )


def _is_file(passed: socket.socket) -> bool:
    """Tell whether it is a Unix socket with a path.

    To one without, an abstract one, everybody on the machine can connect, and no URI leads there.
    """
    return passed.family == socket.AF_UNIX and str(passed.getsockname()).startswith("/")
