"""Parses the first bytes of a connection as an HTTP request, or says why they are none. Pure.

h11 does the parsing of HTTP/1.1 (RFC 9112), and of HTTP/1.0, which some health checks use. An error
message never repeats data from the client, because it could contain a token or a secret.
"""

import re
from http import HTTPStatus

import h11
from ndb_protocol.authority import parse_authority
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeaderValue
from websockets.http11 import Request

from ..http.responses import NO_HOST, UPGRADE, Refusal

MAX_HEAD_SIZE = 2**14
"""Bytes that the request line and the header fields may have together."""

_NONE = "this is not an HTTP request (RFC 9112)"
_VERSION = "13"
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)")
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
"""The port that a URI of the scheme means if it names none (RFC 9110, 4.2; RFC 6455, 3)."""

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]\r?")
_TLS_HANDSHAKE = b"\x16"
"""The first byte of a record of TLS that begins a handshake (RFC 8446, section 5.1)."""

_PROXY_PROTOCOL = (b"PROXY ", b"\0\r\nQUIT\n")
"""How its headers begin, of version 1 and 2; empty lines before them have gone already."""

_WITHOUT_ONE_HOST = ("Missing mandatory Host", "Found multiple Host")
"""What h11 says of a request that RFC 9112, section 3.2, has refused for its ``Host``."""

# Python 3.13 has the name of RFC 9110 for it; older ones have that of RFC 2616.
_URI_TOO_LONG = HTTPStatus(414)


class Opening:
    """Reads the head of the first request of a connection.

    Attributes:
        rest: the bytes after the head, once it has been read.
    """

    def __init__(self) -> None:
        self._reader = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
        # Up to the end of the request line, and perhaps more.
        self._begin = b""
        self._size = 0
        self.rest = b""

    def receive(self, data: bytes) -> Request | Refusal | None:
        """Read more bytes.

        Returns:
            The request, why it is none, or None if its head goes on.
        """
        taken = data[: MAX_HEAD_SIZE - self._size]
        self._size += len(taken)
        rest = data[len(taken) :]
        if not self._begin:
            # RFC 9112, section 2.2.
            taken = taken.lstrip(b"\r\n")
        if not taken:
            return None
        if b"\n" not in self._begin:
            self._begin += taken
        try:
            self._reader.receive_data(taken)
            event = self._reader.next_event()
        except h11.RemoteProtocolError as error:
            # What stands behind a colon was sent by the client.
            reason, _, _ = str(error).partition(":")
            return NO_HOST if reason in _WITHOUT_ONE_HOST else self._invalid(reason)
        if isinstance(event, h11.Request):
            self.rest = self._reader.trailing_data[0] + rest
            return _request(event)
        line, end, _ = self._begin.partition(b"\n")
        # Whoever speaks another protocol may send nothing more before it has an answer.
        if end and not _REQUEST_LINE.fullmatch(line):
            return self._invalid("illegal request line")
        if self._size < MAX_HEAD_SIZE:
            return None
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if end else _URI_TOO_LONG
        message = (
            f"the request line and the headers may have at most {MAX_HEAD_SIZE} bytes together"
        )
        return Refusal(status, "invalid", message)

    def _invalid(self, reason: str) -> Refusal:
        if self._begin.startswith(_TLS_HANDSHAKE):
            return _bad(
                "this is TLS, but the server does not use TLS on this port; "
                "connect with ws: or http:"
            )
        if self._begin.startswith(_PROXY_PROTOCOL):
            return _bad(
                "this is the PROXY protocol, which the server does not support; have the proxy add "
                "X-Forwarded-For instead, and start the server with --behind-proxy"
            )
        return _bad(f"{_NONE}: {reason}")


def check_handshake(request: Request) -> Refusal | None:
    """Refuse an opening handshake of another version, or with a body."""
    if request.headers.get_all("Sec-WebSocket-Version") != [_VERSION]:
        # RFC 6455, sections 4.2.2 and 4.4.
        return Refusal(
            HTTPStatus.UPGRADE_REQUIRED,
            "invalid",
            f"Sec-WebSocket-Version must be {_VERSION} (RFC 6455)",
            {**UPGRADE, "Sec-WebSocket-Version": _VERSION},
        )
    lengths = set(request.headers.get_all("Content-Length"))
    if "Transfer-Encoding" in request.headers or not lengths <= {"0"}:
        return _bad("an opening handshake must not have a body")
    return None


def wrong_header(name: str) -> Refusal:
    """Refuse an opening handshake for the header `name`."""
    return _bad(f"{name} is missing or wrong (RFC 6455, section 4.2.1)")


def _bad(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "invalid", message)


def _request(event: h11.Request) -> Request | Refusal:
    version = event.http_version.decode()
    if not version.startswith("1."):
        return Refusal(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
            "invalid",
            "only HTTP/1.1 and HTTP/1.0 are supported",
        )
    try:
        headers = Headers((name.decode(), value.decode("latin-1")) for name, value in event.headers)
    except InvalidHeaderValue:
        # h11 leaves control characters to others.
        return _bad(f"{_NONE}: illegal header line")
    target = event.target.decode()
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        # RFC 9112, section 3.2.2: the target's own authority counts. A client must send the same
        # one in Host (section 3.2), and some leave the port out of one of the two.
        scheme, authority, rest = absolute.groups()
        if "Host" not in headers:
            headers["Host"] = authority
        if not _are_same(authority, headers["Host"], _PORTS.get(scheme.lower())):
            return _bad("Host must name the same host as the target (RFC 9112, section 3.2)")
        target = rest if rest.startswith("/") else f"/{rest}"
    # Of a later version than is known, a recipient takes the last that it knows (RFC 9110, 2.5).
    protocol = "HTTP/1.0" if version == "1.0" else "HTTP/1.1"
    return Request(target, headers, event.method.decode(), protocol)


def _are_same(one: str, other: str, default_port: int | None) -> bool:
    try:
        (host, port), (other_host, other_port) = parse_authority(one), parse_authority(other)
    except ValueError:
        return False
    ports = {default_port if number is None else number for number in (port, other_port)}
    return host == other_host and len(ports) == 1
