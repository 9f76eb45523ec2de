"""A server that has as many descriptors open as the system lets it."""

import os
import re
import resource
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.credentials import added
from tests.support.http_client import ops_port, scrape
from tests.support.raw_client import Wire, handshake, opened
from tests.support.server_process import Server, StartServer
from tests.support.waiting import until

MOST = 100
"""How many descriptors the servers here may have."""

PAUSED = ("ndb_accept_paused_seconds_total", ())


def with_few(start_server: StartServer, *arguments: str) -> Server:
    script = f'ulimit -n {MOST}; exec "$@"'
    # Whoever waits, waits for as long as the test takes.
    arguments += ("--handshake-timeout", "600")
    return start_server(*arguments, through=["bash", "-c", script, "bash"])


def with_few_and_credentials(
    start_server: StartServer, folder: Path, loop: str
) -> tuple[Server, str]:
    """Start one that keeps data and has a port for operators; return it, and what lets one in."""
    auth_file = folder / "credentials"
    bearer = f"Bearer {added(auth_file, 'ada', 'admin', 'kv', 'app')}"
    server = with_few(
        start_server,
        *("--loop", loop, "--ops-port", "0", "--data-dir", str(folder / "data")),
        *("--auth-file", str(auth_file)),
    )
    return server, bearer


def lines(server: Server, what: str) -> list[str]:
    return [line for line in server.stderr.splitlines() if what in line]


def descriptors(server: Server) -> set[int]:
    return {int(one.name) for one in Path(f"/proc/{server.pid}/fd").iterdir()}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_descriptors_those_there_are_served_and_others_wait(
    start_server: StartServer, tmp_path: Path, loop: str
) -> None:
    server, bearer = with_few_and_credentials(start_server, tmp_path, loop)
    operators = ops_port(server.stderr)
    with ExitStack() as stack:
        first = stack.enter_context(Wire(server.port))
        first.send(handshake(Authorization=bearer))
        assert first.head()[0] == 101
        # The system takes up connections before the server does.
        waiting = [stack.enter_context(Wire(server.port)) for _ in range(2 * MOST)]
        until(lambda: lines(server, "not accepting connections"))
        # What the server does for itself, it can do still: it kept some descriptors.
        assert first.request("KV_SET", keys={"a": 1})["st"] == 1
        assert first.request("KV_SAVE", name="evening")["st"] == 121
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: lines(server, "were read again"))
        samples = scrape(operators, Authorization=bearer)
        assert samples["ndb_process_open_fds", ()] < MOST
        until(lambda: scrape(operators, Authorization=bearer)[PAUSED] > samples[PAUSED])
        # Whoever comes last waits until others have gone.
        last = waiting.pop()
        last.send(handshake(Authorization=bearer))
        for one in waiting:
            one.socket.close()
        assert last.head()[0] == 101
        assert last.request("KV_GET", keys=["a"])["keys"] == {"a": 1}
        until(lambda: lines(server, "accepting connections again"))
    [begin] = lines(server, "not accepting connections")
    assert " WARNING ndb_server.accepting: " in begin
    # A quarter is the server's own.
    assert f"{MOST * 3 // 4} descriptors are in use" in begin
    assert "ulimit -n" in begin
    assert len(lines(server, "accepting connections again")) == 1
    total = scrape(operators, Authorization=bearer)[PAUSED]
    assert scrape(operators, Authorization=bearer)[PAUSED] == total
    server.stop()


def test_too_few_descriptors_for_what_the_options_promise_are_told_at_the_start(
    start_server: StartServer,
) -> None:
    server = with_few(start_server)
    [line] = lines(server, "descriptors")
    assert " WARNING " in line
    assert re.search(
        rf"allows this process {MOST} descriptors .*--max-connections 10000 .* 103[0-9]{{2}}", line
    )


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_out_of_descriptors_stops_as_ever(start_server: StartServer, loop: str) -> None:
    server = with_few(start_server, "--loop", loop)
    with ExitStack() as stack:
        for _ in range(2 * MOST):
            stack.enter_context(Wire(server.port))
        until(lambda: lines(server, "not accepting connections"))
        server.stop()
    assert len(lines(server, "not accepting connections")) == 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_manager_that_no_descriptor_is_left_to_tell_is_no_reason_to_hang(
    start_server: StartServer, tmp_path: Path, loop: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        server = start_server("--loop", loop, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert told.recv(100) == b"READY=1"
        with Wire(server.port):
            with opened(server.port) as client:
                # Whoever came before has been accepted, and what told the manager is closed.
                assert client.request("KV_COUNT")["st"] == 1
                before = descriptors(server)
            until(lambda: before - descriptors(server))
            taken = descriptors(server)
            most = min({*range(max(taken) + 2)} - taken)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
            server.stop()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_silent_connections_of_operators_leave_descriptors_to_the_server(
    start_server: StartServer, tmp_path: Path, loop: str
) -> None:
    server, bearer = with_few_and_credentials(start_server, tmp_path, loop)
    operators = ops_port(server.stderr)
    with ExitStack() as stack:
        client = stack.enter_context(Wire(server.port))
        client.send(handshake(Authorization=bearer))
        assert client.head()[0] == 101
        for _ in range(2 * MOST):
            stack.enter_context(Wire(operators))
        [line] = until(lambda: lines(server, "not accepting connections"))
        # Operators have half of the quarter that is not for clients.
        assert "88 descriptors are in use" in line
        assert client.request("KV_SET", keys={"a": 1})["st"] == 1
        assert client.request("KV_SAVE", name="evening")["st"] == 121
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: lines(server, "were read again"))
    server.stop()


@pytest.mark.parametrize("arguments", [[], ["--ops-port", "0"]], ids=["", "ops"])
def test_a_server_with_descriptors_for_no_client_does_not_start(
    start_server: StartServer, arguments: list[str]
) -> None:
    script = 'ulimit -n 14; exec "$@"'
    with pytest.raises(pytest.fail.Exception, match="did not start") as failed:
        start_server("--loop", "uvloop", *arguments, through=["bash", "-c", script, "bash"])
    line = str(failed.value).splitlines()[-1]
    assert line == (
        "ndb-server: none of the 14 descriptors is left for clients; raise the limit (ulimit -n, "
        "LimitNOFILE= of systemd)"
    )


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_fewest_descriptors_that_a_server_starts_with_serve_one_client_after_another(
    start_server: StartServer, loop: str
) -> None:
    server = None
    for number in range(14, MOST):
        script = f'ulimit -n {number}; exec "$@"'
        try:
            server = start_server("--loop", loop, through=["bash", "-c", script, "bash"])
        except pytest.fail.Exception as failed:
            assert "is left for clients" in str(failed)
        else:
            break
    assert server is not None
    for _ in range(3):
        with opened(server.port) as client:
            assert client.request("KV_COUNT")["st"] == 1
    server.stop()
