"""Every method of the clients, against a real server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ndb import KvClient, ResponseError, Session, SessionClient, Status, UnreadableReply
from websockets.asyncio.client import connect

from tests.support.server_process import Server, StartServer

NO_SESSION = 1


@pytest.fixture
async def sessions(server: Server) -> AsyncIterator[SessionClient]:
    async with SessionClient(server.url) as client:
        yield client


@pytest.fixture
async def kv(server: Server) -> AsyncIterator[KvClient]:
    async with KvClient(server.url) as client:
        yield client


# Sessions.


async def test_a_session_is_created_with_a_secret_token(sessions: SessionClient) -> None:
    session = await sessions.create_session()
    assert session.isValid
    assert session.status is Status.OK
    assert 0 < session.tkn < 2**64
    assert await sessions.sh_create_session() != session


async def test_a_session_is_created_with_its_expiry(sessions: SessionClient) -> None:
    session = await sessions.create_session(60, True, extendOnGet=True)
    assert await sessions.session_info(session) == {
        "tkn": session.tkn,
        "keyCnt": 0,
        "shared": False,
        "expires": True,
        "expiry": {
            "duration": 60,
            "deleteSession": True,
            "extendOnSetAdd": False,
            "extendOnGet": True,
            "remaining": 60,
        },
    }


@pytest.mark.parametrize(
    ("duration", "status"),
    [(2**32, Status.VALUE_SIZE), (1.5, Status.VALUE_TYPE_INVALID)],
)
async def test_a_refused_session_is_returned_as_invalid(
    sessions: SessionClient, duration: Any, status: Status
) -> None:
    session = await sessions.create_session(duration)
    assert not session.isValid
    assert session.status is status
    assert "duration" in session.message
    with pytest.raises(ResponseError) as refusal:
        await sessions.count(session)
    assert refusal.value.status is Status.SESSION_NOT_EXIST


@pytest.mark.parametrize("by_token", [True, False])
async def test_keys_of_a_session(sessions: SessionClient, by_token: bool) -> None:
    session = await sessions.create_session()
    tkn = session.tkn if by_token else session
    values = {"name": "Ada", "cart": [1, {"x": None}], "": 2**64 - 1, "ö": 1.5}
    await sessions.set(values, tkn)
    await sessions.add({"name": "ignored", "new": True}, tkn)
    assert await sessions.get(["ö", "none", "name", ""], tkn) == {
        "ö": 1.5,
        "name": "Ada",
        "": 2**64 - 1,
    }
    assert list(await sessions.get(("ö", "cart"), tkn)) == ["ö", "cart"]
    assert await sessions.keys(tkn) == ["name", "cart", "", "ö", "new"]
    assert await sessions.count(tkn) == 5
    assert await sessions.contains(["none", "new", "name"], tkn) == ["new", "name"]
    await sessions.rmv({"name", "none"}, tkn)
    assert await sessions.count(tkn) == 4
    assert await sessions.clear_set({"a": 1}, tkn) == 4
    assert await sessions.get(["a", "cart"], tkn) == {"a": 1}
    assert await sessions.clear(tkn) == 1
    assert await sessions.count(tkn) == 0


async def test_values_of_a_session_are_searched_and_changed(sessions: SessionClient) -> None:
    tkn = await sessions.create_session()
    await sessions.set({"a": {"n": [1, 2]}, "b": {"m": 3}, "c": [1]}, tkn)
    assert await sessions.find("$.n[*]", "keys", tkn) == ["a"]
    assert await sessions.find("$.*", "kv", tkn, keys=["b"]) == {"b": {"m": 3}}
    assert await sessions.find("$.n[0]", "paths", tkn) == ["$['n'][0]"]
    assert await sessions.update("a", "$.n[*]", {"new": None}, tkn) == 2
    await sessions.arr_append("a", [4], tkn, name="n")
    await sessions.arr_append("c", (2, "x"), tkn)
    assert await sessions.get(["a", "c"], tkn) == {
        "a": {"n": [{"new": None}, {"new": None}, 4]},
        "c": [1, 2, "x"],
    }


async def test_sessions_exist_until_they_end(sessions: SessionClient) -> None:
    first, second, third = [await sessions.create_session() for _ in range(3)]
    await sessions.set({"a": 1, "b": 2}, first)
    existing = await sessions.session_exists([third, NO_SESSION, "no token", first.tkn])
    assert existing == [third.tkn, first.tkn]
    assert await sessions.session_info_all() == {"totalSessions": 3, "totalKeys": 2}
    await sessions.end_session(first)
    assert await sessions.session_exists([first, second]) == [second.tkn]
    assert await sessions.end_all_sessions() == 2
    assert await sessions.session_info_all() == {"totalSessions": 0, "totalKeys": 0}


async def test_an_ended_session_refuses_every_command(sessions: SessionClient) -> None:
    tkn = await sessions.create_session()
    await sessions.end_session(tkn)
    for attempt in (
        sessions.set({}, tkn),
        sessions.add({}, tkn),
        sessions.get([], tkn),
        sessions.rmv(["a"], tkn),
        sessions.contains([], tkn),
        sessions.count(tkn),
        sessions.keys(tkn),
        sessions.clear(tkn),
        sessions.clear_set({}, tkn),
        sessions.find("$", "keys", tkn),
        sessions.update("a", "$", 1, tkn),
        sessions.arr_append("a", [], tkn),
        sessions.end_session(tkn),
        sessions.session_info(tkn),
    ):
        with pytest.raises(ResponseError) as refusal:
            await attempt
        assert refusal.value.status is Status.SESSION_NOT_EXIST
        assert refusal.value.rsp["m"] == refusal.value.message
        assert str(tkn.tkn) not in str(refusal.value)


async def test_sessions_are_saved_and_loaded(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--data-dir", str(tmp_path))
    async with SessionClient(server.url) as client:
        kept, left = [await client.create_session() for _ in range(2)]
        await client.set({"a": 1}, kept)
        one = await client.save("one", [kept])
        assert (one["name"], one["sessions"], one["keys"]) == ("one", 1, 1)
        assert (await client.save("all"))["sessions"] == 2
        with pytest.raises(ResponseError) as refusal:
            await client.save("none", [kept, "no token"])
        assert refusal.value.status is Status.VALUE_TYPE_INVALID
        await client.end_all_sessions()
        loaded = await client.load("one")
        assert (loaded["name"], loaded["sessions"], loaded["keys"]) == ("one", 1, 1)
        assert set(loaded) == {"name", "sessions", "keys"}
        assert await client.get(["a"], kept) == {"a": 1}
        assert await client.session_exists([left]) == []


async def test_keys_are_saved_and_loaded(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--data-dir", str(tmp_path))
    async with KvClient(server.url) as client:
        await client.set({"a": 1, "b": 2})
        assert (await client.save("some"))["keys"] == 2
        await client.set({"a": 0, "c": 3})
        loaded = await client.load("some")
        assert (loaded["name"], loaded["keys"]) == ("some", 2)
        assert await client.get(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}
        with pytest.raises(ResponseError) as refusal:
            await client.load("other")
        assert refusal.value.status is Status.LOAD_ERROR


async def test_saving_without_a_data_folder_is_refused(sessions: SessionClient) -> None:
    with pytest.raises(ResponseError) as refusal:
        await sessions.save("name")
    assert refusal.value.status is Status.COMMAND_DISABLED
    assert refusal.value.command == "SH_SAVE"


async def test_the_server_describes_itself(sessions: SessionClient, kv: KvClient) -> None:
    info = await sessions.server_info()
    assert info["persistEnabled"] is False
    assert info["serverVersion"]
    assert "st" not in info
    other = await kv.server_info()
    # Memory and time go on.
    assert other.pop("stats").keys() == info.pop("stats").keys()
    assert other == info


# Independent keys.


async def test_independent_keys(kv: KvClient) -> None:
    await kv.set({"a": 1, "b": [1]})
    await kv.add({"a": 2, "c": {"n": [1]}})
    assert await kv.get(["c", "a", "none"]) == {"c": {"n": [1]}, "a": 1}
    assert await kv.keys() == ["a", "b", "c"]
    assert await kv.count() == 3
    assert await kv.contains(["none", "c"]) == ["c"]
    assert await kv.find("$.n", "keys") == ["c"]
    assert await kv.find("$.n", "kv", ["a"]) == {}
    assert await kv.find("$[0]", "paths") == ["$[0]"]
    assert await kv.update("c", "$.n", "new") == 1
    await kv.arr_append("b", [2])
    await kv.set({"d": {"list": []}})
    await kv.arr_append("d", [1], "list")
    await kv.rmv(["a"])
    assert await kv.get(["a", "b", "c", "d"]) == {
        "b": [1, 2],
        "c": {"n": "new"},
        "d": {"list": [1]},
    }
    assert await kv.clear_set({"z": 1}) == 3
    assert await kv.clear() == 1


async def test_independent_keys_and_those_of_sessions_do_not_mix(
    kv: KvClient, sessions: SessionClient
) -> None:
    session = await sessions.create_session()
    await kv.set({"a": "kv"})
    await sessions.set({"a": "session"}, session)
    assert await kv.get(["a"]) == {"a": "kv"}
    assert await sessions.get(["a"], session) == {"a": "session"}


@pytest.mark.parametrize(
    ("attempt", "status"),
    [
        (lambda kv: kv.rmv([]), Status.VALUE_SIZE),
        (lambda kv: kv.find("", "keys"), Status.VALUE_SIZE),
        (lambda kv: kv.find("$[", "keys"), Status.PATH_INVALID),
        (lambda kv: kv.find("$", "all"), Status.COMMAND_SYNTAX),
        (lambda kv: kv.update("none", "$", 1), Status.KEY_NOT_EXIST),
        (lambda kv: kv.arr_append("text", [1]), Status.VALUE_TYPE_INVALID),
        (lambda kv: kv.arr_append("none", [1]), Status.KEY_NOT_EXIST),
        (lambda kv: kv.save("../x"), Status.VALUE_SIZE),
    ],
)
async def test_a_refused_command_raises(kv: KvClient, attempt: Any, status: Status) -> None:
    await kv.set({"text": "x"})
    with pytest.raises(ResponseError) as refusal:
        await attempt(kv)
    assert refusal.value.status is status
    assert refusal.value.message


async def test_what_is_not_carried_exactly_is_refused_before_it_is_sent(kv: KvClient) -> None:
    with pytest.raises(ValueError, match=r"^keys\['cart'\]\[3\]: NaN has no JSON form$"):
        await kv.set({"name": 1, "cart": [1, 2, 3, float("nan")]})
    with pytest.raises(ValueError, match=r"^value: an integer beyond 64 bits"):
        await kv.update("k", "$", 2**64)
    with pytest.raises(ValueError, match=r"^items\[0\]: infinity"):
        await kv.arr_append("k", [float("inf")])
    assert await kv.count() == 0


async def test_a_value_that_is_out_of_range_for_python_does_no_harm(
    kv: KvClient, server: Server
) -> None:
    async with connect(server.url) as other:
        await other.send('{"KV_SET":{"keys":{"big":1E400,"long":1%s}}}' % ("0" * 400))
        await other.recv()
    assert await kv.get(["long"]) == {"long": 10**400}
    with pytest.raises(UnreadableReply, match=r"keys\['big'\]: Number out of range"):
        await kv.get(["long", "big"])
    assert await kv.count() == 2


async def test_a_session_may_be_held_by_its_token_alone(sessions: SessionClient) -> None:
    created = await sessions.create_session()
    await sessions.set({"a": 1}, created)
    assert await sessions.get(["a"], Session(created.tkn)) == {"a": 1}
