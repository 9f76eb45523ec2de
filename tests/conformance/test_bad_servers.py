"""What is hardly a server of NDB fails with a report, and never makes the kit hang or break."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
from ndb_protocol.conformance import servers
from ndb_protocol.conformance.report import Outcome
from ndb_protocol.conformance.scenarios import Scenario, Step, load_scenarios, matches
from ndb_protocol.conformance.servers import check_server
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.support.waiting import BOUND

COUNT = [scenario for scenario in load_scenarios() if scenario.file == "KV_COUNT"]


@asynccontextmanager
async def serving(handler: Callable[[ServerConnection], Any], **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


async def why(url: str, scenario: Scenario) -> str:
    [result] = await check_server(url, [scenario], timeout=BOUND)
    assert result.outcome is Outcome.FAILED
    return result.detail


async def silent(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with serving(silent) as url:
        results = await check_server(url, COUNT, timeout=0.05)
    assert [result.outcome for result in results[:6]] == [Outcome.FAILED] * 5 + [Outcome.SKIPPED]
    assert results[0].detail.startswith("before the first step: nothing within 0.05 s")
    assert {result.detail for result in results[5:]} == {"the server no longer answers"}


async def binary(connection: ServerConnection) -> None:
    async for _ in connection:
        await connection.send(b'{"SH_END_ALL_RSP":{"st":1,"cnt":0}}')


async def closing(connection: ServerConnection) -> None:
    await connection.close(1008, "go away")


async def dropping(connection: ServerConnection) -> None:
    connection.transport.abort()


async def mangled(connection: ServerConnection) -> None:
    connection.transport.write(Frame(Opcode.TEXT, b"\xff").serialize(mask=False))
    await connection.wait_closed()


async def masked(connection: ServerConnection) -> None:
    connection.transport.write(Frame(Opcode.TEXT, b"{}").serialize(mask=True))
    await connection.wait_closed()


def stretched(frame: str) -> Callable[[ServerConnection], Any]:
    """Return what sends a reply, and then a frame of these bytes."""

    async def send(connection: ServerConnection) -> None:
        reply = Frame(Opcode.TEXT, b'{"SH_END_ALL_RSP":{"st":1,"cnt":0}}').serialize(mask=False)
        connection.transport.write(reply + bytes.fromhex(frame))
        await connection.wait_closed()

    return send


async def garbled(connection: ServerConnection) -> None:
    async for _ in connection:
        await connection.send("[]")


async def agreeable(connection: ServerConnection) -> None:
    async for message in connection:
        name = str(message).split('"')[1]
        await connection.send(f'{{"{name}_RSP":{{"st":1,"cnt":0}}}}')


async def talkative(connection: ServerConnection) -> None:
    async for message in connection:
        name = str(message).split('"')[1]
        await connection.send(f'{{"{name}_RSP":{{"st":1,"cnt":0}}}}')
        if name == "KV_CLEAR":
            await connection.send('{"EVENT":{"st":1}}')


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (binary, "a binary message came"),
        (closing, "the other end closed the connection: 1008 (policy violation) go away"),
        (dropping, "the other end ended the connection without a close frame"),
        (mangled, "a message is not UTF-8"),
        (masked, "the other end broke RFC 6455: incorrect masking"),
        (stretched("817e00027b7d"), "the length 2 takes 16 bits: not in its shortest form"),
        (stretched("817f000000000000ffff"), "the length 65535 takes 64 bits: not in its shortest"),
        (stretched("897e000131"), "the length 1 takes 16 bits: not in its shortest form"),
        (stretched("817f80000000000000027b7d"), "810 has its most significant bit set"),
        (stretched("817fffffffffffffffff"), "615 has its most significant bit set"),
        (garbled, "no reply: "),
        (talkative, "an unexpected message"),
    ],
)
async def test_a_server_that_misbehaves_is_told_what_it_did(
    handler: Callable[[ServerConnection], Any], reason: str
) -> None:
    async with serving(handler) as url:
        found = await why(url, Scenario(name="x", steps=()))
    assert reason in found


async def test_what_is_no_websocket_server_is_told_from_one() -> None:
    def refuse(connection: ServerConnection, _: Any) -> Any:
        return connection.respond(HTTPStatus.FORBIDDEN, "no\n")

    async with serving(silent, process_request=refuse) as url:
        found = await why(url, COUNT[0])
    assert "the server refused the opening handshake with HTTP status 403" in found

    async def blunder(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(blunder, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert "the opening handshake failed: " in await why(url, COUNT[0])


async def test_a_server_that_lets_everybody_in_is_found_out() -> None:
    """One that asks for no credentials, and has no limit of connections."""
    [asks] = [one for one in load_scenarios() if one.shows_credentials]
    refused = Scenario(name="x", steps=(Step(expect_refused=503),))
    async with serving(agreeable) as url:
        assert "the server opened the connection" in await why(url, refused)
        with_credentials = url.replace("ws://", "ws://kit:secret@")
        assert "the server opened the connection" in await why(with_credentials, asks)


async def greedy(connection: ServerConnection) -> None:
    """Take in all that is asked, and answer nothing that is large."""
    with suppress(ConnectionClosed):
        async for message in connection:
            name = str(message).split('"')[1]
            count = ',"cnt":0' if name != "KV_SET" else ""
            if name != "KV_GET":
                await connection.send(f'{{"{name}_RSP":{{"st":1{count}}}}}')


@pytest.mark.parametrize("what", ["The server stops reading*", "A client that does not read for*"])
async def test_a_server_that_never_stops_reading_is_found_out(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "most_kept", lambda: 2**20)
    [one] = [one for one in load_scenarios() if matches(one.id, [f"transport/{what}"])]
    async with serving(greedy) as url:
        found = await why(url, msgspec.structs.replace(one, needs={}))
    assert "the server continued to read while nobody read its replies" in found


async def gossip(connection: ServerConnection) -> None:
    """Permit nothing, and tell everybody everything."""
    info = {
        "st": 1,
        "serverVersion": "",
        "persistEnabled": False,
        "protocol": 1,
        "limits": {},
        "features": [],
        "stats": {},
    }
    async for message in connection:
        [(name, params)] = json.loads(message).items()
        refusal = {"st": 12 if params == [] else 14, "m": "no"}
        await connection.send(json.dumps({f"{name}_RSP": info if name == "SV_INFO" else refusal}))


async def test_stats_that_are_told_to_anybody_are_found_out() -> None:
    [limited] = [one for one in load_scenarios() if one.limited]
    async with serving(gossip) as url:
        assert "'stats' is not for this client" in await why(url, limited)


async def hasty(connection: ServerConnection) -> None:
    """Tell of five seconds that are not waited for."""
    limits = {"idleTimeout": 5, "handshakeTimeout": 5}
    async for message in connection:
        [name] = json.loads(message)
        reply = {"st": 1, "cnt": 0} if name != "SV_INFO" else {"st": 1, "limits": limits}
        await connection.send(json.dumps({f"{name}_RSP": reply}))
        if name == "KV_COUNT":
            await connection.close(1001, "no request")
            return


@pytest.mark.parametrize("limit", ["idleTimeout", "handshakeTimeout"])
async def test_a_server_that_waits_less_than_it_says_is_found_out(limit: str) -> None:
    [one] = [one for one in load_scenarios() if limit in one.needs]
    async with serving(hasty, open_timeout=2) as url:
        found = await why(url, one)
    assert re.search(r"the server waited for \d\.\d\d of 5 s", found)


async def held_up(connection: ServerConnection) -> None:
    """Close in time; the reply in front of that arrives as late."""
    async for message in connection:
        [name] = json.loads(message)
        reply = {"st": 1, "cnt": 0} if name != "SV_INFO" else {"st": 1, "limits": IDLE}
        if name == "KV_COUNT":
            await asyncio.sleep(IDLE["idleTimeout"])
        await connection.send(json.dumps({f"{name}_RSP": reply}))
        if name == "KV_COUNT":
            await connection.close(1001, "no request")
            return


IDLE = {"idleTimeout": 0.3}


async def test_a_server_is_not_blamed_for_a_reply_that_was_on_its_way_for_long() -> None:
    [one] = [one for one in load_scenarios() if "idleTimeout" in one.needs]
    async with serving(held_up) as url:
        [result] = await check_server(url, [one], timeout=BOUND)
    assert result.outcome is Outcome.PASSED, result.detail


async def test_a_refusal_with_another_status_than_expected_is_told() -> None:
    opened = 0

    def refuse_some(connection: ServerConnection, _: Any) -> Any:
        nonlocal opened
        opened += 1
        if opened > 2:
            return connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "no\n")
        return None

    scenario = Scenario(name="x", steps=(Step(expect_refused=503),))
    async with serving(agreeable, process_request=refuse_some) as url:
        found = await why(url, scenario)
    assert "the server refused the opening handshake with HTTP status 429" in found


async def test_a_scenario_that_says_nothing_because_time_slipped_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_TOLERANCE", -1)
    attempts = 0

    async def wrong(connection: ServerConnection) -> None:
        nonlocal attempts
        async for message in connection:
            attempts += "SH_COUNT" in str(message)
            await connection.send('{"SH_COUNT_RSP":{"st":1,"cnt":0}}')

    step = Step(advance_ms=1, send='{"SH_COUNT":{}}', expect='{"SH_COUNT_RSP":{"st":1,"cnt":1}}')
    async with serving(wrong) as url:
        found = await why(url, Scenario(name="x", steps=(step,), concurrent=True))
    assert "this machine is too slow" in found
    assert attempts == servers._ATTEMPTS
