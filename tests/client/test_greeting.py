"""What a client asks a server first, and how it treats one that does not know the protocol."""

import asyncio
import math
from typing import Any

import pytest
from ndb import (
    ConnectError,
    ConnectionPolicy,
    KvClient,
    RequestTimeout,
    ResponseError,
    SessionClient,
    UnreadableReply,
)
from ndb.core import Capabilities, StrayReply
from ndb.errors import NdbException
from ndb.greeting import GREETING, read_greeting
from websockets.asyncio.server import ServerConnection

from tests.support.misbehaving_servers import NDB, NEMESISDB, RawPeer, peer, raw_peer, reply, text
from tests.support.waiting import BOUND

COUNT = reply("KV_COUNT", cnt=1)
QUICK = ConnectionPolicy(initial_backoff=0.01, max_backoff=0.01)
NO_LIMITS: list[Any] = [
    *({"messageSize": size} for size in (0, -1, "1", 1.5, None)),
    *({}, [], 5, None),
]
BACKPRESSURE = 128 * 1024
"""What NemesisDB 0.7 has unread before it drops replies (`maxBackpressure` in core/Server.h)."""


def test_the_greeting_is_sv_info() -> None:
    assert GREETING == b'{"SV_INFO":{}}'


@pytest.mark.parametrize(
    ("answer", "capabilities"),
    [
        (reply("SV_INFO", **NEMESISDB), Capabilities(pipelining=False)),
        (reply("SV_INFO", **NDB), Capabilities(pipelining=True)),
        (
            reply("SV_INFO", protocol=2, limits={"messageSize": 1000, "other": 1}),
            Capabilities(pipelining=True, message_size=1000),
        ),
        # 0 is no limit, and what can't be one is none.
        *(
            (reply("SV_INFO", protocol=1, limits=limits), Capabilities(pipelining=True))
            for limits in NO_LIMITS
        ),
        # A limit alone promises no reply.
        (reply("SV_INFO", limits={"messageSize": 9}), Capabilities(False, message_size=9)),
        # Who refuses to tell has promised nothing.
        ('{"SV_INFO_RSP":{"st":14,"m":"not permitted"}}', Capabilities(pipelining=False)),
        ('{"ERR":{"st":10,"m":"unknown"}}', Capabilities(pipelining=False)),
    ],
)
def test_what_is_not_promised_is_not_relied_on(answer: str, capabilities: Capabilities) -> None:
    assert read_greeting(answer) == capabilities


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("PING", UnreadableReply),
        ("{}", UnreadableReply),
        (COUNT, StrayReply),
        ('{"ERR":{"st":3,"m":"not JSON"}}', ResponseError),
    ],
)
def test_what_is_no_reply_to_the_greeting_is_an_error(
    answer: str, error: type[NdbException]
) -> None:
    with pytest.raises(error):
        read_greeting(answer)


async def test_open_says_that_the_server_does_not_speak_the_protocol() -> None:
    async def echo(server: RawPeer) -> None:
        await server.send(await server.handshake())
        await server.send(text((await server.event()).data.decode()))
        await server.reader.read()

    async with raw_peer(echo) as url, asyncio.timeout(BOUND):
        with pytest.raises(
            ConnectError, match="violated the protocol: the reply to SV_INFO can't be"
        ):
            await KvClient().open(url)


async def test_open_waits_for_the_greeting_no_longer_than_it_is_told() -> None:
    async def silent(server: RawPeer) -> None:
        await server.send(await server.handshake())
        await server.reader.read()

    async with raw_peer(silent) as url, asyncio.timeout(BOUND):
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s"):
            await KvClient().open(url, timeout=0.05)


async def nemesisdb(connection: ServerConnection) -> None:
    """Answer each GET with 7 KB, and drop replies as NemesisDB does: while much is unread."""
    async for message in connection:
        assert isinstance(message, str)
        key = message[message.index("[") + 2 : message.index("]") - 1]
        if connection.transport.get_write_buffer_size() <= BACKPRESSURE:
            value = f"{key}-" + "x" * 7000
            # Not `send`, which waits.
            connection.protocol.send_text(reply("KV_GET", keys={key: value}).encode())
            connection.send_data()


async def test_no_reply_of_nemesisdb_is_lost_or_taken_for_anothers() -> None:
    async with (
        peer(nemesisdb, info=NEMESISDB) as url,
        asyncio.timeout(BOUND),
        KvClient(url, timeout=math.inf) as client,
    ):
        names = [f"k{number}" for number in range(3000)]
        values = await asyncio.gather(*(client.get([name]) for name in names))
        assert [value.keys() for value in values] == [{name} for name in names]
        for value, name in zip(values, names, strict=True):
            assert value[name].startswith(f"{name}-")


@pytest.mark.parametrize("how", ["the client's", "the request's", "cancelled"])
async def test_a_reply_that_never_comes_costs_the_connection_and_not_what_waits_behind_it(
    how: str,
) -> None:
    connections = 0

    async def handler(server: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await server.send(await server.handshake())
        await server.greet(NEMESISDB)
        if connections == 1:
            await server.request()
            await server.reader.read()
        else:
            assert await server.request() == ("KV_COUNT", {})
            await server.send(text(COUNT))
            await server.event()
            await server.send(b"".join(server.websocket.data_to_send()))

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient(policy=QUICK, timeout=0.2 if how == "the client's" else None)
        await client.open(url, timeout=BOUND)
        if how == "cancelled":
            asking = asyncio.ensure_future(client.keys())
            await asyncio.sleep(0)
            behind = asyncio.ensure_future(client.keys(timeout=0.1))
            asking.cancel()
        else:
            behind = asyncio.ensure_future(
                client.keys(timeout=0.1 if how == "the request's" else None)
            )
        with pytest.raises(RequestTimeout):
            await behind
        assert await client.count(timeout=BOUND) == 1
        assert connections == 2
        await client.close()


async def test_a_value_too_large_for_the_server_is_refused_before_anything_is_sent() -> None:
    async def handler(server: RawPeer) -> None:
        await server.send(await server.handshake())
        await server.greet({**NDB, "limits": {"messageSize": 1000}})
        received: list[Any] = [await server.request(), await server.request()]
        assert [name for name, _ in received] == ["KV_SET", "KV_COUNT"]
        await server.send(text(reply("KV_SET")) + text(COUNT))
        await server.event()
        await server.send(b"".join(server.websocket.data_to_send()))

    rest = len('{"KV_SET":{"keys":{"k":""}}}')
    async with raw_peer(handler) as url, asyncio.timeout(BOUND), KvClient(url) as client:
        too_large, *others = await asyncio.gather(
            client.set({"k": "x" * (1001 - rest)}),
            client.set({"k": "x" * (1000 - rest)}),
            client.count(),
            return_exceptions=True,
        )
        assert others == [None, 1]
        assert isinstance(too_large, ValueError)
        assert "1,001 bytes, and the server takes at most 1,000" in str(too_large)


async def test_a_reply_that_is_sent_twice_is_not_the_reply_to_what_is_asked_next() -> None:
    token = 0

    async def twice(server: RawPeer) -> None:
        await server.send(await server.handshake())
        await server.greet(NEMESISDB)
        await server.request()
        nonlocal token
        token += 1
        await server.send(text(reply("SH_NEW", tkn=token)) * 2)
        await server.reader.read()

    async with raw_peer(twice) as url, asyncio.timeout(BOUND):
        async with SessionClient(url, policy=QUICK) as client:
            sessions = await asyncio.gather(*(client.create_session() for _ in range(3)))
        assert [session.tkn for session in sessions] == [1, 2, 3]


async def test_a_refusal_under_another_name_leaves_the_connection_to_nemesisdb_as_it_is() -> None:
    async def handler(server: RawPeer) -> None:
        await server.send(await server.handshake())
        await server.greet(NEMESISDB)
        await server.request()
        await server.send(text('{"KV_SET_RSP":{"st":10,"m":""}}'))
        await server.request()
        await server.send(text(COUNT))
        await server.event()
        await server.send(b"".join(server.websocket.data_to_send()))

    async with raw_peer(handler) as url, asyncio.timeout(BOUND), KvClient(url) as client:
        with pytest.raises(ResponseError):
            await client.update("key", "$", 1)
        assert await client.count() == 1
