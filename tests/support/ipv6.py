"""Whether this machine has IPv6."""

import socket

import pytest


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# Some containers have no IPv6 at all: there is nothing to listen to, and nothing to be tested.
needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
