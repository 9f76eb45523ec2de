"""Each refusal from outside: its exact answer, its one line of log and its counter."""

import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from tests.support.certificates import Authority
from tests.support.credentials import added, basic
from tests.support.http_client import get, labelled, ops_port
from tests.support.opening_handshakes import ENDED, Answer, admitted, answered, encrypted
from tests.support.raw_client import Wire, handshake, opened
from tests.support.server_process import Server, StartServer
from tests.support.waiting import until


def counted(port: int, **headers: str) -> dict[str, float]:
    """Return how often clients were refused, by the reason."""
    return labelled("ndb_refusals_total", port, **headers)


def lines(server: Server) -> list[str]:
    """Return what the log says of refusals, without the time."""
    return [
        line.partition(" INFO ")[2] for line in server.stderr.splitlines() if " refused" in line
    ]


class Refused(NamedTuple):
    """A refusal.

    Attributes:
        sent: what is sent.
        status: of the answer.
        reason: by which it is counted.
        sentence: what the answer and the log say.
        headers: more of the answer.
    """

    sent: bytes
    status: int
    reason: str
    sentence: str
    headers: Mapping[str, str] = MappingProxyType({})


ASKS = {"WWW-Authenticate": 'Basic realm="ndb", charset="UTF-8", Bearer realm="ndb"'}
HOW = "; send a name and its secret with HTTP Basic, or the secret as a Bearer token"


def page(**headers: str) -> bytes:
    """Return a plain request for the metrics."""
    return handshake(
        start="GET /metrics HTTP/1.1", Upgrade="", Connection="close", Sec_WebSocket_Key="",
        Sec_WebSocket_Version="", **headers,
    )  # fmt: skip


WRONG = {"Authorization": basic("app", "x")}
ANOTHER_HOST = "this is not a name of this server; --allow-host allows a name"

HANDSHAKES = {
    "another origin": Refused(
        handshake(Origin="https://evil.example"),
        403,
        "origin",
        "pages of this origin may not connect; --allow-origin allows an origin",
    ),
    "a rebound host": Refused(handshake(Host="evil.example"), 403, "host", ANOTHER_HOST),
    "a host that is none": Refused(
        handshake(Host="[::1].evil.example"),
        400,
        "host",
        "there must be exactly one Host header, and it must contain a host",
    ),
    "no credentials": Refused(
        handshake(), 401, "no_credentials", f"this server requires credentials{HOW}", ASKS
    ),
    "wrong credentials": Refused(
        handshake(**WRONG), 401, "credentials", f"the credentials are wrong{HOW}", ASKS
    ),
}
PAGES = {
    "a rebound host": Refused(page(Host="evil.example"), 403, "host", ANOTHER_HOST),
    "no credentials": HANDSHAKES["no credentials"]._replace(sent=page()),
    "wrong credentials": HANDSHAKES["wrong credentials"]._replace(sent=page(**WRONG)),
}


@pytest.fixture(scope="module")
def auth_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auth") / "credentials"


@pytest.fixture(scope="module")
def secrets(auth_file: Path) -> dict[str, str]:
    """Return the secrets of entries, by their names, which are their roles."""
    return {role: added(auth_file, role, role) for role in ("app", "admin")}


def assert_refused(
    server: Server, refused: Refused, what: str, port: int, count: Callable[[], dict[str, float]]
) -> None:
    """See that what is sent is refused, with its answer, its one line of log and its count."""
    before, said = count(), len(lines(server))
    with Wire(port) as wire:
        own = wire.socket.getsockname()[1]
        wire.send(refused.sent)
        got: Answer = answered(wire)
    assert (got.status, got.body) == (refused.status, f"{refused.sentence}\n")
    assert got["Connection"] == "close"
    assert refused.headers.items() <= got.items()
    [line] = lines(server)[said:]
    expected = f"{what} refused, from 127.0.0.1 port {own}: {refused.sentence}"
    assert line == f"ndb_server.transport: {expected}"
    assert count() == before | {refused.reason: before.get(refused.reason, 0) + 1}


@pytest.mark.parametrize("ops", [False, True], ids=["main port", "ops port"])
def test_who_may_not_come_in_is_told_logged_and_counted(
    start_server: StartServer, auth_file: Path, secrets: dict[str, str], ops: bool
) -> None:
    options = ["--auth-file", str(auth_file), "--allow-host", "ndb.example"]
    server = start_server(*options, *(["--ops-port", "0"] if ops else []))
    operators = ops_port(server.stderr) if ops else server.port
    admin = f"Bearer {secrets['admin']}"

    def count() -> dict[str, float]:
        return counted(operators, Authorization=admin)

    if not ops:
        for refused in HANDSHAKES.values():
            assert_refused(server, refused, "handshake", server.port, count)
    app = page(Authorization=f"Bearer {secrets['app']}")
    not_permitted = Refused(app, 403, "role", "metrics require the role admin")
    for refused in (*PAGES.values(), not_permitted):
        assert_refused(server, refused, "request", operators, count)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (
            ["--max-connections", "2"],
            Refused(
                handshake(),
                503,
                "connections",
                "there are 2 connections already, and no more are allowed; try again later",
            ),
        ),
        (
            ["--max-connections-per-address", "2"],
            Refused(
                handshake(),
                429,
                "connections_per_address",
                "there are 2 connections from this address already, and no more are allowed; "
                "use these, or try again later",
            ),
        ),
    ],
    ids=["in all", "of an address"],
)
def test_a_connection_too_many_is_told_logged_and_counted(
    start_server: StartServer, options: list[str], refused: Refused
) -> None:
    server = start_server(*options)
    with opened(server.port), opened(server.port):
        assert_refused(server, refused, "handshake", server.port, lambda: counted(server.port))


def test_a_handshake_that_is_none_is_logged_and_counted(server: Server) -> None:
    with Wire(server.port) as wire:
        own = wire.socket.getsockname()[1]
        wire.send(handshake(Sec_WebSocket_Key="s3cret" * 1000))
        got = answered(wire)
    assert got.status == 400
    [line] = lines(server)
    begin = f"ndb_server.transport: handshake refused, from 127.0.0.1 port {own}: "
    assert line.startswith(f"{begin}Sec-WebSocket-Key is missing or wrong (RFC 6455")
    # It may have been a secret.
    assert "s3cret" not in server.stderr + got.body
    assert counted(server.port) == {"invalid": 1}


def test_a_flood_of_connections_is_cut_logged_and_counted_and_operators_are_told(
    start_server: StartServer,
) -> None:
    server = start_server("--max-connections", "2", "--ops-port", "0")
    crowd = [Wire(server.port) for _ in range(300)]
    cut = "INFO ndb_server.transport: connection aborted, from 127.0.0.1 port [0-9]+: "
    # Two may stay, some more would be told, and the rest are cut.
    until(lambda: counted(ops_port(server.stderr)) == {"flood": 300 - 259})
    assert len(re.findall(f"{cut}too many connections", server.stderr)) == 300 - 259
    for wire in crowd:
        wire.reset()


def test_a_handshake_that_tls_refuses_is_logged_and_counted(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority()
    trusted = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(trusted)
    for loop in ("uvloop", "asyncio"):
        server = start_server(
            *authority.files(tmp_path, "localhost"),
            *("--tls-client-ca", str(trusted), "--ops-port", "0", "--loop", loop),
        )
        with pytest.raises(ENDED), encrypted(server.port, authority.client()):
            pytest.fail("it came in")
        with Wire(server.port) as plain:
            plain.send(handshake())
            with pytest.raises((*ENDED, ssl.SSLError, UnicodeDecodeError)):
                plain.head()
        until(lambda server=server: counted(ops_port(server.stderr)) == {"tls": 2})  # type: ignore[misc]
        assert lines(server) == [
            "ndb_server.server: TLS handshake refused: PEER_DID_NOT_RETURN_A_CERTIFICATE",
            "ndb_server.server: TLS handshake refused: HTTP_REQUEST",
        ]


def test_nobody_who_came_in_is_counted_as_refused(
    start_server: StartServer, auth_file: Path, secrets: dict[str, str]
) -> None:
    server = start_server("--auth-file", str(auth_file))
    with admitted(server.port, secrets["admin"]) as wire:
        assert wire.request("SH_INFO_ALL")["st"] == 1
        status, _, _ = get(server.port, "/healthz")
        assert status == 200
        assert counted(server.port, Authorization=f"Bearer {secrets['admin']}") == {}
    assert lines(server) == []
