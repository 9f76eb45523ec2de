"""Programs written for the Python API of NemesisDB 0.7 run unchanged."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ndb.client import NdbClient, ResponseError
from ndb_protocol import Status

from tests.compat import program
from tests.support.server_process import Server, StartServer


@pytest.fixture
async def client(start_server: StartServer, tmp_path: Path) -> AsyncIterator[NdbClient]:
    client = NdbClient()
    assert await client.open(start_server("--data-dir", str(tmp_path)).url)
    yield client
    await client.close()


async def test_a_program_that_keeps_sessions(client: NdbClient) -> None:
    await program.sessions(client)


async def test_a_program_that_keeps_independent_keys(client: NdbClient) -> None:
    await program.independent_keys(client)
    with pytest.raises(ValueError, match="keys is empty"):
        await client.kv_rmv(())
    with pytest.raises(ValueError, match="both given"):
        await client.kv_get(keys=("a",), key="b")


async def test_a_program_that_saves_and_loads(client: NdbClient) -> None:
    await program.saving_and_loading(client)
    for attempt in (client.kv_save(""), client.kv_load(""), client.sh_save("")):
        with pytest.raises(ValueError, match="name is empty"):
            await attempt


async def test_what_nemesisdb_has_no_method_for(client: NdbClient) -> None:
    await program.parts_of_values(client)


async def test_a_refused_session_is_returned_as_invalid(client: NdbClient) -> None:
    session = await client.sh_create(2**32)
    assert not session.tknValid
    assert session.status is Status.VALUE_SIZE
    with pytest.raises(ValueError, match="negative"):
        await client.sh_create(-1)
    with pytest.raises(ValueError, match="deleteSession without durationSeconds"):
        await client.sh_create(deleteSessionOnExpire=True)


@pytest.fixture
def ndb_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("ndb")
    before = logger.level, logger.handlers
    logger.handlers = []
    yield logger
    logger.level, logger.handlers = before
    logger.setLevel(logger.level)


async def test_debug_logs_commands_and_no_token(
    server: Server,
    ndb_logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    NdbClient(debug=True)
    async with NdbClient(True, uri=server.url, timeout=30) as client:
        session = await client.sh_create()
        await client.sh_set(session, {"secret": "value"})
        with pytest.raises(ResponseError):
            await client.sh_count(1)
    assert len(ndb_logger.handlers) == 1
    logged = capsys.readouterr().err
    assert logged.splitlines() == [
        # What every client asks first.
        "SV_INFO: status 1",
        "SH_NEW: status 1",
        "SH_SET: status 1",
        "SH_COUNT: status 100",
    ]
    for secret in (str(session.tkn), "secret", "value"):
        assert secret not in caplog.text
