"""What an operator sees of a server process, and how it starts and stops under a manager."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.data_folders import fill
from tests.support.http_client import get, ops_port, scrape
from tests.support.raw_client import Wire, close, handshake, opened, text
from tests.support.server_process import Server, StartServer
from tests.support.socket_activation import activated, listening
from tests.support.waiting import BOUND, until

GOING_AWAY = (1001, "server is shutting down")


def log_of(server: Server) -> list[dict[str, Any]]:
    """Return what a server with ``--log-format json`` has logged."""
    return [json.loads(line) for line in server.stderr.splitlines()]


# Health and metrics


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_health_and_metrics_are_on_the_port_of_the_server(
    start_server: StartServer, loop: str
) -> None:
    port = start_server("--loop", loop).port
    assert get(port, "/healthz")[::2] == (200, "ok\n")
    assert get(port, "/readyz")[::2] == (200, "ready\n")
    status, headers, page = get(port, "/metrics?from=here")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert "\nndb_sessions 0.0\n" in page


def test_everything_else_that_is_no_handshake_is_refused_as_before(server: Server) -> None:
    assert get(server.port, "/")[0] == 426
    assert get(server.port, "/metrics/more")[0] == 426
    assert get(server.port, "/healthz", "POST")[0] == 405


PROBES = {
    "HAProxy's option httpchk": b"GET /readyz HTTP/1.0\r\n\r\n",
    "HAProxy's http-check send": b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "nginx as the documentation has it": (
        b"GET /readyz HTTP/1.1\r\nConnection: upgrade\r\nHost: 127.0.0.1\r\n"
        b"X-Forwarded-For: 127.0.0.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
    ),
    "nginx without proxy_http_version": (
        b"GET /readyz HTTP/1.0\r\nHost: localhost:1\r\nConnection: close\r\n\r\n"
    ),
    "curl -I": (
        b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n"
    ),
    "curl --http2": (
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    ),
    "Java's HttpClient": (
        b"GET /readyz HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\n"
        b"Host: 127.0.0.1:1\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        b"Upgrade: h2c\r\nUser-Agent: Java-http-client/17\r\n\r\n"
    ),
    "Java's HttpClient with a proxy": (
        b"GET http://localhost:80/readyz HTTP/1.1\r\nContent-Length: 0\r\nHost: localhost\r\n"
        b"User-Agent: Java-http-client/17\r\n\r\n"
    ),
    "a client of a forward proxy": (
        b"GET http://localhost:1/readyz HTTP/1.1\r\nHost: localhost:1\r\n\r\n"
    ),
    "a GET with a body": (
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"
    ),
    "a GET with a body in chunks": (
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nbody\r\n0\r\n\r\n"
    ),
    "an upgrade in HTTP/1.0": (
        b"GET /readyz HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ),
}


@pytest.mark.parametrize("ops", [False, True], ids=["main port", "ops port"])
def test_whoever_looks_after_servers_is_told_that_it_is_ready(
    start_server: StartServer, ops: bool
) -> None:
    server = start_server(*(["--ops-port=0"] if ops else []))
    port = ops_port(server.stderr) if ops else server.port
    for name, sent in PROBES.items():
        with Wire(port) as client:
            client.send(sent)
            status, headers = client.head()
            assert (status, headers["Content-Length"]) == (200, "6"), name
            body = b""
            while data := client.socket.recv(100):
                body += data
            assert body == (b"" if sent.startswith(b"HEAD") else b"ready\n"), name
    assert "refused" not in server.stderr


@pytest.mark.parametrize("ops", [False, True], ids=["main port", "ops port"])
def test_a_target_that_is_no_uri_is_refused_and_not_logged(
    start_server: StartServer, ops: bool
) -> None:
    server = start_server(*(["--ops-port=0"] if ops else []))
    for target in ("//[s3cret", "//[s3cret]/readyz", "http://localhost//[s3cret", "s3cret:/readyz"):
        with Wire(ops_port(server.stderr) if ops else server.port) as client:
            client.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert client.head()[0] == (404 if ops else 426), target
    assert "s3cret" not in server.stderr
    assert "Traceback" not in server.stderr


def test_a_body_of_any_size_does_not_keep_the_answer_back(server: Server) -> None:
    # Who reads no answer before it has sent all of a body should not be reset by what it sends.
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
    with Wire(server.port) as client:
        client.send(head + bytes(3_000_000))
        assert client.head()[0] == 405


KEY_AND_VERSION = b"Sec-WebSocket-Key: XEwNwS4PUGk9JV+AhT8ELw==\r\nSec-WebSocket-Version: 13\r\n"
OPENINGS = {
    "nginx as the documentation has it": (
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nHost: 127.0.0.1\r\n"
        b"X-Forwarded-For: 1.2.3.4, 198.51.100.2\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    ),
    "HAProxy with option forwardfor": (
        b"GET / HTTP/1.1\r\nhost: 127.0.0.1:1\r\nuser-agent: curl/7.88.1\r\naccept: */*\r\n"
        b"connection: Upgrade\r\nupgrade: websocket\r\nx-forwarded-for: 1.2.3.4\r\n"
        b"x-forwarded-for: 198.51.100.2\r\n"
    ),
    "Java's WebSocket behind a proxy": (
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nHost: localhost:1\r\nUpgrade: websocket\r\n"
        b"User-Agent: Java-http-client/17\r\nSec-WebSocket-Protocol: ndb.v1.text\r\n"
        b"X-Forwarded-For: 198.51.100.2:4711\r\n"
    ),
}


def test_whoever_opens_a_websocket_through_a_proxy_is_let_in_as_the_client_it_is(
    start_server: StartServer,
) -> None:
    server = start_server("--behind-proxy", "--max-connections-per-address", str(len(OPENINGS)))
    with ExitStack() as stack:
        for name, sent in OPENINGS.items():
            client = stack.enter_context(Wire(server.port))
            client.send(sent + KEY_AND_VERSION + b"\r\n")
            assert client.head()[0] == 101, name
            assert client.request("KV_COUNT") == {"st": 1, "cnt": 0}
        one_more = stack.enter_context(Wire(server.port))
        one_more.send(handshake(X_Forwarded_For="198.51.100.2"))
        assert one_more.head()[0] == 429


def test_a_websocket_connection_may_have_the_path_of_a_page(server: Server) -> None:
    with Wire(server.port) as client:
        client.send(handshake(start="GET /metrics HTTP/1.1"))
        assert client.head()[0] == 101
        assert client.request("KV_COUNT") == {"st": 1, "cnt": 0}


def test_open_metrics_are_there_for_who_asks_for_them(server: Server) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    _, headers, page = get(server.port, "/metrics", Accept=accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")


def test_with_a_port_of_their_own_the_pages_are_there_only(start_server: StartServer) -> None:
    server = start_server("--ops-port", "0")
    port = ops_port(server.stderr)
    assert get(port, "/healthz")[0] == get(port, "/readyz")[0] == get(port, "/metrics")[0] == 200
    for path in ("/healthz", "/readyz", "/metrics"):
        assert get(server.port, path)[0] == 426
    assert get(port, "/")[::2] == (404, "the pages are /healthz, /readyz, /metrics\n")
    status, headers, body = get(port, "/healthz", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert body == "only GET and HEAD are supported\n"
    with Wire(port) as client:
        client.send(handshake())
        assert client.head()[0] == 404


def test_metrics_that_are_off_say_how_to_turn_them_on(start_server: StartServer) -> None:
    port = start_server("--metrics", "off").port
    assert get(port, "/metrics")[::2] == (
        404,
        "metrics are disabled; start the server with --metrics on\n",
    )
    assert get(port, "/healthz")[0] == 200


# The log


def test_a_log_for_machines_says_what_happens_in_json(
    start_server: StartServer, tmp_path: Path
) -> None:
    first = start_server("--data-dir", str(tmp_path))
    with opened(first.port) as client:
        tkn = client.request("SH_NEW")["tkn"]
        client.request("SH_SET", tkn=tkn, keys={"a": 1, "b": 2})
        client.request("KV_SET", keys={"a": 1})
        assert client.request("SH_SAVE", name="evening")["st"] == 121
        assert client.request("KV_SAVE", name="evening")["st"] == 121
    first.stop()
    server = start_server("--log-format=json", f"--data-dir={tmp_path}", "--load=evening")
    server.stop()
    loaded, restored, accepts = log_of(server)[-3:]
    assert all(entry.pop("time").endswith("+00:00") for entry in (loaded, restored, accepts))
    took = restored["duration_ms"]
    assert restored["message"] == (
        f"restored from {tmp_path / 'ndb.sqlite'} in {took} ms: 1 sessions with 2 keys, "
        "1 independent keys; changes are durable: strict"
    )
    assert (restored["durability"], restored["sessions"]) == ("strict", 1)
    took = loaded.pop("duration_ms")
    assert loaded == {
        "level": "info",
        "logger": "ndb_server.server",
        "message": f"loaded 'evening' in {took} ms: 1 sessions with 2 keys, 1 independent keys",
        "dataset": "evening",
        "sessions": 1,
        "sessionKeys": 2,
        "keys": 1,
    }
    assert (
        accepts["message"] == f"ndb-server {accepts['version']} accepts connections at {server.url}"
    )
    assert accepts["url"] == server.url


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (handshake(Sec_WebSocket_Key=""), "handshake refused, from {}: Sec-WebSocket-Key is"),
        (handshake(Host="evil.example"), "handshake refused, from {}: this is not a name"),
        (b"hello\r\n", "request refused, from {}: this is not an HTTP request"),
        (handshake(start="GET /" + "a" * 2**14), "request refused, from {}: the request line"),
        (
            handshake(start="\x1b[31mGET / HTTP/1.1"),
            "request refused, from {}: this is not an HTTP",
        ),
    ],
    ids=["no key", "another host", "no HTTP", "a long line", "what a terminal obeys"],
)
def test_a_refused_handshake_is_logged_once_with_the_reason_and_the_address(
    start_server: StartServer, sent: bytes, reason: str
) -> None:
    server = start_server("--log-format=json")
    with Wire(server.port) as client:
        host, port = client.socket.getsockname()
        client.send(sent)
        while client.socket.recv(2**16):
            # The reason, until the server ends its side; what is sent then is not looked at.
            pass
        client.send(b"more\r\n")
    server.stop()
    [refused] = [entry for entry in log_of(server) if "refused" in entry["message"]]
    assert refused["message"].startswith(reason.format(f"{host} port {port}"))
    assert refused["peer"] == f"{host} port {port}"
    assert refused["message"].isprintable()


def test_slow_commands_are_logged_without_token_and_value(start_server: StartServer) -> None:
    server = start_server("--log-format=json", "--slow-ms=0")
    with opened(server.port) as client:
        tkn = client.request("SH_NEW")["tkn"]
        client.request("SH_SET", tkn=tkn, keys={"key-that-is-secret": "value-that-is-secret"})
        client.request("KV_LOAD", name="name-that-is-secret")
    server.stop()
    slow = [entry for entry in log_of(server) if "slow" in entry["message"]]
    assert [entry["command"] for entry in slow] == ["SH_NEW", "SH_SET", "KV_LOAD"]
    assert all(entry["duration_ms"] >= 0 for entry in slow)
    assert str(tkn) not in server.stderr
    assert "secret" not in server.stderr


def test_nothing_is_slow_unless_it_is_asked_for(start_server: StartServer) -> None:
    server = start_server()
    with opened(server.port) as client:
        client.request("KV_KEYS")
    server.stop()
    assert "slow" not in server.stderr


# Stopping


def test_a_server_that_stops_is_alive_and_not_ready(start_server: StartServer) -> None:
    server = start_server("--ops-port", "0")
    port = ops_port(server.stderr)
    # Of who is connected for operation, nobody is waited for.
    with Wire(port) as silent:
        silent.send(b"GET /heal")
        client = Wire(server.port)
        client.upgrade()
        server.process.terminate()
        # The closing handshake is the client's turn, and the server waits for it.
        assert client.said() == GOING_AWAY
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/readyz")[::2] == (503, "not ready: stopping\n")
        client.send(close(1001))
        assert client.rest() == []
        client.socket.close()
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_never_reads_does_not_keep_a_server_from_stopping(
    start_server: StartServer, loop: str
) -> None:
    server = start_server("--loop", loop, "--shutdown-timeout", "0")
    with opened(server.port) as greedy, opened(server.port) as other:
        greedy.request("KV_SET", keys={"large": "x" * 1_000_000})
        greedy.send(text({"KV_GET": {"keys": ["large"]}}) * 50)
        greedy.until_arrived()
        assert other.request("KV_COUNT") == {"st": 1, "cnt": 1}
        server.process.terminate()
        assert server.process.wait(BOUND) == 0
    assert "connections cut because they did not end in time: 2" in server.stderr


def never_read(data_dir: Path) -> None:
    """Make a dataset 'evening' of keys that whoever reads it never comes to an end with."""
    folder = data_dir / "datasets" / "keys" / "evening"
    folder.mkdir(parents=True)
    # Whoever opens it to read waits for somebody who writes.
    os.mkfifo(folder / "000001.sqlite")


def gives_up_a_load(server: Server, *, at_the_second_signal: bool = False) -> bool:
    """Have a server load 'evening' and stop; tell whether it had begun to read it.

    A load that had not begun keeps nobody waiting.
    """
    with opened(server.port) as client, opened(server.port) as other:
        client.send(text({"KV_LOAD": {"name": "evening"}}))
        client.until_arrived()
        assert other.request("KV_COUNT") == {"st": 1, "cnt": 0}
        server.process.terminate()
        if at_the_second_signal:
            assert other.said() == GOING_AWAY
            server.process.terminate()
        assert server.process.wait(BOUND) == 0
    server.stop()
    return "a save or a load did not end in time" in server.stderr


def test_a_disk_that_does_not_answer_does_not_keep_a_server_from_stopping(
    start_server: StartServer, tmp_path: Path
) -> None:
    never_read(tmp_path)
    options = ("--data-dir", str(tmp_path), "--shutdown-timeout", "0")
    until(lambda: gives_up_a_load(start_server(*options)))


LONG = "3600"
"""Seconds that no test waits."""

MANY = 30_000
FEW = 20
"""Sessions in a folder that is filled: those it is asked for, and larger ones."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_waiting_for_clients_and_loses_nothing(
    start_server: StartServer, tmp_path: Path, number: int
) -> None:
    server = start_server("--data-dir", str(tmp_path), "--shutdown-timeout", LONG)
    with opened(server.port) as client:
        assert client.request("KV_SET", keys={"a": 1})["st"] == 1
        server.process.send_signal(number)
        assert client.said() == GOING_AWAY
        server.process.send_signal(number)
        assert server.process.wait(BOUND) == 0
    server.stop()
    assert "told to stop again: work that does not end within 1 s is abandoned" in server.stderr
    assert "connections cut because they did not end in time: 1" in server.stderr
    with opened(start_server("--data-dir", str(tmp_path)).port) as client:
        assert client.request("KV_GET", keys=["a"])["keys"] == {"a": 1}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_told_to_stop_until_it_has_ends_as_if_told_once(
    start_server: StartServer, number: int, loop: str
) -> None:
    server = start_server("--loop", loop)
    while server.process.poll() is None:
        server.process.send_signal(number)
        # A person's fastest; Python has a word to say of one in the moment its handler goes.
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(0.05)
    server.stop()


def test_a_second_signal_ends_the_waiting_for_a_disk_that_does_not_answer(
    start_server: StartServer, tmp_path: Path
) -> None:
    never_read(tmp_path)
    options = ("--data-dir", str(tmp_path), "--shutdown-timeout", LONG)
    until(lambda: gives_up_a_load(start_server(*options), at_the_second_signal=True))


class Starting:
    """A server that was started and is not waited for."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder.with_suffix(".log")
        with self._log.open("w") as stderr:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ndb_server", "--port=0", "--ops-port=0"),
                    *(f"--data-dir={folder}", *arguments),
                ],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        until(lambda: "health and metrics are at" in self.log)
        self.ops_port = ops_port(self.log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def port(self) -> int:
        """Return the port for clients, once they are accepted."""
        found = until(lambda: re.search(r"accepts connections at ws://[0-9.]+:([0-9]+)/", self.log))
        assert found
        return int(found[1])

    def until_it_loads(self) -> None:
        until(lambda: scrape(self.ops_port)["ndb_sessions", ()] > 0)

    def hang_up(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> bool:
        """Stop it, as it should; return whether it accepted connections before."""
        self._process.terminate()
        assert self._process.wait(BOUND) == 0, self.log
        assert "Traceback" not in self.log
        accepted = "accepts connections" in self.log
        assert accepted is not ("stopped by a signal before connections were accepted" in self.log)
        return accepted


def test_a_server_stops_while_it_waits_for_what_it_is_to_load(tmp_path: Path) -> None:
    never_read(tmp_path / "data")
    server = Starting(tmp_path / "data", "--load=evening", "--shutdown-timeout=0")
    assert get(server.ops_port, "/readyz")[::2] == (503, "not ready: starting\n")
    assert not server.stop()


def test_a_server_that_starts_heeds_being_told_to_read_again(tmp_path: Path) -> None:
    never_read(tmp_path / "data")
    server = Starting(tmp_path / "data", "--load=evening", "--shutdown-timeout=0")
    server.hang_up()
    until(lambda: "no credentials and no certificates to read again" in server.log)
    assert not server.stop()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that takes a moment to be restored."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    fill(folder, MANY)
    return folder


def test_a_server_stops_while_it_restores_and_loses_nothing(
    filled: Path, start_server: StartServer
) -> None:
    # One time it is told before it is done.
    until(lambda: not Starting(filled).stop())
    with opened(start_server("--data-dir", str(filled)).port) as client:
        assert client.request("SH_INFO_ALL")["totalSessions"] == MANY + FEW


def loads_first(folder: Path) -> bool:
    """Stop a server that has begun to load before it starts; return whether it had loaded all."""
    server = Starting(folder, "--load=evening")
    server.until_it_loads()
    return server.stop()


def is_asked_to_load(folder: Path) -> bool:
    """Stop a server that has begun to load for a client; return whether it had loaded all."""
    server = Starting(folder, "--shutdown-timeout=0")
    with opened(server.port()) as client:
        client.send(text({"SH_LOAD": {"name": "evening"}}))
        server.until_it_loads()
        server.stop()
    return "connections cut" not in server.log


@pytest.mark.parametrize("stopped", [loads_first, is_asked_to_load])
def test_a_load_that_a_stop_breaks_off_is_there_as_a_whole_or_not_at_all(
    filled: Path, tmp_path: Path, start_server: StartServer, stopped: Callable[[Path], bool]
) -> None:
    server = start_server("--data-dir", str(filled))
    with opened(server.port) as client:
        assert client.request("SH_SAVE", name="evening")["st"] == 121
    server.stop()
    folders = (tmp_path / str(number) for number in itertools.count())

    def broken_off() -> Path | None:
        folder = next(folders)
        shutil.copytree(filled / "datasets", folder / "datasets")
        return None if stopped(folder) else folder

    folder = until(broken_off)
    with opened(start_server("--data-dir", str(folder)).port) as client:
        there = client.request("SH_INFO_ALL")["totalSessions"]
        assert there in {0, MANY + FEW}
        assert client.request("SH_LOAD", name="evening")["sessions"] == MANY + FEW - there


# Under a service manager


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """The socket on which systemd is told of a service's state."""
    # A path of a socket has at most 107 bytes (unix(7)); `tmp_path` may be longer.
    with (
        TemporaryDirectory(dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.settimeout(BOUND)
        told.bind(f"{folder}/notify")
        yield told


def test_a_service_manager_is_told_when_a_server_is_ready_and_when_it_stops(
    start_server: StartServer, manager: socket.socket
) -> None:
    server = start_server(env={"NOTIFY_SOCKET": manager.getsockname()})
    assert manager.recv(100) == b"READY=1"
    assert get(server.port, "/readyz")[0] == 200
    server.stop()
    assert manager.recv(100) == b"STOPPING=1"


def test_an_abstract_address_is_told_too(start_server: StartServer) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(BOUND)
        # Linux chooses one (unix(7), autobind).
        told.bind("")
        address: bytes = told.getsockname()
        start_server(env={"NOTIFY_SOCKET": f"@{address[1:].decode()}"})
        assert told.recv(100) == b"READY=1"


def test_a_manager_that_cannot_be_told_is_no_reason_to_stop(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert get(server.port, "/readyz")[0] == 200


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_takes_over_the_socket_it_is_passed(start_server: StartServer, loop: str) -> None:
    with listening() as passed:
        port = passed.getsockname()[1]
        # Who comes before the server is there waits, and is not refused.
        with Wire(port) as early:
            early.send(handshake())
            server = start_server("--loop", loop, **activated([passed]))
            assert server.url == f"ws://127.0.0.1:{port}/"
            assert early.head()[0] == 101
            assert early.request("KV_COUNT") == {"st": 1, "cnt": 0}


def test_a_socket_named_ops_is_for_health_and_metrics(start_server: StartServer) -> None:
    with listening() as first, listening() as ops, listening() as second:
        server = start_server(**activated([first, ops, second], "ndb.socket:ops:ndb.socket"))
        ports = [one.getsockname()[1] for one in (first, ops, second)]
        assert server.port == ports[0]
        for port in (ports[0], ports[2]):
            with opened(port) as client:
                assert client.request("KV_COUNT") == {"st": 1, "cnt": 0}
            assert get(port, "/healthz")[0] == 426
        assert get(ports[1], "/metrics")[0] == 200


def test_sockets_that_are_for_another_process_are_left_alone(start_server: StartServer) -> None:
    server = start_server(env={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert get(server.port, "/readyz")[0] == 200


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_passed_and_is_no_listening_socket_is_named(
    start_server: StartServer, count: int
) -> None:
    with listening() as good, socket.socket() as idle:
        # The second is not passed at all.
        how = activated([idle] if count == 1 else [good])
        how["env"]["LISTEN_FDS"] = str(count)
        with pytest.raises(pytest.fail.Exception, match="did not start") as failed:
            start_server(**how)
    assert f"ndb-server: descriptor {2 + count}, passed by the service manager" in str(failed.value)
    assert "ListenStream=" in str(failed.value)
