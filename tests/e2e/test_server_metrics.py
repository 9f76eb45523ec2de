"""Every number on the page of metrics, beside what the test's own clients did."""

import os
import re
import resource
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from ndb_protocol import COMMANDS
from ndb_server.engine.size_estimate import KEY_BYTES, SESSION_BYTES
from websockets.frames import Opcode

from tests.support.http_client import Samples, get, labelled, ops_port, scrape
from tests.support.raw_client import Wire, close, frame, handshake, text
from tests.support.server_process import Server, StartServer
from tests.support.system_call_faults import faults
from tests.support.waiting import until


@dataclass
class Tally:
    """What the clients of a test did.

    Attributes:
        sent: bytes.
        received: bytes.
        outcomes: how often a command was answered with a status.
    """

    sent: int = 0
    received: int = 0
    outcomes: Counter[tuple[str, int]] = field(default_factory=Counter)


class Tap:
    """A socket whose bytes are counted."""

    def __init__(self, tapped: socket.socket, tally: Tally) -> None:
        self._tapped = tapped
        self._tally = tally
        self.close = tapped.close
        self.setsockopt = tapped.setsockopt

    def sendall(self, data: bytes) -> None:
        self._tally.sent += len(data)
        self._tapped.sendall(data)

    def recv(self, most: int) -> bytes:
        data = self._tapped.recv(most)
        self._tally.received += len(data)
        return data


class Counting(Wire):
    """A client that keeps count of what it does."""

    def __init__(self, port: int, tally: Tally) -> None:
        super().__init__(port)
        self._tally = tally
        self.socket = cast(socket.socket, Tap(self.socket, tally))

    def ask(self, message: bytes, command: str, status: int) -> Any:
        """Send a message whose reply must have this status; count it as one of `command`."""
        self.send(message)
        [body] = self.reply().values()
        assert body["st"] == status, body
        self._tally.outcomes[command, status] += 1
        return body

    def run(self, command: str, status: int = 1, /, **params: Any) -> Any:
        return self.ask(text({command: params}), command, status)


def do_some_of_everything(port: int, tally: Tally) -> None:
    """Have every command answered well or badly, once or several times."""
    with Counting(port, tally) as client:
        client.upgrade()
        token = client.run("SH_NEW")["tkn"]
        client.run("SH_SET", tkn=token, keys={"a": 1, "b": [1], "c": {"d": 2}})
        for _ in range(5):
            client.run("SH_GET", tkn=token, keys=["a"])
        client.run("SH_GET", 100, tkn=5, keys=["a"])
        client.run("SH_GET", 26, tkn=token)
        client.run("SH_ADD", tkn=token, keys={"e": 1})
        client.run("SH_RMV", 42, tkn=token, keys=[])
        client.run("SH_RMV", tkn=token, keys=["e"])
        client.run("SH_CONTAINS", tkn=token, keys=["a"])
        client.run("SH_COUNT", tkn=token)
        client.run("SH_KEYS", tkn=token)
        client.run("SH_FIND", tkn=token, path="$.d", rsp="kv")
        client.run("SH_FIND", 4, tkn=token, path="$[", rsp="kv")
        client.run("SH_UPDATE", tkn=token, key="c", path="$.d", value=3)
        client.run("SH_UPDATE", 22, tkn=token, key="x", path="$", value=3)
        client.run("SH_ARR_APPEND", tkn=token, key="b", items=[2])
        client.run("SH_CLEAR_SET", tkn=token, keys={"a": 1, "b": 2})
        client.run("SH_INFO", tkn=token)
        client.run("SH_EXISTS", tkns=[token])
        client.run("SH_INFO_ALL")
        client.run("SH_SAVE", 121, name="evening")
        client.run("SH_LOAD", 141, name="evening")
        client.run("SH_LOAD", 142, name="morning")
        client.run("SH_CLEAR", tkn=token)
        client.run("SH_END", tkn=token)
        client.run("SH_END_ALL")
        client.run("KV_SET", keys={"a": 1, "b": [1], "c": {"d": 2}})
        client.run("KV_ADD", keys={"a": 1})
        client.run("KV_ADD", 201, keys={"k" * 1025: 1})
        client.run("KV_GET", keys=["a"])
        client.run("KV_RMV", keys=["x"])
        client.run("KV_CONTAINS", keys=["a"])
        client.run("KV_COUNT")
        client.run("KV_KEYS")
        client.run("KV_FIND", path="$.d", rsp="keys")
        client.run("KV_UPDATE", key="c", path="$.d", value=3)
        client.run("KV_ARR_APPEND", key="b", items=[2])
        client.run("KV_SAVE", 121, name="evening")
        client.run("KV_LOAD", 141, name="evening")
        client.run("KV_CLEAR")
        client.run("KV_CLEAR_SET", keys={"a": 1, "b": 2})
        client.run("SV_INFO")
        client.ask(text({"KV_SET": 5}), "KV_SET", 12)
        # What names no command is counted together: what clients make up is not on the page.
        client.ask(text("no JSON"), "ERR", 3)
        client.ask(text({"MADE_UP": {}}), "ERR", 10)
        client.ask(text("[]"), "ERR", 13)
        client.ask(frame(Opcode.BINARY, b"{}"), "ERR", 2)
        # Many in one read, of one kind and of several.
        client.send(text({"KV_COUNT": {}}) * 100)
        client.replies(100)
        tally.outcomes["KV_COUNT", 1] += 100
        client.send((text({"KV_COUNT": {}}) + text({"KV_KEYS": {}})) * 50)
        client.replies(100)
        tally.outcomes.update({("KV_COUNT", 1): 50, ("KV_KEYS", 1): 50})
        client.send(frame(Opcode.PING, b"ping"))
        assert client.said() == b"ping"
        client.send(close())
        assert client.rest() == [(1000, "")]


def of_requests(samples: Samples) -> dict[tuple[str, int], float]:
    return {
        (dict(labels)["command"], int(dict(labels)["status"])): value
        for (name, labels), value in samples.items()
        if name == "ndb_requests_total"
    }


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    return start_server("--ops-port", "0", "--data-dir", str(tmp_path))


def test_every_counter_is_what_was_done(server: Server, tally: Tally) -> None:
    port = ops_port(server.stderr)
    before = scrape(port)
    assert of_requests(before) == {}
    do_some_of_everything(server.port, tally)
    assert {name for name, _ in tally.outcomes} == {*COMMANDS, "ERR"}
    with Counting(server.port, tally) as refused:
        refused.send(handshake(Sec_WebSocket_Key=""))
        assert refused.head()[0] == 400
        while refused.socket.recv(2**16):
            # The reason, until the server ends the connection.
            pass
    with Counting(server.port, tally) as staying:
        staying.upgrade()
        staying.run("SH_NEW", expiry={"duration": 1, "deleteSession": True})
        keeping = staying.run("SH_NEW", expiry={"duration": 1})["tkn"]
        staying.run("SH_SET", tkn=keeping, keys={"a": 1})
        lasting = staying.run("SH_NEW")["tkn"]
        staying.run("SH_SET", tkn=lasting, keys={"a": 1, "b": 2, "c": 3})

        def two_have_expired(samples: Samples) -> bool:
            expired = samples["ndb_expirations_total", ()] >= 2
            # If the key came after a period's end, it is gone at the next.
            return expired and samples["ndb_session_keys", ()] == 3

        until(lambda: two_have_expired(scrape(port)))
        samples = scrape(port)
        assert of_requests(samples) == tally.outcomes
        plain = {name: value for (name, labels), value in samples.items() if not labels}
        assert plain["ndb_sessions"] == 2
        assert plain["ndb_session_keys"] == 3
        assert plain["ndb_keys"] == 2
        held = [b"{}", b'{"a":1,"b":2,"c":3}']
        keys = 2 * len("a1") + 2 * KEY_BYTES
        assert plain["ndb_stored_bytes"] == 2 * SESSION_BYTES + sum(map(len, held)) + keys
        assert plain["ndb_evictions_total"] == 0
        reached = {
            dict(labels)["limit"]: value
            for (name, labels), value in samples.items()
            if name == "ndb_limits_reached_total" and value
        }
        assert reached == {"key_length": 1}
        assert plain["ndb_connections"] == 1
        assert plain["ndb_connections_opened_total"] == 2
        # The server itself is one; what accepts the connection that asks may be another one still.
        assert plain["ndb_tasks"] in {1, 2}
        assert plain["ndb_accept_paused_seconds_total"] == 0
        assert samples["ndb_refusals_total", (("reason", "invalid"),)] == 1
        assert plain["ndb_received_bytes_total"] == tally.sent
        assert plain["ndb_sent_bytes_total"] == tally.received
        assert_the_histograms_agree(samples, tally)
        assert {name for name, _ in samples} == EVERY_SAMPLE | OF_THE_PROCESS


def test_what_a_failing_disk_undid_is_counted_as_it_was_answered(
    server: Server, tally: Tally
) -> None:
    port = ops_port(server.stderr)
    with Counting(server.port, tally) as client, Counting(server.port, tally) as leaving:
        for one in (client, leaving):
            one.upgrade()
        token = client.run("SH_NEW")["tkn"]
        client.run("SH_SET", tkn=token, keys={"a": 1})
        batches = scrape(port)["ndb_journal_batch_size_count", ()]
        asked: list[tuple[str, dict[str, Any], int]] = [
            ("SH_GET", {"keys": ["a"]}, 1),
            ("SH_SET", {"keys": {"a": 2}}, 202),
            ("SH_GET", {"keys": ["a"]}, 1),
            ("SH_RMV", {"keys": []}, 42),
            ("SH_END", {}, 202),
            # Until that is undone there is no such session.
            ("SH_KEYS", {}, 1),
            ("SH_COUNT", {}, 1),
        ]
        with faults(server, "fdatasync,fsync", "error=EIO:delay_enter=500000"):
            client.send(b"".join(text({name: {"tkn": token, **rest}}) for name, rest, _ in asked))
            until(lambda: scrape(port)["ndb_journal_batch_size_count", ()] > batches)
            leaving.send(text({"KV_SET": {"keys": {"a": 1}}}))
            until(lambda: scrape(port)["ndb_received_bytes_total", ()] == tally.sent)
            leaving.reset()
            # What waits is not counted, whether it still does or not: a counter never goes back.
            assert ("KV_SET", 1) not in of_requests(scrape(port))
            assert of_requests(scrape(port))["SH_SET", 1] == 1
            for (name, _, status), reply in zip(asked, client.replies(len(asked)), strict=True):
                assert reply[f"{name}_RSP"]["st"] == status
                tally.outcomes[name, status] += 1
            tally.outcomes["KV_SET", 202] += 1
            until(lambda: ("KV_SET", 202) in of_requests(scrape(port)))
        assert of_requests(scrape(port)) == tally.outcomes


HISTOGRAMS = [
    "ndb_event_loop_delay_seconds",
    "ndb_journal_delay_seconds",
    "ndb_journal_batch_size",
]

EVERY_SAMPLE = {
    "ndb_requests_total",
    *(f"ndb_request_duration_seconds_{part}" for part in ("bucket", "count", "sum")),
    "ndb_sessions",
    "ndb_session_keys",
    "ndb_keys",
    "ndb_expirations_total",
    "ndb_stored_bytes",
    "ndb_evictions_total",
    "ndb_limits_reached_total",
    "ndb_connections",
    "ndb_connections_opened_total",
    "ndb_refusals_total",
    "ndb_accept_paused_seconds_total",
    "ndb_tasks",
    "ndb_received_bytes_total",
    "ndb_sent_bytes_total",
    *(f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")),
}
"""What is compared above, or, if something is to be made to happen first, in a test of its own."""

OF_THE_PROCESS = {
    "ndb_process_resident_memory_bytes",
    "ndb_process_virtual_memory_bytes",
    "ndb_process_cpu_seconds_total",
    "ndb_process_open_fds",
    "ndb_process_max_fds",
    "ndb_process_start_time_seconds",
}
"""What is compared below; a name that is new on the page stands in one of both, and is compared."""


def test_batches_are_counted_as_they_were_written(server: Server, tally: Tally) -> None:
    port = ops_port(server.stderr)
    begin = time.monotonic()
    with Counting(server.port, tally) as client:
        client.upgrade()
        first, second = client.run("SH_NEW")["tkn"], client.run("SH_NEW")["tkn"]
        client.run("SH_SET", tkn=first, keys={"a": 1, "b": 2})
        client.run("KV_SET", keys={"a": 1, "b": 2})
        # One whose keys are too large to be packed is a session and a map of keys.
        client.run("SH_SET", tkn=second, keys={"a": "x" * 100_000})
        client.run("SH_GET", tkn=first, keys=["a"])
        client.run("SH_END_ALL")
    took = time.monotonic() - begin
    samples = scrape(port)
    assert samples["ndb_journal_batch_size_count", ()] == 6
    assert samples["ndb_journal_batch_size_sum", ()] == 1 + 1 + 1 + 1 + 2 + 0
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "ndb_journal_batch_size_bucket"
    }
    assert (buckets["1.0"], buckets["4.0"], buckets["+Inf"]) == (5, 6, 6)
    assert samples["ndb_journal_delay_seconds_count", ()] == 6
    # One after the other, while the client waited.
    assert 0 < samples["ndb_journal_delay_seconds_sum", ()] < took


def test_the_delay_of_the_event_loop_is_observed_again_and_again(
    server: Server,
) -> None:
    port = ops_port(server.stderr)
    name = "ndb_event_loop_delay_seconds_count"
    before = scrape(port)[name, ()]
    until(lambda: scrape(port)[name, ()] > before + 2)


def test_what_is_said_of_the_process_is_what_the_system_says(server: Server, tally: Tally) -> None:
    port, pid = ops_port(server.stderr), server.pid

    def shown(name: str) -> float:
        return scrape(port)[f"ndb_process_{name}", ()]

    def stat(*fields: int) -> int:
        """Return the sum of fields of /proc/PID/stat, numbered as in proc_pid_stat(5)."""
        known = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(known[field - 3]) for field in fields)

    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    [booted] = re.findall(r"^btime (\d+)", Path("/proc/stat").read_text(), re.M)
    # When the system began follows its clock, which is put right now and then.
    assert abs(shown("start_time_seconds") - int(booted) - stat(22) / ticks) <= 1
    assert shown("max_fds") == resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    before = stat(14, 15)
    assert before <= round(shown("cpu_seconds_total") * ticks) <= stat(14, 15)
    # It may take or give back some in between, but not each time.
    until(lambda: shown("resident_memory_bytes") == stat(24) * page)
    until(lambda: shown("virtual_memory_bytes") == stat(23))
    # Who asks is one, each time.
    few = shown("open_fds")
    with Counting(server.port, tally), Counting(server.port, tally), Counting(server.port, tally):
        until(lambda: shown("open_fds") == few + 3)
    until(lambda: shown("open_fds") == few)


def assert_the_histograms_agree(samples: Samples, tally: Tally) -> None:
    """Every request but the binary message, which takes no time, has its duration counted."""
    asked: Counter[str] = Counter()
    for (command, _), times in tally.outcomes.items():
        asked[command] += times
    asked["ERR"] -= tally.outcomes["ERR", 2]
    for command, times in asked.items():
        labels = (("command", command),)
        assert samples["ndb_request_duration_seconds_count", labels] == times
        beyond = (*labels, ("le", "+Inf"))
        assert samples["ndb_request_duration_seconds_bucket", beyond] == times
        assert samples["ndb_request_duration_seconds_sum", labels] > 0
    buckets = [
        value
        for (name, labels), value in samples.items()
        if name == "ndb_request_duration_seconds_bucket" and ("command", "KV_COUNT") in labels
    ]
    assert buckets == sorted(buckets)
    assert all(samples[f"{name}_count", ()] > 0 for name in HISTOGRAMS)


def test_a_page_tells_no_token_and_no_value(server: Server, tally: Tally) -> None:
    with Counting(server.port, tally) as client:
        client.upgrade()
        token = client.run("SH_NEW")["tkn"]
        client.run("SH_SET", tkn=token, keys={"secret-key": "secret-value"})
        client.ask(text({"SECRET": {}}), "ERR", 10)
        _, _, page = get(ops_port(server.stderr), "/metrics")
    assert str(token) not in page
    assert "secret" not in page.lower()


def test_scrapes_on_the_main_port_are_traffic_and_no_connections(start_server: StartServer) -> None:
    port = start_server().port
    first, second = scrape(port), scrape(port)
    assert second["ndb_connections", ()] == second["ndb_connections_opened_total", ()] == 0
    assert labelled("ndb_refusals_total", port) == {}
    assert second["ndb_received_bytes_total", ()] == 2 * first["ndb_received_bytes_total", ()]


def test_an_administrator_is_told_how_the_server_does(server: Server, tally: Tally) -> None:
    with Counting(server.port, tally) as client:
        client.upgrade()
        client.run("SH_NEW")
        client.run("KV_SET", keys={"a": 1})
        stats = client.run("SV_INFO")["stats"]
    uptime, memory = stats.pop("uptime"), stats.pop("memory")
    assert uptime >= 0
    assert memory > 2**20
    assert stats == {"connections": 1, "sessions": 1, "sessionKeys": 0, "keys": 1}
