"""Checks the headers of an opening handshake: who the client is, and if it may connect. Pure.

Two attacks come through a browser, which opens a WebSocket to any address for any page:

* A page of another origin connects to a server that its user can reach. Browsers send the page's
  origin in ``Origin`` (RFC 6455, section 10.2). Programs that are not browsers send none.
* The owner of a site lets the site's name resolve to the address of the server (DNS rebinding), so
  the browser treats the server as that site. ``Host`` still has the name.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from ndb_protocol.authority import parse_authority, parse_host
from websockets.http11 import Request

from ..addresses import parse_address
from ..http.responses import NO_HOST, Refusal

_DEFAULT_PORTS = {"http": 80, "https": 443}


class SentCredentials(NamedTuple):
    """The credentials that a client sends; `name` is None if it sent only the secret."""

    name: str | None
    secret: str

    def __repr__(self) -> str:
        return f"Offer(name={self.name!r})"


def parse_origin(text: str) -> str:
    """Return the origin that `text` is, as browsers write it (RFC 6454, section 6.2).

    Raises:
        ValueError: it is none, or one that stands for any page.
    """
    if text == "null":
        raise ValueError(
            "'null' is the origin of many different pages, so it does not identify one"
        )
    if "*" in text:
        raise ValueError(f"'{text}': * is not a wildcard here; give each origin separately")
    parts = urlsplit(text)
    if not parts.scheme or not parts.hostname or text.split("://", 1)[1] != parts.netloc:
        raise ValueError(f"'{text}' is not an origin; an example is https://app.example:8443")
    if parts.username is not None:
        raise ValueError("an origin has no credentials")
    if parts.scheme in ("ws", "wss"):
        raise ValueError(
            f"'{text}' is the URL of a server; the origin of a page begins with http: or https:"
        )
    _check_name(parts.hostname)
    host, port = parse_authority(parts.netloc)
    if ":" in host:
        host = f"[{host}]"
    if port is None or port == _DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


def _check_name(name: str) -> None:
    """Refuse what no browser and no program sends as the name of a host.

    Raises:
        ValueError: it is that; says what they send instead.
    """
    if parse_address(name) is not None or _NAME.fullmatch(name):
        return
    try:
        sent = name.encode("idna").decode()
    except UnicodeError:
        sent = name
    if sent == name or not _NAME.fullmatch(sent):
        raise ValueError(f"'{name}' is not a host name")
    raise ValueError(f"clients send '{name}' as {sent}; give that")


def parse_allowed_host(text: str) -> str:
    """Return the name or address by which clients know the server, as they send it.

    Raises:
        ValueError: it is none, or there is more to it, which would have no effect.
    """
    if "*" in text:
        raise ValueError(
            f"'{text}': * is not a wildcard here; give each name separately, or require "
            "credentials (--auth-file) without --allow-host to accept any name"
        )
    if "/" in text:
        raise ValueError(f"'{text}' is more than a host; give only its name, such as ndb.example")
    if parse_address(text) is not None:
        return text
    # What is not ASCII is no authority, but can be told how it is sent.
    host, port = parse_authority(text) if text.isascii() else (text, None)
    _check_name(host)
    if port is not None:
        raise ValueError(f"'{text}' has a port, which is not compared; give only {host}")
    return host


def is_safe_from_rebinding(host: str) -> bool:
    """Tell whether `host` may stand in any ``Host`` header: no DNS can make it another site's."""
    return parse_address(host) is not None or host == "localhost" or host.endswith(".localhost")


def check_origin(request: Request, allowed: Collection[str]) -> Refusal | None:
    """Refuse a page of an origin that is not `allowed`."""
    origins = request.headers.get_all("Origin")
    if not origins or (len(origins) == 1 and origins[0] in allowed):
        return None
    return Refusal(
        HTTPStatus.FORBIDDEN,
        "origin",
        "pages of this origin may not connect; --allow-origin allows an origin",
    )


def check_host(request: Request, allowed: Collection[str] | None) -> Refusal | None:
    """Refuse a request for a host that is none of `allowed`, if that is given.

    A request of HTTP/1.0 needs no ``Host``. No browser sends one without, so no page can.
    """
    hosts = request.headers.get_all("Host")
    if not hosts and request.protocol == "HTTP/1.0":
        return None
    try:
        [text] = hosts
        host = parse_host(text)
    except ValueError:
        return NO_HOST
    if allowed is None or host in allowed or is_safe_from_rebinding(host):
        return None
    return Refusal(
        HTTPStatus.FORBIDDEN,
        "host",
        "this is not a name of this server; --allow-host allows a name",
    )


def sent_credentials(request: Request) -> SentCredentials | None:
    """Return the credentials in ``Authorization``, Basic (RFC 7617) or Bearer (RFC 6750).

    Returns:
        None if there are none that can be understood.
    """
    headers = request.headers.get_all("Authorization")
    if len(headers) != 1:
        return None
    scheme, _, value = headers[0].partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return SentCredentials(None, value)
    if scheme.lower() == "basic":
        try:
            name, colon, secret = b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return SentCredentials(name, secret) if colon else None
    return None


def forwarded_for(request: Request) -> str | None:
    """Return the client's address as the proxy in front of the server says; None if it does not.

    That is the last one of ``X-Forwarded-For``: those before it are what the client says. Some
    proxies add the port.

    ``Forwarded`` (RFC 7239) is not looked at: a proxy that sets one of the two passes the other on
    as the client has sent it.
    """
    entries = ",".join(request.headers.get_all("X-Forwarded-For")).rsplit(",", 1)
    entry = entries[-1].strip()
    # An address of IPv6 has brackets where a port may follow.
    for text in (entry, f"[{entry}]"):
        with suppress(ValueError):
            address = parse_address(parse_host(text))
            if address is not None:
                return str(address)
    return None
