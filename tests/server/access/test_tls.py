"""What a server tells of its certificates while it runs."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from ndb_server.access.tls import Certificates
from ndb_server.server import server as server_module
from ndb_server.server.server import Options, Server

from tests.support.event_loop_turns import turns
from tests.support.waiting import BOUND


def issued(folder: Path, end: timedelta) -> Certificates:
    certificate = trustme.CA().issue_cert(
        "localhost",
        not_before=datetime.now(UTC) - timedelta(days=1),
        not_after=datetime.now(UTC) + end,
    )
    chain, key = folder / "chain.pem", folder / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    return Certificates(chain, key)


async def test_a_server_that_runs_for_long_tells_again_that_its_certificate_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_A_DAY", 0.001)
    server = Server(Options(port=0, certificates=issued(tmp_path, timedelta(days=3))))
    await server.start()
    async with asyncio.timeout(BOUND):
        while caplog.text.count(" expires on ") < 3:
            await turns(1)
    assert await server.stop()


def test_a_file_that_can_not_be_read_is_told_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = issued(tmp_path, timedelta(days=90))
    for broken in (tmp_path / "nowhere.pem", tmp_path / "broken.pem"):
        (tmp_path / "broken.pem").write_text(
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
        )
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            [one] = Certificates(certificates.chain, certificates.key, broken).all()
        assert one.kind == "server"
        assert f"cannot read when the certificates in {broken} expire: " in caplog.text
