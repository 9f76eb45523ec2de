"""Options that have no effect in the combination in which they are given."""

import os
from pathlib import Path

import pytest
from ndb_server.cli import main as cli
from ndb_server.cli.combinations import contradiction, options_without_effect

from tests.support.command_line import error_of
from tests.support.server_process import StartServer
from tests.support.socket_activation import activated, listening

pytestmark = pytest.mark.usefixtures("nothing_configured", "signals_as_before")

ALONE = {
    *("host", "port", "unix", "log-level", "log-format", "data-dir", "loop", "metrics", "ops-port"),
    *("slow-ms", "shutdown-timeout", "auth-file", "allow-origin", "allow-host", "behind-proxy"),
    *("insecure", "max-memory", "max-sessions", "max-keys", "max-key-length", "max-message-size"),
    *("max-depth", "max-steps", "max-in-flight", "max-connections"),
    *("max-connections-per-address", "handshake-timeout", "idle-timeout"),
}
"""Options that do something without another one."""

REFUSED = {
    "durability": (["--durability=strict"], "without --data-dir"),
    "load": (["--load=evening"], "start it with --data-dir"),
    "salvage": (["--salvage"], "without --data-dir"),
    "when-full": (["--when-full=evict", "--max-memory=0"], "--max-memory 0"),
    "tls-cert": (["--tls-cert=cert"], "both --tls-cert and --tls-key"),
    "tls-key": (["--tls-key=key"], "both --tls-cert and --tls-key"),
    "tls-client-ca": (["--tls-client-ca=ca"], "both --tls-cert and --tls-key"),
}
"""For each of the others, how it would do nothing, and what it is refused for."""


def test_of_every_option_it_is_known_whether_it_does_something_alone() -> None:
    options = {
        argument.name.removeprefix("--") for argument in cli.app.assemble_argument_collection()
    }
    assert options == ALONE | set(REFUSED)


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_would_do_nothing_is_refused(
    capfd: pytest.CaptureFixture[str], option: str
) -> None:
    arguments, reason = REFUSED[option]
    assert reason in error_of(capfd, *arguments)


def test_an_option_is_refused_wherever_it_stands(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "ndb.toml"
    config.write_text('durability = "relaxed"')
    assert "without --data-dir" in error_of(capfd, f"--config={config}")
    monkeypatch.setenv("NDB_SALVAGE", "true")
    assert "without --data-dir" in error_of(capfd)


def test_what_is_not_asked_for_contradicts_nothing() -> None:
    assert contradiction({"salvage": False, "max_memory": 0, "port": 0}) is None
    assert contradiction({"data_dir": "data", "durability": "relaxed", "salvage": True}) is None
    assert contradiction({"when_full": "evict", "max_memory": 1}) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_connections_per_address": 20_000}, "--max-connections-per-address 20000 has no"),
        ({"max_connections": 5, "max_connections_per_address": 6}, "allows only 5 connections"),
        ({"max_connections": 0, "max_connections_per_address": 6}, None),
        ({"max_connections": 5, "max_connections_per_address": 5}, None),
        ({"max_connections": 5}, None),
        ({"unix": "s", "port": 5}, "--port has no effect with --unix alone"),
        ({"unix": "s", "port": 5, "host": ("::1",)}, None),
        ({"port": 5}, None),
        ({"insecure": True, "behind_proxy": True}, "--insecure has no effect with --behind-proxy"),
        ({"insecure": True, "behind_proxy": False}, None),
        ({"allow_host": ("ndb.example", "10.0.0.1")}, "--allow-host 10.0.0.1 has no effect"),
        ({"allow_host": ("LOCALHOST",)}, "--allow-host LOCALHOST has no effect"),
        ({"allow_host": ("10.0.0.1",), "auth_file": "auth"}, None),
        ({"allow_host": ("ndb.example",)}, None),
    ],
)
def test_an_option_that_does_nothing_and_no_harm_is_remarked_on(
    given: dict[str, object], said: str | None
) -> None:
    found = options_without_effect(given)
    if said is None:
        assert found == []
    else:
        [line] = found
        assert said in line


def test_a_server_that_is_said_to_be_insecure_and_is_not_says_so(
    start_server: StartServer,
) -> None:
    protected = start_server("--insecure", "--max-connections=5", "--max-connections-per-address=6")
    protected.stop()
    assert "WARNING ndb_server.server: --insecure has no effect" in protected.stderr
    assert "WARNING ndb_server.cli: --max-connections-per-address 6 has no" in protected.stderr
    exposed = start_server("--insecure", "--host=0.0.0.0")
    exposed.stop()
    assert "has no effect" not in exposed.stderr


UNIX_AND_PORT = {"unix": "s", "port": 5}


@pytest.mark.parametrize(
    ("given", "passed", "idle"),
    [
        (UNIX_AND_PORT, [""], ["--port", "--unix"]),
        ({"host": ("127.0.0.1",), "port": 1987}, ["ndb.socket"], ["--host", "--port"]),
        ({"host": ("localhost",)}, ["ndb.socket", "ops"], ["--host"]),
        # Operators have no socket, so they are on this address.
        ({"host": ("127.0.0.2",), "ops_port": 0}, ["ndb.socket"], []),
        ({"host": ("127.0.0.2",), "ops_port": 0}, ["ndb.socket", "ops"], ["--host", "--ops-port"]),
        # Clients may say this name still.
        ({"host": ("ndb.example",)}, ["ndb.socket"], []),
        ({"host": ("127.0.0.1",), "port": 5, "unix": "s"}, ["ops"], []),
        ({}, ["ndb.socket", "ops"], []),
    ],
)
def test_where_sockets_are_passed_other_places_have_no_effect(
    given: dict[str, object], passed: list[str], idle: list[str]
) -> None:
    said = options_without_effect(given, passed)
    assert [
        line.partition(" has no effect: the service manager has passed")[0] for line in said
    ] == idle


def test_a_server_says_which_places_have_no_effect_beside_its_sockets(
    start_server: StartServer,
) -> None:
    with listening() as first, listening() as ops:
        server = start_server("--ops-port=0", **activated([first, ops], "ndb.socket:ops"))
        server.stop()
        assert (
            "WARNING ndb_server.cli: --port has no effect: the service manager has passed"
            in server.stderr
        )
        assert "--ops-port has no effect: the service manager has passed" in server.stderr
        assert "--host" not in server.stderr
        unnamed = start_server(**activated([first, ops]))
        unnamed.stop()
    assert "--port has no effect: the service manager has passed" in unnamed.stderr


def test_a_number_of_sockets_that_is_none_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "some")
    assert "LISTEN_FDS is not a number" in error_of(capfd)


# Names of the server, and origins of pages


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("*", "* is not a wildcard here; give each name separately, or require credentials"),
        ("*.ndb.example", "* is not a wildcard here"),
        ("https://ndb.example", "more than a host; give only its name"),
        ("ndb.example/", "more than a host"),
        ("ndb.example:1987", "give only ndb.example"),
        ("[::1]:1987", "give only ::1"),
        ("user@ndb.example", "is not a host"),
        ("bücher.example", " as xn--bcher-kva.example; give that"),
        ("a.example,b.example", "is not a host name"),
        ("a..example", "is not a host name"),
        ("", "is not a host"),
    ],
)
def test_a_name_that_no_client_would_send_is_refused(
    capfd: pytest.CaptureFixture[str], host: str, reason: str
) -> None:
    line = error_of(capfd, f"--allow-host={host}")
    assert "--allow-host" in line
    assert reason in line


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("*", "* is not a wildcard here; give each origin separately"),
        ("https://*.app.example", "* is not a wildcard here"),
        ("app.example", "is not an origin; an example is https://app.example:8443"),
        ("https://app.example/", "is not an origin"),
        ("https://app.example/page?a=1", "is not an origin"),
        ("wss://app.example", "the origin of a page begins with http: or https:"),
        ("https://user:secret@app.example", "no credentials"),
        ("https://bücher.example", " as xn--bcher-kva.example; give that"),
        ("https://app_,example", "is not a host name"),
        ("https://app.example:99999", "ort"),
        ("null", "does not identify one"),
    ],
)
def test_an_origin_that_no_page_has_is_refused(
    capfd: pytest.CaptureFixture[str], origin: str, reason: str
) -> None:
    line = error_of(capfd, f"--allow-origin={origin}")
    assert "--allow-origin" in line
    assert reason in line
