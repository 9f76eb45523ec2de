"""What goes wrong in the client carries no secrets, for crash reporters record local variables."""

import math
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import ndb
import ndb_protocol
import pytest
from ndb import (
    ConnectError,
    InvalidState,
    KvClient,
    NdbException,
    Session,
    SessionClient,
    SessionNotFound,
)
from websockets.asyncio.server import ServerConnection

from tests.support.misbehaving_servers import peer, reply
from tests.support.server_process import StartServer

TKN = 0x1234_5678_90AB_CDEF
SESSION = Session(TKN)
VALUE = "value-of-a-user"
SECRET = "secret-of-a-client"

OURS = {Path(str(package.__file__)).parent for package in (ndb, ndb_protocol)}
CALLED = {"sessionclient.py", "baseclient.py", "commands.py"}
"""Their frames hold the arguments as the caller gave them, and so does the caller's own."""

BAD_CALLS: dict[str, Callable[[SessionClient], Coroutine[Any, Any, Any]]] = {
    "set a value that JSON has not": lambda c: c.set({"v": VALUE, "k": math.nan}, SESSION),
    "set a key that is no string": lambda c: c.set({1: VALUE}, SESSION),  # type: ignore[dict-item]
    "set no dict": lambda c: c.set([VALUE], SESSION),  # type: ignore[arg-type]
    "add": lambda c: c.add({"v": VALUE, "k": math.inf}, SESSION),
    "clear_set": lambda c: c.clear_set({"v": VALUE, "k": 2**64}, SESSION),
    "get": lambda c: c.get([1], SESSION),  # type: ignore[list-item]
    "get no list": lambda c: c.get("k", SESSION),
    "contains": lambda c: c.contains([1], SESSION),  # type: ignore[list-item]
    "rmv": lambda c: c.rmv([1], SESSION),  # type: ignore[list-item]
    "find in no list": lambda c: c.find("$", "keys", SESSION, "k"),
    "find in no names": lambda c: c.find("$", "keys", SESSION, [1]),  # type: ignore[list-item]
    "find a path that is no string": lambda c: c.find(math.nan, "keys", SESSION),  # type: ignore[arg-type]
    "update": lambda c: c.update("k", "$", [VALUE, math.nan], SESSION),
    "append no list": lambda c: c.arr_append("k", VALUE, SESSION),
    "append": lambda c: c.arr_append("k", [VALUE, math.nan], SESSION),
    "save under no name": lambda c: c.save("", [SESSION]),
    "save under what is no name": lambda c: c.save(math.nan, [SESSION]),  # type: ignore[arg-type]
    "save what is no session": lambda c: c.save("s", [SESSION, None]),  # type: ignore[list-item]
    "exists": lambda c: c.session_exists([SESSION, None]),  # type: ignore[list-item]
}

REFUSED_CALLS: dict[str, Callable[[SessionClient], Coroutine[Any, Any, Any]]] = {
    "set": lambda c: c.set({"v": VALUE}, SESSION),
    "get": lambda c: c.get(["v"], SESSION),
    "count": lambda c: c.count(SESSION),
    "find": lambda c: c.find("$", "kv", SESSION),
    "session_info": lambda c: c.session_info(SESSION),
    "end_session": lambda c: c.end_session(SESSION),
}

BAD_REPLIES = {
    "a value that Python can't hold": reply("SH_GET", keys={"k": VALUE}).replace(
        f'"{VALUE}"', "1" * 5000
    ),
    "no JSON": f'{{"SH_GET_RSP": {VALUE}',
    "another command's": reply("SH_NEW", tkn=TKN, value=VALUE),
    "another session's": reply("SH_GET", tkn=7, keys={"k": VALUE}),
    "another key's": reply("SH_GET", keys={"other": VALUE, "tkn": TKN}),
    "a member of another type": reply("SH_GET", keys=[VALUE]),
}


def shown(error: BaseException) -> dict[str, str]:
    """Return what a crash reporter shows of the client's own frames."""
    places: dict[str, str] = {}
    chain: BaseException | None = error
    while chain is not None:
        for frame, line in traceback.walk_tb(chain.__traceback__):
            file = Path(frame.f_code.co_filename)
            if any(file.is_relative_to(folder) for folder in OURS):
                for name, value in frame.f_locals.items():
                    places[f"{file.name}:{line} {name}"] = repr(value)
        # As `traceback` itself goes on.
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return places


def places_with(error: BaseException, secret: object) -> list[str]:
    return [place for place, text in shown(error).items() if str(secret) in text]


async def test_a_call_that_can_not_be_sent_shows_no_token_and_repeats_no_value(
    start_server: StartServer,
) -> None:
    async with SessionClient(start_server().url) as client:
        for call in BAD_CALLS.values():
            with pytest.raises((ValueError, TypeError)) as refusal:
                await call(client)
            assert shown(refusal.value)
            assert places_with(refusal.value, TKN) == []
            files = {place.partition(":")[0] for place in places_with(refusal.value, VALUE)}
            assert files <= CALLED


async def test_a_call_that_fails_shows_no_token(start_server: StartServer) -> None:
    client = SessionClient(start_server().url)
    await client.open()
    errors: list[NdbException] = []
    for call in REFUSED_CALLS.values():
        with pytest.raises(SessionNotFound) as refused:
            await call(client)
        errors.append(refused.value)
    await client.close()
    for call in REFUSED_CALLS.values():
        with pytest.raises(InvalidState) as closed:
            await call(client)
        errors.append(closed.value)
    assert all(shown(error) for error in errors)
    assert [place for error in errors for place in places_with(error, TKN)] == []


@pytest.mark.parametrize("message", BAD_REPLIES.values(), ids=BAD_REPLIES)
async def test_a_reply_that_can_not_be_taken_is_not_shown(message: str) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(message)
        await connection.wait_closed()

    async with peer(handler) as url, SessionClient(url) as client:
        with pytest.raises(NdbException) as failure:
            await client.get(["k"], SESSION)
        assert shown(failure.value)
        assert places_with(failure.value, VALUE) == []
        assert places_with(failure.value, TKN) == []
        assert places_with(failure.value, "1" * 5000) == []


@pytest.mark.parametrize(
    "client",
    [
        KvClient(f"ws://name:{SECRET}@127.0.0.1:1/"),
        KvClient("ws://127.0.0.1:1/", credentials=("name", SECRET)),
        KvClient(f"ws+unix://name:{SECRET}@/nowhere"),
    ],
    ids=["in the URI", "as an argument", "in the URI of a socket"],
)
async def test_a_server_that_is_not_reached_does_not_show_the_credentials(client: KvClient) -> None:
    with pytest.raises(ConnectError) as failure:
        await client.open()
    assert shown(failure.value)
    assert places_with(failure.value, SECRET) == []
    assert SECRET not in str(failure.value)


WRONG_SERVERS: dict[str, KvClient] = {
    uri.replace(SECRET, "SECRET"): KvClient(uri)
    for uri in (
        f"ws://name:{SECRET}/x@127.0.0.1:1/",
        f"http://name:{SECRET}@127.0.0.1:1/",
        f"ws://name:{SECRET}@127.0.0.1:99999/",
        f"ws://name:{SECRET}@127.0.0.1:port/",
        f"ws://name:{SECRET} @127.0.0.1:1/",
        f"ws+unix://name:{SECRET}@host/path",
    )
} | {
    "no name": KvClient("ws://127.0.0.1:1/", credentials=("", SECRET)),
    "no bearer token": KvClient("ws://127.0.0.1:1/", credentials=f"{SECRET} {SECRET}"),
    "no pair": KvClient("ws://127.0.0.1:1/", credentials=[SECRET]),  # type: ignore[arg-type]
    "no text": KvClient("ws://127.0.0.1:1/", credentials=("name", f"{SECRET}\ud800")),
    "both": KvClient(f"ws://name:{SECRET}@127.0.0.1:1/", credentials=("name", SECRET)),
}


@pytest.mark.parametrize("client", WRONG_SERVERS.values(), ids=WRONG_SERVERS)
async def test_what_is_no_server_does_not_show_the_credentials(client: KvClient) -> None:
    with pytest.raises((ValueError, TypeError)) as refusal:
        await client.open()
    assert shown(refusal.value)
    assert places_with(refusal.value, SECRET) == []
    assert SECRET not in repr(refusal.value)
