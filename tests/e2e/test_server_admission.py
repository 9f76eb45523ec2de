"""Who comes in, as seen from outside: each refusal with its answer and its line of log."""

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from ndb_protocol import COMMANDS
from ndb_protocol.commands import Role

from tests.support.certificates import Authority
from tests.support.credentials import added, auth, basic
from tests.support.http_client import get, labelled, ops_port
from tests.support.opening_handshakes import ENDED, Answer, admitted, answer, encrypted
from tests.support.raw_client import Wire, close, handshake, opened, text
from tests.support.server_process import Server, StartServer
from tests.support.valid_params import PARAMS
from tests.support.waiting import BOUND, until


def refused(server: Server, expected: int, sentence: str, **headers: str) -> Answer:
    """See that a handshake is refused, with `sentence` in the answer and in the log."""
    got = answer(server.port, **headers)
    assert got.status == expected
    assert sentence in got.body
    assert got["Connection"] == "close"
    line = next(line for line in reversed(server.stderr.splitlines()) if sentence in line)
    assert "INFO ndb_server.transport: handshake refused, from 127.0.0.1 port " in line
    return got


# Browsers


def test_a_page_of_another_origin_is_refused_with_403(start_server: StartServer) -> None:
    server = start_server("--allow-origin", "https://app.example")
    for origin in (
        "https://evil.example", "null", "http://localhost:8000", "https://app.example.evil"
    ):  # fmt: skip
        refused(server, 403, "--allow-origin allows an origin", Origin=origin)


def test_a_page_of_an_allowed_origin_and_a_program_without_one_come_in(
    start_server: StartServer,
) -> None:
    server = start_server(
        "--allow-origin", "https://app.example:443", "--allow-origin=http://localhost:8000"
    )
    for origin in ("https://app.example", "http://localhost:8000", ""):
        assert answer(server.port, Origin=origin).status == 101
    assert answer(server.port, Origin="HTTPS://APP.EXAMPLE").status == 403


def test_a_host_of_another_name_is_refused_with_403(server: Server) -> None:
    for host in ("evil.example", "evil.example:1987", "localhost.evil.example", "a%20b"):
        refused(server, 403, "--allow-host allows a name", Host=host)


def test_a_handshake_without_one_host_is_refused_with_400(server: Server) -> None:
    assert answer(server.port, Host="").status == 400
    for host in ("user@localhost", "localhost:port", "localhost/x", "[::1].evil.example"):
        refused(server, 400, "there must be exactly one Host header", Host=host)


def test_addresses_and_names_of_the_server_come_in(start_server: StartServer) -> None:
    server = start_server("--host", "localhost", "--allow-host", "NDB.internal")
    names = ("localhost:1", "app.localhost", "127.0.0.1:9", "[::1]:9", "10.1.2.3", "ndb.internal:8")
    for name in names:
        assert answer(server.port, Host=name).status == 101


def test_two_hosts_or_two_origins_are_refused(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send(handshake().replace(b"\r\n", b"\r\nHost: localhost\r\n", 1))
        assert wire.head()[0] == 400
    with Wire(server.port) as wire:
        wire.send(handshake(Origin="http://a").replace(b"\r\n", b"\r\nOrigin: http://b\r\n", 1))
        assert wire.head()[0] == 400


# Credentials


@pytest.fixture(scope="module")
def auth_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auth") / "credentials"


@pytest.fixture(scope="module")
def secrets(auth_file: Path) -> dict[str, str]:
    """Return the secrets of entries, by their names, which are their roles."""
    entries = ("app", "kv", "admin", "app,kv,admin")
    return {
        roles: added(auth_file, roles.replace(",", "-"), *roles.split(",")) for roles in entries
    }


@pytest.fixture
def guarded(start_server: StartServer, auth_file: Path, secrets: dict[str, str]) -> Server:
    assert secrets
    return start_server("--auth-file", str(auth_file))


WRONG: dict[str, str] = {
    "another secret": basic("app", "x"),
    "another name": basic("nobody", "x"),
    "no name": basic("", ""),
    "an unknown token": "Bearer 0123456789ab.xxxxxxxx",
    "what is no token": "Bearer x",
}
NONE: dict[str, str] = {
    "nothing": "",
    "another scheme": "Digest username=app",
    "no base64": "Basic ***",
    "no UTF-8": "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    "no colon": "Basic " + base64.b64encode(b"app").decode(),
    "a scheme alone": "Bearer ",
}


def test_wrong_credentials_are_refused_with_401(guarded: Server) -> None:
    for header in WRONG.values():
        got = refused(guarded, 401, "the credentials are wrong", Authorization=header)
        assert got["WWW-Authenticate"] == 'Basic realm="ndb", charset="UTF-8", Bearer realm="ndb"'


def test_missing_credentials_are_refused_with_401(guarded: Server) -> None:
    for header in NONE.values():
        got = refused(guarded, 401, "this server requires credentials", Authorization=header)
        assert "Basic" in got["WWW-Authenticate"]


def test_right_credentials_come_in_in_each_form(guarded: Server, secrets: dict[str, str]) -> None:
    for header in (basic("app", secrets["app"]), f"bearer {secrets['app']}"):
        assert answer(guarded.port, Authorization=header).status == 101
    assert answer(guarded.port, Authorization=basic("kv", secrets["app"])).status == 401


def test_any_host_may_be_named_where_credentials_are_asked_for(
    guarded: Server, secrets: dict[str, str]
) -> None:
    bearer = f"Bearer {secrets['app']}"
    assert answer(guarded.port, Authorization=bearer, Host="ndb.example").status == 101
    assert answer(guarded.port, Authorization=bearer, Origin="https://ndb.example").status == 403


def test_each_wrong_secret_is_logged_and_counted_and_the_right_one_still_comes_in(
    guarded: Server, secrets: dict[str, str]
) -> None:
    wires = [Wire(guarded.port) for _ in range(60)]
    for number, wire in enumerate(wires):
        wire.send(handshake(Authorization=basic("app", f"x{number}")))
    assert [wire.head()[0] for wire in wires] == [401] * 60
    for wire in wires:
        wire.socket.close()
    assert answer(guarded.port, Authorization=f"Bearer {secrets['app']}").status == 101
    assert guarded.stderr.count("the credentials are wrong") == 60
    operator = f"Bearer {secrets['admin']}"
    assert labelled("ndb_refusals_total", guarded.port, Authorization=operator) == {
        "credentials": 60
    }


def test_who_is_withdrawn_while_replies_wait_is_cut_off_at_once(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    secret = added(file, "going", "app")
    server = start_server("--auth-file", str(file))
    with admitted(server.port, secret) as going:
        going.send(text({"SH_EXISTS": {"tkns": [*range(1, 100_000)]}}))
        until(lambda: "asks for many unknown tokens" in server.stderr)
        auth("remove", "going", "--auth-file", str(file))
        os.kill(server.pid, signal.SIGHUP)
        with pytest.raises(ENDED):
            going.reply()
    assert "connection aborted, from 127.0.0.1 port " in server.stderr
    assert ": the credentials were revoked" in server.stderr


def test_all_who_come_at_once_with_a_right_secret_come_in(
    guarded: Server, secrets: dict[str, str]
) -> None:
    # As when a server was restarted, and an application has many connections.
    wires = [Wire(guarded.port) for _ in range(100)]
    for wire in wires:
        wire.send(handshake(Authorization=f"Bearer {secrets['app']}"))
    assert [wire.head()[0] for wire in wires] == [101] * 100
    for wire in wires:
        wire.socket.close()


def test_what_is_sent_behind_the_handshake_is_answered(
    guarded: Server, secrets: dict[str, str]
) -> None:
    with Wire(guarded.port) as wire:
        sent = handshake(Authorization=f"Bearer {secrets['kv']}") + text({"KV_COUNT": {}}) * 3
        wire.send(sent)
        assert wire.head()[0] == 101
        assert wire.replies(3) == [{"KV_COUNT_RSP": {"st": 1, "cnt": 0}}] * 3


# Roles


ADMIN = {
    "SH_END_ALL", "SH_INFO_ALL", "SH_SAVE", "SH_LOAD", "KV_SAVE", "KV_LOAD", "KV_CLEAR",
    "KV_CLEAR_SET",
}  # fmt: skip


def test_the_roles_of_the_commands_are_those_of_the_documentation() -> None:
    by_role = {
        role: {command.name for command in COMMANDS.values() if command.role is role}
        for role in (*Role, None)
    }
    sessions = {name for name in COMMANDS if name.startswith("SH_")}
    keys = {name for name in COMMANDS if name.startswith("KV_")}
    assert by_role == {
        Role.APP: sessions - ADMIN,
        Role.KV: keys - ADMIN,
        Role.ADMIN: ADMIN,
        None: {"SV_INFO"},
    }


@pytest.mark.parametrize("role", ["app", "kv", "admin", "app,kv,admin"])
def test_a_client_may_do_what_its_roles_permit_and_nothing_else(
    guarded: Server, secrets: dict[str, str], role: str
) -> None:
    with admitted(guarded.port, secrets[role]) as wire:
        for name, command in COMMANDS.items():
            reply = wire.request(name, **PARAMS.get(name, {}))
            needed = command.role
            if needed is None or needed.value in role.split(","):
                assert reply["st"] != 14 or "--data-dir" in reply["m"], name
            else:
                assert reply == {
                    "st": 14,
                    "m": f"{name} needs the role {needed.value}; this client's: {role}",
                }


# The file of credentials


def test_a_removed_entry_is_closed_with_1008_and_refused_from_then_on(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    going, staying = added(file, "going", "app"), added(file, "staying", "kv")
    server = start_server("--auth-file", str(file))
    with admitted(server.port, going) as first, admitted(server.port, staying) as second:
        auth("remove", "going", "--auth-file", str(file))
        coming = added(file, "coming", "app")
        os.kill(server.pid, signal.SIGHUP)
        assert first.rest() == [(1008, "the credentials were revoked")]
        assert second.request("KV_COUNT")["st"] == 1
    assert "credentials were read again" in server.stderr
    assert answer(server.port, Authorization=f"Bearer {going}").status == 401
    assert answer(server.port, Authorization=f"Bearer {coming}").status == 101


def test_a_file_that_cannot_be_read_again_leaves_those_in_who_were(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    secret = added(file, "web", "app")
    server = start_server("--auth-file", str(file))
    file.write_text(f"{secret}\n")
    with admitted(server.port, secret) as wire:
        os.kill(server.pid, signal.SIGHUP)
        assert wire.request("SH_NEW")["st"] == 1
        for _ in range(1000):
            if "could not be read again" in server.stderr:
                break
            assert wire.request("SH_NEW")["st"] == 1
    assert (
        "ERROR ndb_server.server: credentials could not be read again: line 1 of credentials "
        f"{file} is not an entry"
    ) in server.stderr
    assert secret not in server.stderr


# TLS


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls_connections_are_answered_and_closed_in_order(
    start_server: StartServer, authority: Authority, tmp_path: Path, loop: str
) -> None:
    server = start_server(*authority.files(tmp_path, "localhost"), "--loop", loop)
    assert server.url.startswith("wss://127.0.0.1:")
    with encrypted(server.port, authority.client()) as wire:
        large = "x" * 1_000_000
        assert wire.request("KV_SET", keys={"a": large})["st"] == 1
        wire.send(text({"KV_GET": {"keys": ["a"]}}) * 3 + close())
        assert [reply["KV_GET_RSP"]["keys"]["a"] for reply in wire.replies(3)] == [large] * 3
        assert wire.rest() == [(1000, "")]
    with Wire(server.port) as plain:
        plain.send(handshake())
        assert plain.socket.recv(1)[:4] != b"HTTP"
    with encrypted(server.port, authority.client()) as wire:
        assert wire.request("KV_COUNT") == {"st": 1, "cnt": 1}
        server.process.terminate()
        assert wire.said() == (1001, "server is shutting down")
        wire.send(close(1001))
        assert wire.rest() == []
    assert server.process.wait(BOUND) == 0


def test_old_versions_of_tls_are_refused(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    server = start_server(*authority.files(tmp_path, "localhost"))
    context = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", server.port), BOUND) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_certificates_are_read_again_on_sighup(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    server = start_server(*authority.files(tmp_path, "localhost"))
    other = Authority()
    with encrypted(server.port, authority.client()) as before:
        other.files(tmp_path, "localhost")
        os.kill(server.pid, signal.SIGHUP)
        while "were read again" not in server.stderr:
            assert before.request("KV_COUNT")["st"] == 1
        with encrypted(server.port, other.client()) as after:
            assert after.request("KV_COUNT")["st"] == 1
        assert before.request("KV_COUNT")["st"] == 1
        (tmp_path / "localhost.pem").write_text("no certificate")
        os.kill(server.pid, signal.SIGHUP)
        while "could not be read again" not in server.stderr:
            assert before.request("KV_COUNT")["st"] == 1
        with encrypted(server.port, other.client()) as still:
            assert still.request("KV_COUNT")["st"] == 1


def test_only_clients_with_a_certificate_of_the_authority_come_in(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(trusted)
    server = start_server(*authority.files(tmp_path, "localhost"), "--tls-client-ca", str(trusted))
    with encrypted(server.port, authority.client("web.internal")) as wire:
        assert wire.request("KV_COUNT")["st"] == 1
    strangers = Authority()
    stranger = authority.client()
    strangers.issue_cert("web.internal").configure_cert(stranger)
    for context in (authority.client(), stranger):
        # With TLS 1.3 the client hears of it when it first reads.
        with pytest.raises(ENDED), encrypted(server.port, context):
            pytest.fail("it came in")


# Protected by default


def start_fails(*arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "ndb_server", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    [line] = process.stderr.splitlines()
    return line


def test_a_server_does_not_listen_to_a_network_unprotected(
    authority: Authority, auth_file: Path, secrets: dict[str, str], tmp_path: Path
) -> None:
    assert secrets
    tls = authority.files(tmp_path, "localhost")
    credentials = ["--auth-file", str(auth_file)]
    for host, given, missing in (
        ("0.0.0.0", [], "credentials and TLS"),
        ("::", tls, "credentials"),
        ("192.0.2.1", credentials, "TLS"),
    ):
        line = start_fails("--host", host, *given)
        assert line.startswith(f"ndb-server: refusing to listen on {host} without {missing}: ")
        for way in ("--auth-file", "--tls-cert", "--tls-key", "--behind-proxy", "--insecure"):
            assert way in line


def test_a_server_listens_to_a_network_in_each_of_the_ways_on(
    start_server: StartServer,
    authority: Authority,
    auth_file: Path,
    secrets: dict[str, str],
    tmp_path: Path,
) -> None:
    tls = authority.files(tmp_path, "localhost")
    trusted = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(trusted)
    ways = {
        "wss://": ["--auth-file", str(auth_file), *tls],
        "wss:/": ["--tls-client-ca", str(trusted), *tls],
        "ws://": ["--behind-proxy"],
        "ws:/": ["--insecure"],
    }
    for scheme, options in ways.items():
        assert start_server("--host", "0.0.0.0", *options).url.startswith(scheme)


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key", "--tls-client-ca"])
def test_a_certificate_without_its_key_or_a_key_without_it_is_named(option: str) -> None:
    assert "TLS needs both --tls-cert and --tls-key" in start_fails(option, "x.pem")


def test_files_that_cannot_be_used_stop_the_start(authority: Authority, tmp_path: Path) -> None:
    tls = authority.files(tmp_path, "localhost")
    nowhere = str(tmp_path / "nowhere")
    assert f"cannot read credentials {nowhere}" in start_fails("--auth-file", nowhere)
    chain, key = tls[:2], tls[2:]
    assert f"cannot use certificate {nowhere}" in start_fails(*key, "--tls-cert", nowhere)
    assert f"cannot use client CA {nowhere}" in start_fails(*tls, "--tls-client-ca", nowhere)
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("no certificate")
    assert f"cannot use certificate {no_pem}" in start_fails(*key, "--tls-cert", str(no_pem))
    assert f"cannot use client CA {no_pem}" in start_fails(*tls, "--tls-client-ca", str(no_pem))
    mixed = authority.issue_cert("other").private_key_pem
    mixed.write_to_path(tmp_path / "other.key")
    line = start_fails(*chain, "--tls-key", str(tmp_path / "other.key"))
    assert "KEY_VALUES_MISMATCH" in line


@pytest.mark.parametrize(("seed", "fixed"), [("0", True), ("42", True), ("random", False)])
def test_a_server_whose_hashes_are_known_warns_once(
    start_server: StartServer, seed: str, fixed: bool
) -> None:
    server = start_server(env={"PYTHONHASHSEED": seed})
    warnings = [line for line in server.stderr.splitlines() if "PYTHONHASHSEED" in line]
    assert len(warnings) == fixed
    assert all(
        "WARNING ndb_server.server: PYTHONHASHSEED is set to a number: anyone who knows it can "
        "send keys whose hashes collide, which makes the server very slow; unset it" in line
        for line in warnings
    )


# The number of connections


def test_connections_beyond_the_number_are_refused_with_503(start_server: StartServer) -> None:
    server = start_server("--max-connections", "2")
    with opened(server.port) as first, opened(server.port):
        got = refused(server, 503, "there are 2 connections already")
        assert "try again later" in got.body
        assert first.request("KV_COUNT")["st"] == 1
    # As soon as the server has seen one end.
    while answer(server.port).status == 503:
        pass
    assert answer(server.port).status == 101


def test_connections_of_one_address_beyond_the_number_are_refused_with_429(
    start_server: StartServer,
) -> None:
    server = start_server("--max-connections-per-address", "2", "--host", "0.0.0.0", "--insecure")
    with opened(server.port), opened(server.port):
        refused(server, 429, "there are 2 connections from this address already")
        with Wire(server.port) as other:
            other.socket.close()
            other.socket = socket.create_connection(
                ("127.0.0.1", server.port), BOUND, source_address=("127.0.0.2", 0)
            )
            other.upgrade()


def test_a_flood_of_connections_beyond_the_number_is_cut(start_server: StartServer) -> None:
    server = start_server("--max-connections", "5")
    silent = [socket.create_connection(("127.0.0.1", server.port), BOUND) for _ in range(400)]
    # The last ones get no answer at all, at once.
    with pytest.raises(ENDED):
        answer(server.port)
    assert "connection aborted, from 127.0.0.1" in server.stderr
    assert "too many connections" in server.stderr
    for one in silent:
        one.close()
    while True:
        try:
            if answer(server.port).status == 101:
                break
        except ENDED:
            continue


def test_behind_a_proxy_connections_are_counted_by_the_address_it_says(
    start_server: StartServer,
) -> None:
    server = start_server("--behind-proxy", "--max-connections-per-address", "1")
    with Wire(server.port) as wire:
        wire.send(handshake(X_Forwarded_For="198.51.100.1, 198.51.100.2"))
        assert wire.head()[0] == 101
        assert answer(server.port, X_Forwarded_For="198.51.100.2").status == 429
        # What stands before the last one may be the client's own invention.
        assert answer(server.port, X_Forwarded_For="198.51.100.2, 198.51.100.3").status == 101
        assert answer(server.port, X_Forwarded_For="no address").status == 101


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("198.51.100.2", "198.51.100.2:4711"),
        ("198.51.100.2:4711", "198.51.100.2:4712"),
        ("2001:db8::1", "[2001:db8::2]"),
        ("[2001:db8::1]:4711", "[2001:db8::2]:4712"),
        ("::ffff:198.51.100.2", "198.51.100.2"),
    ],
)
def test_an_address_that_a_proxy_says_may_have_a_port(
    start_server: StartServer, one: str, same: str
) -> None:
    server = start_server("--behind-proxy", "--max-connections-per-address", "1")
    with Wire(server.port) as wire:
        wire.send(handshake(X_Forwarded_For=one))
        assert wire.head()[0] == 101
        assert answer(server.port, X_Forwarded_For=same).status == 429
        assert answer(server.port, X_Forwarded_For="198.51.100.3:4711").status == 101
        assert answer(server.port, X_Forwarded_For="[2001:db8:1::]:4711").status == 101


def test_behind_a_proxy_the_log_names_the_client_and_the_connection_it_came_on(
    start_server: StartServer,
) -> None:
    server = start_server("--behind-proxy")
    for sent in (
        handshake(Host="evil.example", X_Forwarded_For="198.51.100.2:4711"),
        handshake(Sec_WebSocket_Key="", X_Forwarded_For="198.51.100.2"),
        b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-For: 198.51.100.2\r\n\r\n",
    ):
        with Wire(server.port) as wire:
            own = wire.socket.getsockname()[1]
            wire.send(sent)
            assert wire.head()[0] in (400, 403)
        assert f" refused, from 198.51.100.2 through 127.0.0.1 port {own}: " in server.stderr


def test_a_proxy_that_does_not_say_for_whom_it_connects_is_warned_of_once(
    start_server: StartServer,
) -> None:
    server = start_server("--behind-proxy")
    said = "WARNING ndb_server.admission: the proxy does not send the client's address"
    # It asks for itself whether the server is ready.
    assert get(server.port, "/readyz")[0] == 200
    assert answer(server.port, X_Forwarded_For="198.51.100.2").status == 101
    assert said not in server.stderr
    for _ in range(2):
        assert answer(server.port).status == 101
    assert server.stderr.count(said) == 1


def test_without_a_proxy_nobody_is_asked_for_an_address(start_server: StartServer) -> None:
    server = start_server("--max-connections-per-address", "1")
    with opened(server.port):
        assert answer(server.port, X_Forwarded_For="198.51.100.2").status == 429


def test_secrets_are_shown_once_and_kept_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    printed = auth("add", "web", "--role", "app", "--role", "admin", "--auth-file", str(file))
    secret = printed.split()[-1]
    assert printed.count(secret) == 1
    assert len(secret) > 40
    assert file.stat().st_mode & 0o777 == 0o600
    kept = file.read_text()
    assert secret not in kept
    assert secret.partition(".")[2] not in kept
    [entry] = map(json.loads, kept.splitlines())
    assert entry["roles"] == ["app", "admin"]
    assert auth("list", "--auth-file", str(file)) == "web app,admin\n"
    assert added(file, "other", "kv") != secret
    auth("remove", "web", "--auth-file", str(file))
    assert auth("list", "--auth-file", str(file)) == "other kv\n"
    assert [*tmp_path.iterdir()] == [file]


# Plain HTTP


@pytest.mark.parametrize("ops", [False, True], ids=["main port", "ops port"])
def test_metrics_are_for_administrators_and_health_is_for_everybody(
    start_server: StartServer, auth_file: Path, secrets: dict[str, str], ops: bool
) -> None:
    options = ["--ops-port", "0"] if ops else []
    server = start_server("--auth-file", str(auth_file), *options)
    port = ops_port(server.stderr) if ops else server.port
    assert get(port, "/healthz")[0] == get(port, "/readyz")[0] == 200
    status, headers, _ = get(port, "/metrics")
    assert status == 401
    assert "Bearer" in headers["WWW-Authenticate"]
    for role, expected in (("app", 403), ("admin", 200), ("admin", 200)):
        bearer = f"Bearer {secrets[role]}"
        assert get(port, "/metrics", Authorization=bearer)[0] == expected
    assert get(port, "/metrics", Authorization="Bearer x")[0] == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_plain_http_for_a_host_of_another_name_is_refused_with_403(
    server: Server, path: str
) -> None:
    status, _, body = get(server.port, path, Host="rebound.example")
    assert status == 403
    assert "--allow-host" in body


@pytest.mark.parametrize("role", ["app", "admin"])
def test_only_administrators_are_told_how_the_server_does(
    guarded: Server, secrets: dict[str, str], role: str
) -> None:
    with admitted(guarded.port, secrets[role]) as wire:
        assert ("stats" in wire.request("SV_INFO")) is (role == "admin")
