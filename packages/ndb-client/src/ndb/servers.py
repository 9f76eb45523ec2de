"""The addresses of servers, and the credentials for them."""

import os
import re
import ssl as tls
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from ndb_protocol.authority import parse_authority
from websockets.exceptions import InvalidURI
from websockets.headers import build_authorization_basic
from websockets.uri import WebSocketURI, parse_uri

Uris = str | Sequence[str]
"""One URI, or several to be tried in turn."""

Credentials = tuple[str, str] | str
"""A name and its secret, sent as HTTP Basic (RFC 7617); or a token, as Bearer (RFC 6750)."""

_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_HOW = "use ws://HOST:PORT/, wss://HOST:PORT/ or ws+unix:///PATH"

_NOT_IN_URIS = re.compile(r"[\x00-\x20\x7f]")
_AUTHORITY = re.compile(r"[^:]*://([^/?#]*)(.*)", re.DOTALL)

# As node's `ws` and Bun write it: behind the path of the socket, a colon and what is asked for.
_UNIX = re.compile(
    r"ws\+unix://(?P<credentials>[^/?#]*@)?(?P<path>/[^:?#]*)"
    r"(?::(?P<asked>/[^?#]*)?)?(?P<rest>[?#].*)?",
    re.IGNORECASE | re.DOTALL,
)

_UNIX_PATH_SIZE = 107
"""The most bytes of a Unix socket's path; an event loop may cut off what is beyond."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server.

    Attributes:
        address: where it is, without credentials; for a Unix socket, what it is asked for.
        authorization: the value of the header ``Authorization``, if there is one.
        ssl: how to use TLS; None = as the system does.
        path: that of its Unix socket, if it has one.
        names_port: whether the URI has a port, or needs none.
    """

    address: WebSocketURI
    authorization: str | None = field(repr=False)
    ssl: tls.SSLContext | None = field(repr=False)
    path: str | None = None
    names_port: bool = True

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"{host}:{self.address.port}"


def parse_servers(
    uris: Uris | None, credentials: Credentials | None, context: tls.SSLContext | None
) -> list[Server]:
    """Return the servers at `uris`.

    Raises:
        ValueError: there is no URI, or one of no WebSocket server, or the credentials can't be
            sent. No message holds any part of them.
        TypeError: `credentials` is neither a pair of strings nor a string.
    """
    authorization = None if credentials is None else _authorization(credentials)
    servers = [_server(uri, context) for uri in ([uris] if isinstance(uris, str) else uris or [])]
    if not servers:
        raise ValueError(f"no URI; {_HOW}")
    if authorization is None:
        return servers
    if any(server.authorization is not None for server in servers):
        raise ValueError("credentials are given both in a URI and as an argument; give one of them")
    return [replace(server, authorization=authorization) for server in servers]


def _server(uri: str, context: tls.SSLContext | None) -> Server:
    if not uri:
        raise ValueError(f"no URI; {_HOW}")
    if _NOT_IN_URIS.search(uri):
        # urllib leaves some of them out, so that another host would be meant.
        raise _not_a_uri("a space or a control character is in it")
    path, uri = _split(uri)
    try:
        address = parse_uri(uri)
    except InvalidURI as error:
        # Not the error itself: it repeats the URI, which may hold a secret.
        raise _not_a_uri(error.msg) from None
    except ValueError as error:
        # Of what stands where the port should, or of the credentials: it may hold the secret.
        out_of_range = str(error).startswith("Port out of range")
        what = "port out of range" if out_of_range else "its host, port or credentials are wrong"
        raise _not_a_uri(what) from None
    port = _port(uri)
    if context is not None and not address.secure:
        raise ValueError("ssl is given, but the URI is not encrypted; use wss://HOST:PORT/")
    authorization = None if address.user_info is None else _authorization(address.user_info)
    return Server(
        replace(address, username=None, password=None),
        authorization,
        context,
        path,
        names_port=path is not None or port is not None,
    )


def _port(uri: str) -> int | None:
    """Return the port in a URI that `parse_uri` has taken.

    Raises:
        ValueError: it is another host than urllib makes of it, or there may be a secret in it.
    """
    authority, behind = _AUTHORITY.fullmatch(uri).groups()  # type: ignore[union-attr]
    if "@" in behind:
        # A secret with a slash ends in front of it, and its beginning would be a host.
        raise _not_a_uri("an @ follows the host: is there a secret with a / ? or # in it?")
    *_, host = authority.rpartition("@")
    try:
        _, port = parse_authority(host if host.isascii() else host.encode("idna").decode())
    except ValueError:
        raise _not_a_uri("its host or port is wrong") from None
    if port == 0:
        raise _not_a_uri("0 is not a valid port")
    return port


def _not_a_uri(what: str) -> ValueError:
    return ValueError(
        f"not a WebSocket URI: {what}; {_HOW}, and percent-encode special characters in "
        "credentials (%2F for /, %40 for @)"
    )


def _split(uri: str) -> tuple[str | None, str]:
    """Split the URI of a Unix socket into the socket's path and the URI of what is asked for.

    Returns:
        No path, and the URI as it is, if it is that of a host.
    """
    if not uri.lower().startswith("ws+unix:"):
        return None, uri
    found = _UNIX.fullmatch(uri)
    # Nothing of what is wrong is repeated: it may hold a secret.
    if found is None:
        raise ValueError(
            "not the URI of a Unix socket: it must have an absolute path and no host; use "
            "ws+unix:///PATH, and percent-encode special characters (%3A for a colon)"
        )
    path = unquote(found["path"], errors="surrogateescape")
    if path.endswith("/") or "\0" in path:
        raise ValueError("not the URI of a Unix socket: its path names no file")
    if len(os.fsencode(path)) > _UNIX_PATH_SIZE:
        raise ValueError(
            f"the path of a Unix socket has at most {_UNIX_PATH_SIZE} bytes, and this one has more"
        )
    credentials, asked, rest = (found[part] or "" for part in ("credentials", "asked", "rest"))
    return path, f"ws://{credentials}localhost{asked}{rest}"


def _authorization(credentials: Credentials) -> str:
    match credentials:
        case str():
            if not _BEARER_TOKEN.fullmatch(credentials):
                raise ValueError(
                    "credentials is a str with characters that a bearer token can't have"
                )
            return f"Bearer {credentials}"
        case (str(name), str(secret)):
            if not name or ":" in name:
                raise ValueError("the name in credentials is empty or contains a colon")
            try:
                return build_authorization_basic(name, secret)
            except UnicodeEncodeError:
                # Not the error itself: it holds the secret.
                raise ValueError("the credentials are not text: UTF-8 can't encode them") from None
        case _:
            raise TypeError(
                "credentials must be a tuple of a name and its secret, or a token as str"
            )
