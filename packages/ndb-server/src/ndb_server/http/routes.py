"""The pages for operators over plain HTTP: liveness, readiness and metrics.

It turns a request into a response. The transport handles the connection.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from ndb_protocol.commands import Role
from websockets.http11 import Request, Response

from .responses import UPGRADE, Answer, Refusal, response

MetricsPage = Callable[[str], tuple[bytes, str]]
"""Makes the page of metrics, given what an ``Accept`` header says; also returns its type."""


class Authorizer(Protocol):
    """Decides whether a client may see a page."""

    def check(self, request: Request) -> Refusal | None:
        """Refuse a request for a page that anybody may see."""
        raise NotImplementedError

    def identify(self, request: Request) -> Refusal | frozenset[Role]:
        """Say what roles somebody has who asks for a page; refuse whose credentials are wrong."""
        raise NotImplementedError


def asks_for_websocket(request: Request) -> bool:
    """Tell whether `request` asks for a WebSocket connection, be it as it has to or not.

    Other protocols that it offers to go on with are ignored, and so is everything of the kind in
    HTTP/1.0 (RFC 9110, section 7.8).
    """
    if request.protocol == "HTTP/1.0" or request.method != "GET":
        return False
    offers = ",".join(request.headers.get_all("Upgrade")).split(",")
    return any(offer.strip().lower() == "websocket" for offer in offers)


def upgrade_required(request: Request, _: Authorizer | None = None) -> Refusal | None:
    """Refuse `request` if it asks for no WebSocket connection, where there is nothing else."""
    if asks_for_websocket(request):
        return None
    return _check_method(request) or Refusal(
        HTTPStatus.UPGRADE_REQUIRED,
        "invalid",
        "this is a WebSocket server: connect with ws: or wss:. A proxy in between must forward "
        "the headers Upgrade and Connection",
        UPGRADE,
    )


def _check_method(request: Request) -> Refusal | None:
    if request.method in ("GET", "HEAD"):
        return None
    return Refusal(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "invalid",
        "only GET and HEAD are supported",
        {"Allow": "GET, HEAD"},
    )


class Routes:
    """Answers ``/healthz``, ``/readyz`` and ``/metrics``.

    Args:
        ready: returns why the server is not ready; None if it is.
        metrics: returns the page of metrics; None if there is none.

    Anyone may ask whether the server is alive and ready, because a monitor should need no
    credentials. Metrics are for administrators.
    """

    def __init__(self, ready: Callable[[], str | None], metrics: MetricsPage | None) -> None:
        self._ready = ready
        self._metrics = metrics
        self._pages: dict[str, Callable[[Request, Authorizer | None], Answer]] = {
            "/healthz": lambda *_: response(HTTPStatus.OK, "ok\n"),
            "/readyz": self._readyz,
            "/metrics": self._metrics_page,
        }

    def answer(self, request: Request, visit: Authorizer | None = None) -> Answer | None:
        """Answer a request, as where there are WebSocket connections too.

        Args:
            request: what is asked for.
            visit: decides on who asks; None if everybody may.

        Returns:
            The answer; None if it is an opening handshake.
        """
        if asks_for_websocket(request):
            return None
        return self._answer(request, visit) or upgrade_required(request)

    def answer_all(self, request: Request, visit: Authorizer | None = None) -> Answer:
        """Answer any request, as where there is nothing but these pages."""
        return (
            self._answer(request, visit)
            or _check_method(request)
            or Refusal(HTTPStatus.NOT_FOUND, "invalid", f"the pages are {', '.join(self._pages)}")
        )

    def _answer(self, request: Request, visit: Authorizer | None) -> Answer | None:
        page = self._pages.get(request.path.partition("?")[0])
        if page is None:
            return None
        refusal = _check_method(request) or (None if visit is None else visit.check(request))
        return refusal or page(request, visit)

    def _readyz(self, *_: object) -> Response:
        reason = self._ready()
        if reason is None:
            return response(HTTPStatus.OK, "ready\n")
        return response(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {reason}\n")

    def _metrics_page(self, request: Request, visit: Authorizer | None) -> Answer:
        page = self._metrics
        if page is None:
            return response(
                HTTPStatus.NOT_FOUND, "metrics are disabled; start the server with --metrics on\n"
            )
        found = frozenset(Role) if visit is None else visit.identify(request)
        if isinstance(found, Refusal):
            return found
        if Role.ADMIN not in found:
            return Refusal(HTTPStatus.FORBIDDEN, "role", "metrics require the role admin")
        accept = ",".join(request.headers.get_all("Accept"))
        return response(HTTPStatus.OK, *page(accept))
