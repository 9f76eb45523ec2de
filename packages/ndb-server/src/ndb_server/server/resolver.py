"""Looks up the addresses of host names, without the event loop.

Event loops look names up in threads that they keep; uvloop does so for addresses too. If no thread
can be started, libuv ends the process.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import cast

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""An address as a socket of its family takes it; one of IPv6 has its scope."""

AddressInfo = tuple[int, int, SocketAddress]
"""A family, the number of the protocol, and where; its port is 0."""


async def resolve_host(host: str) -> list[AddressInfo]:
    """Return the addresses of `host`, which may be one.

    Nobody waits for a look-up that is not asked for any more.

    Raises:
        OSError: there are none.
        ValueError: no resolver can be asked for `host`.
        RuntimeError: no thread can be started.
    """
    with suppress(socket.gaierror):
        # Nobody has to be asked for an address, so this takes no time.
        return _resolve(host, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[AddressInfo]] = loop.create_future()

    def tell(addresses: list[AddressInfo], error: Exception | None) -> None:
        if not found.done():
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

    def ask() -> None:
        addresses: list[AddressInfo] = []
        failure: Exception | None = None
        try:
            addresses = _resolve(host)
        except (OSError, ValueError) as error:
            failure = error
        # The loop may have ended since.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, addresses, failure)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await found


def _resolve(host: str, flags: int = 0) -> list[AddressInfo]:
    infos = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=flags)
    return list(
        dict.fromkeys(
            (family, protocol, cast(SocketAddress, place))
            for family, _, protocol, _, place in infos
        )
    )
