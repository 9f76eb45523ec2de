"""Pages in a real browser: which of them can open a connection."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from tests.support.client_runtimes import chromium
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND

PAGE = """<!doctype html><script type="module">
const tried = (url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.send('{"KV_COUNT":{}}'); };
  socket.onmessage = (event) => resolve(event.data);
  socket.onerror = () => resolve("refused");
});
const result = await Promise.all(%s.map(tried));
await fetch("/", {method: "POST", body: JSON.stringify(result)});
</script>"""

ANSWERED = '{"KV_COUNT_RSP":{"st":1,"cnt":0}}'


class Site(ThreadingHTTPServer):
    """Serves a page that tries URLs, and takes what it found."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.page = b""
        self.found: Queue[list[str]] = Queue()

    def __enter__(self) -> "Site":
        Thread(target=self.serve_forever).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Page(BaseHTTPRequestHandler):
    @property
    def _site(self) -> Site:
        assert isinstance(self.server, Site)
        return self.server

    def do_GET(self) -> None:
        self._answer(self._site.page)

    def do_POST(self) -> None:
        self._site.found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def browser(url: str, profile: Path) -> Iterator[None]:
    """Have a browser look at a page; every name ends at this machine."""
    process = subprocess.Popen(
        [
            chromium(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--host-resolver-rules=MAP evil.test 127.0.0.1, MAP app.test 127.0.0.1",
            f"--user-data-dir={profile}",
            url,
        ],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(BOUND)


def results(site: Site, host: str, urls: list[str], profile: Path) -> list[str]:
    """Return what a page of `host` gets from each of `urls`."""
    site.page = (PAGE % json.dumps(urls)).encode()
    with browser(f"http://{host}:{site.server_port}/", profile):
        return site.found.get(timeout=BOUND)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def test_only_a_page_of_an_allowed_origin_connects_and_a_rebound_name_never(
    start_server: StartServer, site: Site, tmp_path: Path
) -> None:
    port = site.server_port
    closed = start_server()
    allowing = start_server("--allow-origin", f"http://app.test:{port}")
    # Its own name in the browser's eyes; only `Host` tells that it is another's.
    rebound = start_server("--allow-origin", f"http://evil.test:{port}")
    named = start_server("--allow-origin", f"http://app.test:{port}", "--allow-host", "app.test")

    urls = [closed.url, allowing.url, f"ws://app.test:{named.port}/"]
    found = results(site, "app.test", urls, tmp_path / "app")
    assert found == ["refused", ANSWERED, ANSWERED]

    urls = [
        allowing.url,
        f"ws://evil.test:{closed.port}/",
        f"ws://evil.test:{rebound.port}/",
        rebound.url,
    ]
    found = results(site, "evil.test", urls, tmp_path / "evil")
    assert found == ["refused", "refused", "refused", ANSWERED]
    assert "--allow-origin allows an origin" in closed.stderr
    assert "this is not a name of this server; --allow-host allows a name" in rebound.stderr
