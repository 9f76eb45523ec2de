"""From a request of plain HTTP to its response."""

from http import HTTPStatus

from ndb_server.ops import Operations, response
from websockets.datastructures import Headers
from websockets.http11 import Request, Response


def ask(operations: Operations, path: str, **headers: str) -> Response | None:
    return operations.answer(Request(path, Headers(headers)))


def page(accept: str) -> tuple[bytes, str]:
    return b"the page", f"for {accept}"


def test_who_is_not_ready_says_why() -> None:
    reasons = ["starting", "the journal is full", None]
    operations = Operations(lambda: reasons.pop(0), page)
    for expected in (
        (503, b"not ready: starting\n"),
        (503, b"not ready: the journal is full\n"),
        (200, b"ready\n"),
    ):
        answer = ask(operations, "/readyz")
        assert answer is not None
        assert (answer.status_code, answer.body) == expected


def test_who_may_not_see_the_metrics_may_see_whether_the_server_is_well() -> None:
    refusal = response(HTTPStatus.UNAUTHORIZED, "who are you?\n")
    operations = Operations(
        lambda: None, page, lambda request: None if "Authorization" in request.headers else refusal
    )
    assert ask(operations, "/metrics") is refusal
    allowed = ask(operations, "/metrics", Authorization="Bearer x", Accept="text/plain")
    assert allowed is not None
    assert (allowed.body, allowed.headers["Content-Type"]) == (b"the page", "for text/plain")
    for path in ("/healthz", "/readyz"):
        answer = ask(operations, path)
        assert answer is not None
        assert answer.status_code == 200


def test_an_answer_is_not_kept_and_ends_the_connection() -> None:
    answer = ask(Operations(lambda: None, page), "/healthz")
    assert answer is not None
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Length"] == "3"


def test_an_opening_handshake_is_left_to_others() -> None:
    assert ask(Operations(lambda: None, page), "/metrics", Upgrade="websocket") is None
