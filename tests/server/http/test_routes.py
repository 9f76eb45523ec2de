"""From a request of plain HTTP to its response."""

from collections.abc import Awaitable

import pytest
from ndb_server.http.responses import Refusal
from ndb_server.http.routes import Routes
from websockets.datastructures import Headers
from websockets.http11 import Request, Response


def ask(operations: Routes, path: str, **headers: str) -> Response | None:
    answer = operations.answer(Request(path, Headers(headers)))
    assert not isinstance(answer, Awaitable | Refusal)
    return answer


@pytest.mark.parametrize(
    "target", ["//[", "//[x]/readyz", "//x/readyz", "x:/readyz", "/readyz;", "*"]
)
def test_a_target_is_a_path_and_not_read_as_a_uri(target: str) -> None:
    answer = Routes(lambda: None, page).answer(Request(target, Headers()))
    assert isinstance(answer, Refusal)
    assert answer.status == 426
    assert ask(Routes(lambda: None, page), "/readyz?x=//[") is not None


def page(accept: str) -> tuple[bytes, str]:
    return b"the page", f"for {accept}"


def test_who_is_not_ready_says_why() -> None:
    reasons = ["starting", "the journal is full", None]
    operations = Routes(lambda: reasons.pop(0), page)
    for expected in (
        (503, b"not ready: starting\n"),
        (503, b"not ready: the journal is full\n"),
        (200, b"ready\n"),
    ):
        answer = ask(operations, "/readyz")
        assert answer is not None
        assert (answer.status_code, answer.body) == expected


def test_the_page_of_metrics_is_of_the_type_that_is_asked_for() -> None:
    answer = ask(Routes(lambda: None, page), "/metrics", Accept="text/plain")
    assert answer is not None
    assert (answer.body, answer.headers["Content-Type"]) == (b"the page", "for text/plain")


def test_an_answer_is_not_kept_and_ends_the_connection() -> None:
    answer = ask(Routes(lambda: None, page), "/healthz")
    assert answer is not None
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Length"] == "3"


def test_an_opening_handshake_is_left_to_others() -> None:
    assert ask(Routes(lambda: None, page), "/metrics", Upgrade="websocket") is None
