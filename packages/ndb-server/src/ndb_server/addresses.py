"""IP addresses of clients and of the server. Pure."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that `host` is; None if it is a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    # Without the zone (RFC 4007): where the packets go, it doesn't say who somebody is.
    return address.ipv4_mapped or IPv6Address(int(address))


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address `host`."""
    address = parse_address(host)
    return address is not None and address.is_loopback


def shown_address(host: str) -> str:
    """Return the address `host` as logs show it: one of IPv4 is one, on a socket of both too."""
    address = parse_address(host)
    return str(address) if isinstance(address, IPv4Address) else host


def client_key(host: str) -> str:
    """Return by what to count a client at address `host`.

    Whoever has one address of IPv6 has a network of 2⁶⁴ of them, so that is counted as one.
    """
    address = parse_address(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return host if address is None else str(address)
