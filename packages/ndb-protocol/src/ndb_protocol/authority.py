"""The host that a request is for, in ``Host`` or in its target. Pure.

The grammar is that of RFC 3986, section 3.2, without user information, which RFC 9110, section
4.2.4, forbids. All of it has to match: `[::1].evil.example` is no address with something behind it.
"""

import re
from ipaddress import IPv6Address

_AUTHORITY = re.compile(
    r"""
    (?: \[ (?P<literal> [0-9A-Fa-f:.]+ (?: % [A-Za-z0-9._~-]+ )? ) \]  # with the zone of RFC 6874
      | (?P<name> (?: [A-Za-z0-9._~!$&'()*+,;=-] | % [0-9A-Fa-f]{2} )+ ) )
    (?: : (?P<port> [0-9]* ) )?
    """,
    re.VERBOSE,
)

_HIGHEST_PORT = 65535


def parse_authority(text: str) -> tuple[str, int | None]:
    """Return the host that `text` names, in lower case and without brackets, and its port.

    Raises:
        ValueError: it is no host with or without a port.
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a host")
    literal, name, digits = found["literal"], found["name"], found["port"]
    if literal is not None:
        IPv6Address(literal)
    port = int(digits) if digits else None
    if port is not None and port > _HIGHEST_PORT:
        raise ValueError(f"{digits} is not a port")
    return (literal or name.rstrip(".")).lower(), port


def parse_host(text: str) -> str:
    """Return the name or address that `text` names, without its port.

    Raises:
        ValueError: it is no host with or without a port.
    """
    host, _ = parse_authority(text)
    if not host:
        raise ValueError(f"{text!r} is not a host")
    return host
