"""What an operator asks over plain HTTP: is it alive, is it ready, what does it count?

From a request to its response; the connection they come and go on is the transport's.
"""

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

_TEXT = "text/plain; charset=utf-8"

Page = Callable[[str], tuple[bytes, str]]
"""Makes the page of metrics, given what an ``Accept`` header says; also returns its type."""

Refuse = Callable[[Request], Response | None]
"""Returns how to refuse a request to somebody who may not make it; None if they may."""


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


class Operations:
    """Answers ``/healthz``, ``/readyz`` and ``/metrics``.

    Args:
        ready: returns why the server is not ready; None if it is.
        metrics: returns the page of metrics; None if there is none.
        refuse: refuses who may not see the metrics. Whether the server is alive and ready, anybody
            may know: what watches it should need no credentials.
    """

    def __init__(
        self,
        ready: Callable[[], str | None],
        metrics: Page | None,
        refuse: Refuse = lambda _: None,
    ) -> None:
        self._ready = ready
        self._metrics = metrics
        self._refuse = refuse
        self._pages: dict[str, Callable[[Request], Response]] = {
            "/healthz": lambda _: response(HTTPStatus.OK, "ok\n"),
            "/readyz": self._readiness,
            "/metrics": self._measures,
        }

    def answer(self, request: Request) -> Response | None:
        """Answer a plain GET of a page.

        Returns:
            The response; None if it is something else that is asked for.
        """
        page = self._pages.get(urlsplit(request.path).path)
        if page is None or request.method != "GET" or "Upgrade" in request.headers:
            return None
        return page(request)

    def answer_all(self, request: Request) -> Response:
        """Answer any request, as where there is nothing but these pages."""
        if request.method != "GET":
            refusal = response(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered here\n")
            refusal.headers["Allow"] = "GET"
            return refusal
        return self.answer(request) or response(
            HTTPStatus.NOT_FOUND, f"there are {', '.join(self._pages)}\n"
        )

    def _readiness(self, _: Request) -> Response:
        reason = self._ready()
        if reason is None:
            return response(HTTPStatus.OK, "ready\n")
        return response(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {reason}\n")

    def _measures(self, request: Request) -> Response:
        if self._metrics is None:
            return response(HTTPStatus.NOT_FOUND, "metrics are off; start with --metrics on\n")
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        accept = ",".join(request.headers.get_all("Accept"))
        return response(HTTPStatus.OK, *self._metrics(accept))
