"""HTTP responses, and the refusals that become one. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Response

_TEXT = "text/plain; charset=utf-8"

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}
"""The headers of a 426 response that name the protocol (RFC 9110, sections 7.8 and 15.5.22)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused.

    Attributes:
        status: the HTTP status of the answer.
        cause: the reason under which it is counted, one of a few words.
        message: what is wrong and what to do, for a human.
        headers: additional headers of the answer.
    """

    status: HTTPStatus
    cause: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


NO_HOST = Refusal(
    HTTPStatus.BAD_REQUEST,
    "host",
    "there must be exactly one Host header, and it must contain a host",
)
"""Refuses a request as RFC 9112, section 3.2, says."""


Answer = Response | Refusal
"""The response, or the reason for a refusal."""


def response(status: HTTPStatus, body: str | bytes, content_type: str = _TEXT) -> Response:
    """Return a response that ends the connection."""
    content = body.encode() if isinstance(body, str) else body
    headers = Headers(
        {
            "Date": formatdate(usegmt=True),
            "Connection": "close",
            "Content-Length": str(len(content)),
            "Content-Type": content_type,
            # Nothing of a moment ago, from whatever stands between.
            "Cache-Control": "no-store",
        }
    )
    return Response(status.value, status.phrase, headers, content)


def refusal_response(refusal: Refusal) -> Response:
    """Return the response that says why a request is refused."""
    found = response(refusal.status, f"{refusal.message}\n")
    found.headers.update(refusal.headers)
    return found
