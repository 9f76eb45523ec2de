"""Programs written for the Python API of NemesisDB 0.7 run unchanged."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ndb.client import NdbClient, NdbException, ResponseError, Session
from ndb_protocol import Status

from tests.conftest import Server, StartServer


@pytest.fixture
async def client(start_server: StartServer, tmp_path: Path) -> AsyncIterator[NdbClient]:
    client = NdbClient()
    assert await client.open(start_server("--data-dir", str(tmp_path)).url)
    yield client
    await client.close()


async def test_a_program_that_keeps_sessions(client: NdbClient) -> None:
    session = await client.sh_create()
    assert isinstance(session, Session)
    assert session.tknValid
    other = await client.sh_create(
        durationSeconds=60, deleteSessionOnExpire=True, extendOnSetAdd=True, extendOnGet=True
    )
    await client.sh_set(session.tkn, {"fname": "James", "sname": "smith"})
    await client.sh_add(session.tkn, {"fname": "Jim", "roles": ["new"]})
    assert await client.sh_get(session.tkn, keys=("fname", "sname")) == {
        "fname": "James",
        "sname": "smith",
    }
    assert await client.sh_get(session.tkn, ("roles",)) == {"roles": ["new"]}
    assert await client.sh_get(session.tkn, key="fname") == "James"
    assert await client.sh_get(session.tkn, key="none") is None
    assert await client.sh_get(session.tkn) == {}
    assert await client.sh_contains(session.tkn, ("none", "sname")) == ["sname"]
    assert await client.sh_keys(session.tkn) == ["fname", "sname", "roles"]
    assert await client.sh_count(session.tkn) == 3
    await client.sh_rmv(session.tkn, ("roles",))
    assert await client.sh_clear_set(session.tkn, {"a": 1}) == 2
    assert await client.sh_clear(session.tkn) == 1
    info = await client.sh_info(other.tkn)
    assert info["expiry"]["deleteSession"] is True
    assert "st" not in info
    assert await client.sh_info_all() == {"totalSessions": 2, "totalKeys": 0}
    assert await client.sh_session_exists([session.tkn, 1]) == [session.tkn]
    await client.sh_end(session.tkn)
    with pytest.raises(ResponseError) as refusal:
        await client.sh_get(session.tkn, key="fname")
    assert refusal.value.rsp["st"] == 100
    assert isinstance(refusal.value, NdbException)
    assert await client.sh_end_all() == 1


async def test_a_program_that_keeps_independent_keys(client: NdbClient) -> None:
    await client.kv_set({"server_ip": "127.0.0.1", "users": {"admins": ["u1"], "banned": []}})
    await client.kv_add({"server_ip": "ignored", "port": 1987})
    assert await client.kv_get(key="port") == 1987
    assert await client.kv_get(key="none") is None
    assert await client.kv_get(keys=("port", "none")) == {"port": 1987}
    assert await client.kv_get(("port",)) == {"port": 1987}
    assert await client.kv_contains(("port",)) == ["port"]
    assert await client.kv_keys() == ["server_ip", "users", "port"]
    assert await client.kv_count() == 3
    await client.kv_rmv(("port",))
    assert await client.kv_clear_set({"a": 1}) == 2
    assert await client.kv_clear() == 1
    with pytest.raises(ValueError, match="keys is empty"):
        await client.kv_rmv(())
    with pytest.raises(ValueError, match="both given"):
        await client.kv_get(keys=("a",), key="b")


async def test_a_program_that_saves_and_loads(client: NdbClient) -> None:
    await client.kv_set({"a": 1, "b": 2})
    await client.kv_save("kept")
    await client.kv_clear()
    assert await client.kv_load("kept") == 2
    session = await client.sh_create()
    await client.sh_set(session.tkn, {"a": 1})
    await client.sh_save("one", [session.tkn])
    await client.sh_save("all", tkns=[])
    await client.sh_end_all()
    loaded = await client.sh_load("all")
    assert (loaded["sessions"], loaded["keys"]) == (1, 1)
    for attempt in (client.kv_save(""), client.kv_load(""), client.sh_save("")):
        with pytest.raises(ValueError, match="name is empty"):
            await attempt


async def test_what_nemesisdb_has_no_method_for(client: NdbClient) -> None:
    session = await client.sh_create_session(30, deleteSession=True)
    assert (await client.sh_info(session))["expiry"]["deleteSession"] is True
    await client.sh_set(session, {"a": {"n": [1]}})
    await client.kv_set({"a": {"n": [1]}})
    assert await client.sh_update(session, "a", "$.n[0]", 2) == 1
    assert await client.kv_update("a", "$.n[0]", 3) == 1
    await client.sh_arr_append(session, "a", [3], "n")
    await client.kv_arr_append("a", [4], name="n")
    assert await client.sh_find(session, "$.n", "kv") == {"a": {"n": [2, 3]}}
    assert await client.kv_find("$.n", "kv") == {"a": {"n": [3, 4]}}
    assert (await client.sv_info())["persistEnabled"] is True


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
