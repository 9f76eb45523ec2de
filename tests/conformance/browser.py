"""Lets ``ndb-conformance`` drive the JavaScript client in headless Chromium.

``python -m tests.conformance.browser`` hands the lines of standard input to a page, and what the
page answers to standard output. The page is served from a loopback address, since modules are not
loaded from files.
"""

import subprocess
import sys
import tempfile
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.support.client_runtimes import chromium
from tests.support.project_sources import ROOT

CLIENT = ROOT / "docs" / "clients" / "javascript"


class Page(SimpleHTTPRequestHandler):
    """Serves the client, gives it lines and takes its answers."""

    def do_GET(self) -> None:
        if self.path != "/line":
            super().do_GET()
            return
        line = sys.stdin.buffer.readline()
        self._answer(HTTPStatus.OK if line else HTTPStatus.GONE, line)
        if not line:
            Thread(target=self.server.shutdown).start()

    def do_POST(self) -> None:
        answer = self.rfile.read(int(self.headers["Content-Length"]))
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()
        self._answer(HTTPStatus.OK, b"")

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what the client says is what matters."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Page, directory=str(CLIENT)))
    with server, tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [
                chromium(),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                f"--user-data-dir={profile}",
                f"http://127.0.0.1:{server.server_port}/conformance.html",
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            server.serve_forever()
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
