"""Certificates that have ended, that end soon, or that have not begun."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.http_client import get, labelled, ops_port
from tests.support.server_process import Server, StartServer
from tests.support.waiting import until

NOW = datetime.now(UTC).replace(microsecond=0)
METRIC = "ndb_certificate_expiration_timestamp_seconds"


def issued(folder: Path, begin: timedelta, end: timedelta) -> list[str]:
    """Write a certificate that holds from `begin` to `end` from now; return the options for it."""
    authority = Authority()
    certificate = authority.issue_cert("localhost", not_before=NOW + begin, not_after=NOW + end)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    return ["--tls-cert", str(chain), "--tls-key", str(key)]


def warnings(server: Server) -> list[str]:
    return [line for line in server.stderr.splitlines() if " WARNING ndb_server.tls: " in line]


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (-timedelta(days=2), -timedelta(hours=1), "expired on {end}"),
        (-timedelta(days=2), timedelta(days=13), "expires on {end}"),
        (timedelta(days=1), timedelta(days=90), "is not valid before {begin}"),
    ],
)
def test_a_certificate_that_does_not_hold_is_told_at_the_start(
    start_server: StartServer, tmp_path: Path, begin: timedelta, end: timedelta, said: str
) -> None:
    server = start_server(*issued(tmp_path, begin, end))
    [line] = warnings(server)
    dates = {"begin": f"{NOW + begin:%Y-%m-%d %H:%M} UTC", "end": f"{NOW + end:%Y-%m-%d %H:%M} UTC"}
    assert f"certificate 1 in {tmp_path / 'chain.pem'} {said.format(**dates)}; " in line


def test_one_that_holds_for_long_is_nothing_to_tell_and_has_a_metric(
    start_server: StartServer, tmp_path: Path
) -> None:
    end = timedelta(days=15)
    server = start_server(*issued(tmp_path, -timedelta(days=1), end), "--ops-port", "0")
    assert not warnings(server)
    assert labelled(METRIC, ops_port(server.stderr)) == {
        "server": (NOW + end).timestamp(),
    }


def test_certificates_are_looked_at_again_when_they_are_read_again(
    start_server: StartServer, tmp_path: Path
) -> None:
    end = timedelta(days=90)
    server = start_server(*issued(tmp_path, -timedelta(days=1), end), "--ops-port", "0")
    port = ops_port(server.stderr)
    before = labelled(METRIC, port)
    # What can't be used is not served, and not what the metric tells of.
    (tmp_path / "chain.pem").write_text("no certificate")
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: "could not be read again" in server.stderr)
    assert labelled(METRIC, port) == before
    issued(tmp_path, -timedelta(days=1), timedelta(days=3))
    os.kill(server.pid, signal.SIGHUP)
    [line] = until(lambda: warnings(server))
    assert " expires on " in line
    assert labelled(METRIC, port) == {"server": (NOW + timedelta(days=3)).timestamp()}


def test_credentials_and_certificates_are_read_again_whatever_is_wrong_with_the_others(
    start_server: StartServer, tmp_path: Path
) -> None:
    auth_file = tmp_path / "credentials"
    auth_file.touch()
    options = issued(tmp_path, -timedelta(days=1), timedelta(days=90))
    server = start_server(*options, "--auth-file", str(auth_file))
    auth_file.write_text("no entry\n")
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: "certificates were read again" in server.stderr)
    assert "ERROR ndb_server.server: credentials could not be read again: " in server.stderr
    auth_file.write_text("")
    (tmp_path / "chain.pem").write_text("no certificate")
    os.kill(server.pid, signal.SIGHUP)
    until(
        lambda: "ERROR ndb_server.server: certificates could not be read again: " in server.stderr
    )
    assert "credentials were read again" in server.stderr


def test_the_certificates_of_authorities_are_looked_at_too(
    start_server: StartServer, tmp_path: Path
) -> None:
    options = issued(tmp_path, -timedelta(days=1), timedelta(days=90))
    ending = Authority().issue_cert(
        "ca.internal", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1)
    )
    [pem] = ending.cert_chain_pems
    # The chain's second certificate, and an authority of clients.
    with (tmp_path / "chain.pem").open("ab") as chain:
        chain.write(pem.bytes())
    trusted = tmp_path / "clients.pem"
    Authority().cert_pem.write_to_path(trusted)
    pem.write_to_path(trusted, append=True)
    server = start_server(*options, "--tls-client-ca", str(trusted), "--ops-port", "0")
    said = warnings(server)
    assert len(said) == 2
    assert f"certificate 2 in {tmp_path / 'chain.pem'} expired on" in said[0]
    assert f"certificate 2 in {trusted} expired on" in said[1]
    port = ops_port(server.stderr)
    assert get(port, "/metrics")[0] == 200
    ended = (NOW - timedelta(days=1)).timestamp()
    assert labelled(METRIC, port) == {
        "server": (NOW + timedelta(days=90)).timestamp(),
        "chain": ended,
        "client_ca": ended,
    }
