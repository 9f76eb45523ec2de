"""Listening addresses and Unix sockets: from their names to listening sockets.

There may be several hosts, and a host may have several addresses. All of them get the same port. If
any free port may be used, the first address determines it.
"""

import errno
import logging
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from .resolver import SocketAddress, resolve_host

logger = logging.getLogger("ndb_server.listeners")

BACKLOG = 4096
"""Connections that may wait to be accepted: many clients come back at once, after a network was
down."""

_ATTEMPTS = 20
"""How often another free port is looked for, if the one of the first address is in use on another
one."""

_UNIX_PATH_SIZE = 107
"""The most bytes of a Unix socket's path (unix(7))."""

_UNIX_MODE = 0o660

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - to know it is not to listen there

# The machine has no such address, or nothing of its family.
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class ListenError(Exception):
    """The server can't listen on an address; says which and why."""


class Address(NamedTuple):
    """One address of a host.

    Attributes:
        host: the host, as it was given.
        family: that of the address.
        protocol: number of the protocol.
        place: the address as sockets take it; its port is 0.
    """

    host: str
    family: int
    protocol: int
    place: SocketAddress

    def __str__(self) -> str:
        return self.place[0]


async def resolve(hosts: Iterable[str], port: int) -> list[Address]:
    """Return where to listen for `hosts`: their addresses, in their order, each of them once.

    Args:
        hosts: addresses, and names to look up.
        port: what is to be listened on; it is for the error alone.

    Raises:
        ListenError: a host has none.
        RuntimeError: no thread can be started to look a name up.
    """
    found: dict[object, Address] = {}
    for host in hosts:
        try:
            infos = await resolve_host(host)
        except (OSError, ValueError) as error:
            # A host that no resolver can be asked for is a ValueError.
            raise ListenError(f"cannot listen on {host} port {port}: {_reason(error)}") from error
        for family, protocol, place in infos:
            found.setdefault((family, place), Address(host, family, protocol, place))
    # Any address stands for every other one of its family.
    any_of = {address.family for address in found.values() if str(address) in _ANY}
    return [one for one in found.values() if one.family not in any_of or str(one) in _ANY]


def exposed_addresses(
    addresses: Iterable[Address], passed: Iterable[socket.socket]
) -> list[tuple[str, str]]:
    """Return where a network may reach the server: each host with one of its addresses.

    Args:
        addresses: what is to be listened on.
        passed: what listens already. Unix sockets are no network's.
    """
    names = [one.getsockname() for one in passed]
    return [
        *((address.host, str(address)) for address in addresses),
        *((str(name[0]), str(name[0])) for name in names if isinstance(name, tuple)),
    ]


def listen(addresses: Sequence[Address], port: int) -> list[socket.socket]:
    """Listen on one port of all `addresses`.

    An address that this machine doesn't have is left out, if its host has another one.

    Args:
        addresses: where to listen.
        port: on which port; 0 for any that is free on all of them.

    Returns:
        The sockets, in the order of the addresses.

    Raises:
        ListenError: it can't be listened on one of them.
    """
    attempts = 1 if port else _ATTEMPTS
    while True:
        attempts -= 1
        sockets: list[socket.socket] = []
        try:
            _listen(addresses, port, sockets)
        except BaseException as error:
            # A port that is free on the first address may be in use on another one.
            again = isinstance(error, _InUseError) and bool(sockets)
            for one in sockets:
                one.close()
            if not (again and attempts):
                raise
        else:
            return sockets


class _InUseError(ListenError):
    """The port is in use."""


def _listen(addresses: Sequence[Address], port: int, sockets: list[socket.socket]) -> None:
    """Listen on one port of all `addresses`; put what listens into `sockets`."""
    # Any address of IPv6 stands for any of IPv4 too, where no address of IPv4 is given.
    dual = all(address.family == socket.AF_INET6 for address in addresses)
    reached: set[str] = set()
    missing: list[tuple[str, ListenError]] = []
    for address in addresses:
        try:
            one = _listen_on(address, port, dual)
        except OSError as error:
            trouble = f"cannot listen on {address} port {port}: {_reason(error)}"
            if error.errno == errno.EADDRINUSE:
                raise _InUseError(trouble) from error
            if error.errno not in _NOT_HERE:
                raise ListenError(trouble) from error
            missing.append((address.host, ListenError(trouble)))
        else:
            sockets.append(one)
            reached.add(address.host)
            port = one.getsockname()[1]
    for host, missed in missing:
        if host not in reached:
            raise missed
        logger.info("%s; %s has another address", missed, host)


def _listen_on(address: Address, port: int, dual: bool) -> socket.socket:
    # With its protocol, so that the connections are known as those of TCP.
    one = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            # Systems differ in what they do if they are not told.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        one.bind((address.place[0], port, *address.place[2:]))
        one.listen(BACKLOG)
    except BaseException:  # Whatever it is goes on: nobody else would close the socket.
        one.close()
        raise
    return one


class SocketFile(NamedTuple):
    """The file of a Unix socket that this process has made.

    Attributes:
        path: where it is.
        identity: which device and which inode.
    """

    path: Path
    identity: tuple[int, int]

    def remove(self) -> None:
        """Remove it, if it is still the one that was made."""
        with suppress(OSError):
            if _identity(self.path.lstat()) == self.identity:
                self.path.unlink()


def listen_unix(path: Path) -> tuple[socket.socket, SocketFile]:
    """Listen on a Unix socket, which its owner and its group may use.

    The file of a server that is dead is replaced.

    Args:
        path: where it is to be.

    Returns:
        What listens, and its file.

    Raises:
        ListenError: it can't be there.
    """
    one = socket.socket(socket.AF_UNIX)
    try:
        size = len(os.fsencode(path))
        if size > _UNIX_PATH_SIZE:
            raise ListenError(
                f"cannot listen on {path}: it has {size} bytes; "
                f"at most {_UNIX_PATH_SIZE} are possible"
            )
        _remove_stale_socket(path)
        one.bind(str(path))
        file = SocketFile(path, _identity(path.lstat()))
        # Nobody can connect before it listens, so nobody does with another mode.
        path.chmod(_UNIX_MODE)
        one.listen(BACKLOG)
    except (OSError, ValueError) as error:
        one.close()
        # A path with a null character is a ValueError.
        raise ListenError(f"cannot listen on {path}: {_reason(error)}") from error
    except BaseException:  # Whatever it is goes on: nobody else would close the socket.
        one.close()
        raise
    return one, file


def _remove_stale_socket(path: Path) -> None:
    """Remove the file of a Unix socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {path}: it exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as asking:
        # One that listens and has no room for another connection would be waited for.
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            pass
    # What is there still is in use: to listen there fails with that reason.


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def url_of(listening: socket.socket, scheme: str) -> str:
    """Return the URL of what listens.

    Args:
        listening: the socket.
        scheme: that of the URL where it is of TCP: ``ws``, ``wss`` or ``http``. A Unix socket's
            has ``+unix`` after it.
    """
    place = listening.getsockname()
    if isinstance(place, str):
        return f"{scheme}+unix://{quote(os.fsencode(place), safe='/')}"
    host, port = place[:2]
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def _reason(error: Exception) -> object:
    if not isinstance(error, OSError):
        return error
    # Texts of look-ups have no number; those of the loop repeat the address.
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror
