"""Where a server listens: several addresses, both families, Unix sockets."""

import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.certificates import Authority
from tests.support.credentials import added
from tests.support.http_client import get, ops_port
from tests.support.ipv6 import needs_ipv6
from tests.support.opening_handshakes import admitted, answer
from tests.support.raw_client import Wire, handshake, opened
from tests.support.server_process import Server, StartServer
from tests.support.socket_activation import activated
from tests.support.waiting import BOUND

LOOPS = ["uvloop", "asyncio"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a folder whose path leaves room: that of a socket has at most 107 bytes."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def start_fails(*arguments: str, port: int = 0) -> str:
    """Run the program, which must not start; return the last line it says."""
    process = subprocess.run(
        [sys.executable, "-m", "ndb_server", "--port", str(port), *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    return process.stderr.splitlines()[-1]


def listened_on(server: Server) -> list[str]:
    """Return the URLs that the log tells."""
    found = re.search("listening at (.+)", server.stderr)
    return [server.url] if found is None else found[1].split(", ")


def answers_at(port: int, *hosts: str) -> None:
    for host in hosts:
        with Wire(port, host) as wire:
            wire.upgrade()
            assert wire.request("KV_COUNT")["st"] == 1


# Several addresses


@pytest.mark.parametrize("loop", LOOPS)
def test_several_hosts_have_one_port(start_server: StartServer, loop: str) -> None:
    server = start_server("--host", "127.0.0.2", "--host", "127.0.0.3", "--loop", loop)
    # What is printed is still one line.
    assert server.url == f"ws://127.0.0.2:{server.port}/"
    answers_at(server.port, "127.0.0.2", "127.0.0.3")
    assert listened_on(server) == [server.url, f"ws://127.0.0.3:{server.port}/"]
    with pytest.raises(ConnectionRefusedError):
        Wire(server.port, "127.0.0.1")


def test_hosts_stand_in_the_environment_and_in_the_file(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(env={"NDB_HOST": "127.0.0.2 127.0.0.3"})
    answers_at(server.port, "127.0.0.2", "127.0.0.3")
    config = tmp_path / "ndb.toml"
    config.write_text('host = ["127.0.0.4", "127.0.0.5"]')
    server = start_server("--config", str(config))
    answers_at(server.port, "127.0.0.4", "127.0.0.5")


def test_the_same_address_twice_is_listened_on_once(start_server: StartServer) -> None:
    server = start_server("--host", "127.0.0.1", "--host", "localhost", "--host", "127.0.0.1")
    answers_at(server.port, "127.0.0.1")
    assert listened_on(server).count(server.url) == 1
    # Any address stands for every other one.
    server = start_server("--host", "127.0.0.1", "--host", "0.0.0.0", "--insecure")
    assert listened_on(server) == [f"ws://0.0.0.0:{server.port}/"]


def test_health_and_metrics_are_on_every_host(start_server: StartServer) -> None:
    server = start_server("--host", "127.0.0.2", "--host", "127.0.0.3", "--ops-port", "0")
    [line] = [line for line in server.stderr.splitlines() if "health and metrics" in line]
    ports = {int(port) for port in re.findall(r"http://127\.0\.0\.[23]:([0-9]+)/", line)}
    [port] = ports
    for host in ("127.0.0.2", "127.0.0.3"):
        assert get(port, "/readyz", host=host)[0] == 200


def test_of_several_hosts_the_one_that_is_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.3", 0)) as taken:
        port = taken.getsockname()[1]
        line = start_fails("--host", "127.0.0.2", "--host", "127.0.0.3", port=port)
        assert f"cannot listen on 127.0.0.3 port {port}: Address already in use" in line
        assert line.endswith("; choose another address or port with --host and --port")
        # It is the same for the other port.
        line = start_fails("--host", "127.0.0.3", "--ops-port", str(port))
        assert f"cannot listen on 127.0.0.3 port {port}: Address already in use" in line
        assert line.endswith("; choose another address or port with --host and --ops-port")


def test_every_host_must_be_safe_to_listen_on() -> None:
    line = start_fails("--host", "127.0.0.1", "--host", "192.0.2.1")
    assert "refusing to listen on 192.0.2.1 without credentials and TLS" in line


def test_every_host_that_is_a_name_is_a_name_of_the_server(start_server: StartServer) -> None:
    name = socket.gethostname()
    try:
        loopback = all(
            found[4][0] in ("127.0.0.1", "::1") for found in socket.getaddrinfo(name, None)
        )
    except OSError:
        loopback = False
    if not loopback:
        pytest.skip("this machine's name is not that of its loopback address")
    server = start_server("--host", "127.0.0.1", "--host", name)
    assert answer(server.port, Host=name).status == 101
    assert answer(server.port, Host="evil.example").status == 403


# Both families


@needs_ipv6
@pytest.mark.parametrize("loop", LOOPS)
def test_any_address_of_ipv6_is_any_of_ipv4_too(start_server: StartServer, loop: str) -> None:
    server = start_server("--host", "::", "--insecure", "--loop", loop)
    assert server.url == f"ws://[::]:{server.port}/"
    answers_at(server.port, "::1", "127.0.0.1")
    # The log and the counts know an IPv4 address by its own name.
    answer(server.port, Host="evil.example")
    assert "refused, from 127.0.0.1 port " in server.stderr


@needs_ipv6
def test_any_address_of_both_families_can_be_given(start_server: StartServer) -> None:
    for hosts in (["0.0.0.0", "::"], ["::", "0.0.0.0"]):
        server = start_server("--insecure", *(f"--host={host}" for host in hosts))
        answers_at(server.port, "::1", "127.0.0.1")


@needs_ipv6
def test_beside_an_ipv4_address_any_of_ipv6_is_of_ipv6_alone(start_server: StartServer) -> None:
    server = start_server("--host", "::", "--host", "127.0.0.2", "--insecure")
    answers_at(server.port, "::1", "127.0.0.2")
    with pytest.raises(ConnectionRefusedError):
        Wire(server.port, "127.0.0.1")


# Unix sockets


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_listens_on_a_unix_socket_alone(
    start_server: StartServer, short_path: Path, loop: str
) -> None:
    path = short_path / "a b:c.sock"
    server = start_server("--unix", str(path), "--loop", loop)
    assert server.url == f"ws+unix://{short_path}/a%20b%3Ac.sock"
    with opened(path) as wire:
        assert wire.request("KV_COUNT") == {"st": 1, "cnt": 0}
    assert listened_on(server) == [server.url]
    server.stop()
    assert not path.exists()


def test_with_a_host_it_listens_on_that_too(start_server: StartServer, short_path: Path) -> None:
    path = short_path / "ndb.sock"
    server = start_server("--unix", str(path), "--host", "127.0.0.1")
    assert server.url == f"ws://127.0.0.1:{server.port}/"
    assert listened_on(server) == [server.url, f"ws+unix://{path}"]
    answers_at(server.port, "127.0.0.1")
    with opened(path) as wire:
        assert wire.request("KV_COUNT")["st"] == 1


def test_the_owner_and_the_group_may_use_a_socket_and_nobody_else(
    start_server: StartServer, short_path: Path
) -> None:
    path = short_path / "ndb.sock"
    for umask in ("0", "0077"):
        server = start_server(
            "--unix", str(path), through=["bash", "-c", f'umask {umask}; exec "$@"', "bash"]
        )
        assert stat.filemode(path.stat().st_mode) == "srw-rw----"
        server.stop()


def test_the_socket_of_a_dead_server_is_replaced(
    start_server: StartServer, short_path: Path
) -> None:
    path = short_path / "ndb.sock"
    start_server("--unix", str(path)).kill()
    assert path.is_socket()
    start_server("--unix", str(path))
    with opened(path) as wire:
        assert wire.request("KV_COUNT")["st"] == 1


def test_the_socket_of_a_living_server_is_left_alone(
    start_server: StartServer, short_path: Path
) -> None:
    path = short_path / "ndb.sock"
    start_server("--unix", str(path))
    line = start_fails("--unix", str(path))
    assert line == (
        f"ndb-server: cannot listen on {path}: Address already in use; choose another path with "
        "--unix"
    )
    with opened(path) as wire:
        assert wire.request("KV_COUNT")["st"] == 1


def test_what_is_no_socket_is_never_deleted(short_path: Path) -> None:
    path = short_path / "ndb.sock"
    path.write_text("precious")
    assert f"cannot listen on {path}: it exists and is not a socket" in start_fails(
        "--unix", str(path)
    )
    assert path.read_text() == "precious"
    link = short_path / "link.sock"
    link.symlink_to(path)
    assert f"cannot listen on {link}: it exists" in start_fails("--unix", str(link))
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 120, "it has 1[0-9]{2} bytes; at most 107 are possible"),
        ("nowhere/ndb.sock", "No such file or directory"),
    ],
)
def test_a_path_that_can_not_be_used_is_named(short_path: Path, name: str, reason: str) -> None:
    line = start_fails("--host", "127.0.0.1", "--unix", str(short_path / name))
    assert re.search(rf"cannot listen on {short_path / name}: {reason}", line)


def test_the_socket_of_a_successor_is_left_to_it(
    start_server: StartServer, short_path: Path
) -> None:
    path = short_path / "ndb.sock"
    first = start_server("--unix", str(path))
    path.unlink()
    start_server("--unix", str(path))
    first.stop()
    with opened(path) as wire:
        assert wire.request("KV_COUNT")["st"] == 1


def test_a_unix_socket_is_not_encrypted_and_asks_for_credentials(
    start_server: StartServer, short_path: Path
) -> None:
    path, auth_file = short_path / "ndb.sock", short_path / "credentials"
    secret = added(auth_file, "ada", "kv")
    tls = Authority().files(short_path, "localhost")
    server = start_server(
        "--unix", str(path), "--host", "127.0.0.1", "--auth-file", str(auth_file), *tls
    )
    assert server.url.startswith("wss://127.0.0.1:")
    with Wire(path) as stranger:
        stranger.send(handshake())
        assert stranger.head()[0] == 401
    assert f"refused, from uid {os.getuid()} pid {os.getpid()}: " in server.stderr
    with admitted(path, secret) as wire:
        assert wire.request("KV_COUNT")["st"] == 1


def test_connections_of_one_user_are_counted_together(
    start_server: StartServer, short_path: Path
) -> None:
    path = short_path / "ndb.sock"
    server = start_server("--unix", str(path), "--max-connections-per-address", "2")
    with opened(path), opened(path), Wire(path) as third:
        third.send(handshake())
        assert third.head()[0] == 429
    assert "use these, or try again later" in server.stderr


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_takes_over_a_unix_socket_it_is_passed(
    start_server: StartServer, short_path: Path, loop: str
) -> None:
    paths = [short_path / "ndb.sock", short_path / "ops.sock"]
    passed = [socket.socket(socket.AF_UNIX) for _ in paths]
    for one, path in zip(passed, paths, strict=True):
        one.bind(str(path))
        one.listen()
    server = start_server("--loop", loop, **activated(passed, "ndb.socket:ops"))
    assert server.url == f"ws+unix://{paths[0]}"
    with opened(paths[0]) as wire:
        assert wire.request("KV_COUNT") == {"st": 1, "cnt": 0}
    with Wire(paths[1]) as operator:
        operator.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert operator.head()[0] == 200
    server.stop()
    # They are the manager's.
    assert all(path.is_socket() for path in paths)
    for one in passed:
        one.close()


def test_an_abstract_socket_that_is_passed_is_refused(start_server: StartServer) -> None:
    with socket.socket(socket.AF_UNIX) as passed:
        # Everybody can connect to it, and no URI says where it is.
        passed.bind("")
        passed.listen()
        with pytest.raises(
            pytest.fail.Exception, match="descriptor 3, passed by the service manager, is not"
        ):
            start_server(**activated([passed]))


# TLS on several addresses


def test_a_client_that_is_in_the_middle_of_tls_does_not_hold_up_the_end(
    start_server: StartServer, tmp_path: Path
) -> None:
    for loop in LOOPS:
        server = start_server(*Authority().files(tmp_path, "localhost"), "--loop", loop)
        with Wire(server.port) as silent:
            # The server has taken it up once somebody who came later is answered.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with Wire(server.port) as other:
                other.socket = context.wrap_socket(other.socket)
                other.upgrade()
            os.kill(server.pid, signal.SIGTERM)
            assert silent.socket.recv(1) == b""
            assert server.process.wait(BOUND) == 0
        assert "Traceback" not in server.stderr


# Health and metrics


def test_operators_have_this_machine_where_clients_have_a_unix_socket(
    start_server: StartServer, short_path: Path
) -> None:
    server = start_server("--unix", str(short_path / "ndb.sock"), "--ops-port", "0")
    assert get(ops_port(server.stderr), "/readyz")[0] == 200


def test_operators_have_the_host_where_clients_have_what_was_passed(
    start_server: StartServer,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        server = start_server("--host", "127.0.0.2", "--ops-port", "0", **activated([passed]))
        assert server.port == passed.getsockname()[1]
        assert get(ops_port(server.stderr), "/readyz", host="127.0.0.2")[0] == 200
        with pytest.raises(
            pytest.fail.Exception, match=r"refusing to listen on 192\.0\.2\.1 without"
        ):
            start_server("--host", "192.0.2.1", "--ops-port", "0", **activated([passed]))
