"""The conformance kit against this project's server, in every way to run it."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ndb_protocol.conformance.report import Outcome
from ndb_protocol.conformance.scenarios import load_scenarios
from ndb_protocol.conformance.servers import check_server
from ndb_server.server.server import Options
from ndb_server.websocket.connection import Timeouts

from tests.support.certificates import Authority
from tests.support.conformance_kit import run_kit
from tests.support.credentials import added
from tests.support.in_process_server import running
from tests.support.project_sources import ROOT
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

SERVERS: dict[str, Callable[[Path], list[str]]] = {
    "in memory": lambda _: [],
    "strict": lambda folder: ["--data-dir", str(folder), "--durability", "strict"],
    "relaxed, on the loop of asyncio": lambda folder: [
        *("--data-dir", str(folder), "--durability", "relaxed"),
        *("--loop", "asyncio"),
    ],
}
"""The ways to run a server, each with its arguments: every one must pass the same kit."""

HOWTO = ROOT / "docs" / "howto"

LIMITS = {
    "--max-keys": "50",
    "--max-key-length": "20",
    "--max-sessions": "30",
    "--max-memory": "100k",
    "--max-steps": "5000",
}
"""Limits that scenarios can reach."""

UNFIT = {
    "they need a server with saving enabled",
    "they need a server with saving disabled",
    "they need a server that requires credentials",
    "they need credentials that do not permit SH_END_ALL",
    "they need a server whose limits.writeTimeout is at most 5",
    "they need a server whose limits.sessions is at most 1000",
    "they need a server whose limits.memory is at most 1000000",
    "they need a server whose limits.connections is at most 50",
    "they need a server whose limits.connectionsPerAddress is at most 50",
    "they need a server whose limits.handshakeTimeout is at most 5",
    "they need a server whose limits.idleTimeout is at most 5",
}


@pytest.mark.parametrize("way", SERVERS)
def test_a_server_passes(way: str, start_server: StartServer, tmp_path: Path) -> None:
    arguments = SERVERS[way](tmp_path)
    ran = run_kit(start_server(*arguments).url)
    assert ran.status == 0, "\n".join(ran.lines)
    assert re.fullmatch(r"\d+ passed, 0 failed, \d+ skipped", ran.lines[-1])
    assert sum(ran.counts.values()) == len(load_scenarios())
    assert ran.counts["passed"] > 600
    why = {line.split(": ", 1)[1] for line in ran.lines if line.startswith("skipped ")}
    assert why < UNFIT
    if "--data-dir" in arguments:
        assert ran.lines[-1] in (HOWTO / "check-a-server.md").read_text()


@pytest.mark.parametrize("number", ["connections", "connections-per-address"])
def test_a_server_with_low_limits_passes_what_shows_them(
    number: str, start_server: StartServer, tmp_path: Path
) -> None:
    options = [f"{option}={value}" for option, value in LIMITS.items()]
    options += [f"--max-{number}=8", "--data-dir", str(tmp_path), "--durability", "relaxed"]
    ran = run_kit(start_server(*options).url, "--only", "limits/*")
    assert ran.status == 0, "\n".join(ran.lines)
    # Of the two limits of connections each server has one.
    assert ran.counts == {"passed": 11, "failed": 0, "skipped": 3}


def test_a_server_with_short_times_passes_what_shows_them(start_server: StartServer) -> None:
    server = start_server("--handshake-timeout=2", "--idle-timeout=2")
    ran = run_kit(server.url, "--only", "limits/*Timeout*")
    assert ran.status == 0, "\n".join(ran.lines)
    assert ran.counts == {"passed": 2, "failed": 0, "skipped": 0}


def test_limits_that_can_not_be_reached_are_told(start_server: StartServer) -> None:
    options = ("--max-message-size=1000", "--max-connections=9", "--max-connections-per-address=8")
    ran = run_kit(start_server(*options).url, "--only", "limits/*")
    why = "they need a server whose limits.connections is at most limits.connectionsPerAddress"
    assert f"skipped 1: {why}" in ran.lines
    assert any(line.endswith("limits.messageSize is higher") for line in ran.lines)
    assert ran.status == 0, "\n".join(ran.lines)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a file of credentials, and the secret of ``kit``, who may do everything."""
    file = tmp_path_factory.mktemp("auth") / "credentials"
    return file, added(file, "kit", "app", "kv", "admin")


def test_credentials_that_do_not_permit_everything_show_what_is_refused(
    start_server: StartServer, guarded: tuple[Path, str]
) -> None:
    file, _ = guarded
    secret = added(file, "app", "app")
    server = start_server("--auth-file", str(file))
    ran = run_kit(server.url.replace("ws://", f"ws://app:{secret}@"))
    assert ran.status == 0, "\n".join(ran.lines)
    assert ran.counts == {"passed": 1, "failed": 0, "skipped": len(load_scenarios()) - 1}
    assert "they need credentials that permit every command" in "\n".join(ran.lines)


@pytest.fixture
def encrypted(
    start_server: StartServer, guarded: tuple[Path, str], tmp_path: Path
) -> Callable[..., tuple[str, str]]:
    """Return what starts a server with more options, and returns its address and its CA."""
    ca = tmp_path / "ca.pem"

    def start(*options: str) -> tuple[str, str]:
        authority = Authority()
        authority.cert_pem.write_to_path(ca)
        tls = authority.files(tmp_path, "localhost")
        file, _ = guarded
        server = start_server("--host", "localhost", "--auth-file", str(file), *tls, *options)
        return f"localhost:{server.port}/", str(ca)

    return start


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_that_asks_for_credentials_and_speaks_tls_passes(
    loop: str, encrypted: Callable[..., tuple[str, str]], guarded: tuple[Path, str]
) -> None:
    address, ca = encrypted("--loop", loop)
    # What commands do has nothing to do with how the connection was made.
    ran = run_kit(f"wss://kit:{guarded[1]}@{address}", "--ca", ca, "--only", "transport/*")
    assert ran.status == 0, "\n".join(ran.lines)
    assert ran.counts["passed"] > 35
    assert "they need a server that requires credentials" not in "\n".join(ran.lines)


def test_a_server_that_does_not_let_the_kit_in_is_named_without_the_secret(
    encrypted: Callable[..., tuple[str, str]], guarded: tuple[Path, str]
) -> None:
    address, ca = encrypted()
    secret = guarded[1]
    for shown, options, why in [
        ("", ("--ca", ca), "requires other credentials; give them in the URL"),
        (f"kit:{secret}x@", ("--ca", ca), "requires other credentials; give them in the URL"),
        (f"kit:{secret}@", (), "certificate verify failed"),
        (f"kit:{secret}@", ("--ca", f"{ca}x"), "No such file or directory"),
        (f"kit:{secret}@", ("--ca", __file__), "can't use"),
    ]:
        ran = run_kit(f"wss://{shown}{address}", *options)
        assert ran.status == 2
        assert why in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
        assert secret not in ran.stderr


async def test_a_client_that_does_not_read_is_cut_off_in_time() -> None:
    [scenario] = [scenario for scenario in load_scenarios() if "writeTimeout" in scenario.needs]
    options = Options(port=0, timeouts=Timeouts(write=0.5))
    async with running(options) as url:
        [result] = await check_server(url, [scenario], BOUND)
    assert result.outcome is Outcome.PASSED, result.detail


def test_the_core_is_what_a_server_of_nemesisdb_can_be_checked_with(server: Server) -> None:
    ran = run_kit(server.url, "--profile", "core")
    assert ran.status == 0
    assert 50 < ran.counts["passed"] < 200


def test_a_failure_is_told_with_what_was_sent_expected_and_got(
    start_server: StartServer, tmp_path: Path
) -> None:
    # A file where the folder of datasets is to be: every save fails.
    server = start_server("--data-dir", str(tmp_path / "data"))
    (tmp_path / "data" / "datasets").write_text("")
    junit = tmp_path / "report.xml"
    only = ["--only", "KV_SAVE/All *", "--only", "KV_COUNT/*"]
    ran = run_kit(server.url, *only, "--junit", str(junit))
    assert ran.status == 1
    assert ran.counts["failed"] == 1
    report = "\n".join(ran.lines)
    assert "FAILED Saving and loading: KV_SAVE/All independent keys are saved" in report
    assert re.search(r"step 2 of \d: \'st\': not \'121\' at 0", report)
    assert r'sent {"send":"{\"KV_SAVE\"' in report
    assert "expected {" in report
    assert 'got {"KV_SAVE_RSP":{"st":123,' in report

    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    assert suites["Saving and loading"].get("failures") == "1"
    assert suites["Independent keys"].get("failures") == "0"
    [failure] = suites["Saving and loading"].iter("failure")
    assert "'st': not '121'" in str(failure.get("message"))
    assert "KV_SAVE_RSP" in str(failure.text)


def test_what_can_not_be_checked_is_one_line_and_another_exit_status(
    server: Server, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    for arguments, why in {
        (): "give either the URL of a server, or a client with --client",
        (server.url, "--client", "x"): "give either the URL of a server, or a client with --client",
        ("http://127.0.0.1:1/",): "not a WebSocket URL: scheme isn't ws or wss",
        ("ws://kit:se/cret@h/",): "not a WebSocket URL: its host, port or credentials are wrong",
        (server.url, "--ca", folder): "--ca is given, but the URL is not encrypted",
        ("ws://127.0.0.1:1/",): "can't connect to ws://127.0.0.1:1/",
        (server.url, "--only", "nothing"): "no scenario of this profile matches nothing",
        (server.url, "--only", "KV_COUNT/*", "--junit", folder): f"can't write {folder}",
        ("--client", "/no/such/client"): "can't start the client",
        ("--client", "'"): "can't start the client",
    }.items():
        ran = run_kit(*arguments)
        assert ran.status == 2, arguments
        assert ran.lines == []
        assert ran.stderr.startswith("ndb-conformance: ")
        assert why in ran.stderr
    assert run_kit(server.url, "--timeout", "0").status == 2
    assert run_kit(server.url, "--timeout", "soon").status == 2
