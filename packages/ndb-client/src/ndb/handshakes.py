"""Error messages for failed connections, which say why and what to do. Pure."""

import ssl
from http import HTTPStatus

from websockets.http11 import Response

from .servers import Server

_TLS_ALERT = b"\x15\x03"
"""The first bytes of a TLS server's answer to data that is not TLS (RFC 8446, section 5.1)."""

_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"}
"""OpenSSL's reasons if the other side does not use TLS."""

_SHOWN = 500
"""The most characters of a server's own words."""


def reason_of(error: Exception, server: Server) -> str:
    """Return why no connection to `server` could be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
        return "it does not use TLS on this port; use ws://"
    if server.address.secure and isinstance(error, ConnectionError):
        detail = f" ({error})" if str(error) else ""
        return (
            f"it ended the connection in the TLS handshake{detail}; "
            "does it use TLS on this port, or require a client certificate?"
        )
    return str(error) or type(error).__name__


def no_handshake(error: Exception, first_bytes: bytes, server: Server) -> str:
    """Return why there was no opening handshake, though there was a connection.

    Args:
        error: what is wrong with the answer.
        first_bytes: how the answer began; empty if there was none.
        server: who answered, or did not.
    """
    if first_bytes == _TLS_ALERT and not server.address.secure:
        return "it uses TLS on this port; use wss://"
    if first_bytes:
        return f"the WebSocket handshake failed: {str(error.__cause__ or error)[:_SHOWN]}"
    hint = (
        "it may require a client certificate, or a different one"
        if server.address.secure
        else "if it uses TLS on this port, use wss://"
    )
    return f"it ended the connection without an answer; {hint}"


def refusal_of(response: Response, server: Server) -> str:
    """Return what a server says with a status of HTTP in place of a WebSocket."""
    code = response.status_code
    status = f"HTTP {code} {response.reason_phrase}"
    if code == HTTPStatus.UNAUTHORIZED and server.authorization is None:
        what = f"the server requires credentials, and none were given ({status})"
    elif code == HTTPStatus.UNAUTHORIZED:
        what = f"the server refused the credentials ({status})"
    elif code == HTTPStatus.FORBIDDEN:
        what = f"the server does not allow this client to connect ({status})"
    else:
        what = f"the server answered the WebSocket handshake with {status}"
    said = _plain_text(response)
    return f"{what}: {said}" if said else what


def _plain_text(response: Response) -> str:
    """Return what stands in the body for people to read, in one line."""
    if not response.headers.get("Content-Type", "").lower().startswith("text/plain"):
        return ""
    text = " ".join(response.body.decode(errors="replace").split())
    return "".join(filter(str.isprintable, text))[:_SHOWN]
