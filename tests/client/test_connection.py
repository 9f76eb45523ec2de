"""The connection, with servers that are not what a client hopes for."""

import asyncio
import contextlib
import gc
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from ndb import (
    ConnectError,
    ConnectionLost,
    ConnectionPolicy,
    InvalidState,
    KvClient,
    NdbException,
    RequestTimeout,
    ResponseError,
    UnreadableReply,
    commands,
    connection,
)
from ndb.core import Pipeline, Request, StrayReply
from ndb.servers import parse_servers
from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Opcode

from tests.support.certificates import SELF_SIGNED
from tests.support.event_loop_turns import until
from tests.support.misbehaving_servers import HOST, NDB, RawPeer, frame, peer, raw_peer, reply, text
from tests.support.waiting import BOUND

T = TypeVar("T")

COUNT = reply("KV_COUNT", cnt=1)
ONE_CONNECTION = ConnectionPolicy(reconnect_timeout=0)


@asynccontextmanager
async def connected(handler: Callable[[RawPeer], Awaitable[None]]) -> AsyncIterator[KvClient]:
    """Run `handler` on the server's end of a connection, the handshake done, and its client."""

    async def accepted(server: RawPeer) -> None:
        await server.accept()
        await handler(server)

    async with (
        raw_peer(accepted) as url,
        asyncio.timeout(BOUND),
        KvClient(url, policy=ONE_CONNECTION) as client,
    ):
        yield client


def bound_buffers(sock: Any) -> None:
    """Have the system keep little of what is not read; it may be let keep as much as is sent."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 2**16)


@asynccontextmanager
async def connected_closely(
    handler: Callable[[RawPeer], Awaitable[None]],
) -> AsyncIterator[KvClient]:
    """Run `connected` where the system keeps little of what is on its way."""

    async def bounded(server: RawPeer) -> None:
        bound_buffers(server.writer.get_extra_info("socket"))
        await handler(server)

    async with connected(bounded) as client:
        bound_buffers(link_of(client)._transport.get_extra_info("socket"))
        yield client


@asynccontextmanager
async def in_time(client: KvClient) -> AsyncIterator[KvClient]:
    """Open a client that has little time for a request, and take more for that."""
    await client.open(timeout=BOUND)
    yield client
    await client.close()


async def read_to_end(server: RawPeer) -> None:
    """Read until the client has ended the connection, in order or not."""
    with contextlib.suppress(ConnectionResetError):
        while await server.reader.read(65536):
            pass


async def close_properly(server: RawPeer) -> None:
    while (await server.event()).opcode is not Opcode.CLOSE:
        pass
    await server.send(b"".join(server.websocket.data_to_send()))


# Opening.


async def test_open_says_that_the_connection_was_refused() -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectError, match=f"can't connect to {HOST}:{port}: .*refused|failed"):
            await KvClient().open(f"ws://{HOST}:{port}/")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".invalid"])
async def test_open_says_that_the_name_does_not_resolve(host: str) -> None:
    with pytest.raises(ConnectError, match=f"can't connect to {host}:1987: "):
        await KvClient().open(f"ws://{host}:1987/")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nno\nwhy",
            "answered the WebSocket handshake with HTTP 404 Not Found",
        ),
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 23\r\n\r\nuse --allow-host\r\n\x1b[0mx",
            r"\(HTTP 403 Forbidden\): use --allow-host \[0mx$",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n"
            b"Content-Length: 5\r\n\r\n<html",
            "with HTTP 502 Bad Gateway$",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "handshake failed: .*SSH-2.0-OpenSSH_9.6"),
        (b"x" * 10000, "handshake failed"),
        (b"", "it ended the connection without an answer; if it uses TLS on this port, use wss://"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it uses TLS on this port; use wss://"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "missing Connection header"),
    ],
)
async def test_open_says_what_the_server_answered(answer: bytes, said: str) -> None:
    async def handler(server: RawPeer) -> None:
        await server.handshake()
        await server.send(answer)

    async with raw_peer(handler) as url:
        with pytest.raises(ConnectError, match=said):
            await KvClient().open(url)


async def test_open_says_that_the_server_did_not_answer_in_time() -> None:
    async with raw_peer(read_to_end) as url:
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s"):
            await KvClient().open(url, timeout=0.05)


async def test_a_cancelled_open_leaves_no_connection() -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def handler(server: RawPeer) -> None:
        await server.handshake()
        arrived.set()
        await read_to_end(server)
        ended.set()

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient()
        opening = asyncio.create_task(client.open(url))
        await arrived.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await ended.wait()
        with pytest.raises(InvalidState, match="not open"):
            await client.count()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1/", "scheme isn't ws or wss"),
        ("ws:///", "hostname isn't provided"),
        ("ws://user:hunter2@127.0.0.1/#part", "fragment identifier is meaningless"),
        ("ws://127.0.0.1:99999/", "[Pp]ort out of range"),
        ("", "no URI"),
    ],
)
async def test_a_uri_that_is_no_websockets_is_a_value_error(uri: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        await KvClient().open(uri)
    assert "hunter2" not in str(refusal.value)


async def test_open_without_a_uri_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no URI"):
        await KvClient().open()


async def test_a_connection_over_tls_trusts_whom_the_system_trusts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(server: ServerConnection) -> None:
        async for _ in server:
            await server.send(COUNT)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(SELF_SIGNED)
    async with peer(handler, context) as url:
        with pytest.raises(ConnectError, match="certificate can't be trusted: self-signed"):
            await KvClient().open(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(SELF_SIGNED))
        async with KvClient(url) as client:
            assert await client.count() == 1


async def test_a_client_is_opened_once_at_a_time() -> None:
    async with connected(close_properly) as client:
        with pytest.raises(InvalidState, match="already open"):
            await client.open()


async def test_a_client_is_opened_by_one_coroutine_at_a_time() -> None:
    async with raw_peer(close_properly_after_handshake) as url, asyncio.timeout(BOUND):
        client = KvClient(url)
        results = await asyncio.gather(client.open(), client.open(), return_exceptions=True)
        assert results[0] is True
        assert isinstance(results[1], InvalidState)
        await client.close()


async def close_properly_after_handshake(server: RawPeer) -> None:
    await server.accept()
    await close_properly(server)


async def test_a_command_before_open_or_after_close_is_an_error() -> None:
    client = KvClient()
    with pytest.raises(InvalidState, match=r"not open; open\(\) it first"):
        await client.count()
    await client.close()
    async with connected(close_properly) as client:
        await client.close()
        with pytest.raises(InvalidState, match="not open"):
            await client.count()


async def test_a_client_can_be_opened_again() -> None:
    async def handler(server: RawPeer) -> None:
        await server.accept()
        await server.request()
        await server.send(text(COUNT))
        await close_properly(server)

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient()
        for _ in range(2):
            assert await client.open(url) is True
            assert await client.count() == 1
            await client.close()


async def test_a_client_that_lost_its_connection_can_be_opened_again() -> None:
    async def handler(server: RawPeer) -> None:
        await server.accept()
        await server.request()

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient(url, policy=ONE_CONNECTION)
        for _ in range(2):
            await client.open()
            with pytest.raises(ConnectionLost):
                await client.count()
        await client.close()


# Reading.


async def test_bytes_may_be_cut_anywhere() -> None:
    """Handshake, fragments, a ping, replies and a close frame, in two pieces of every size."""
    head, tail = COUNT[:9].encode(), COUNT[9:].encode()
    long = reply("KV_KEYS", keys=["k" * 130])
    frames = (
        frame(Opcode.TEXT, head, fin=False)
        + frame(Opcode.PING, b"there?")
        + frame(Opcode.CONT, tail)
        + text(long)
        + text(COUNT)
        + frame(Opcode.CLOSE, b"\x03\xe9bye")
    )

    async def session(cut: int) -> int:
        async def handler(server: RawPeer) -> None:
            pieces.append(await server.handshake() + text(reply("SV_INFO", **NDB)))
            await read_to_end(server)

        pieces: list[bytes] = []
        async with raw_peer(handler) as url, asyncio.timeout(BOUND):
            [pending], client = await start_opening(url)
            await until(lambda: bool(pieces))
            [beginning] = pieces
            # Requests in flight before their replies: what they wait for goes first.
            stream = beginning + frames
            if cut < len(beginning):
                pending.data_received(beginning[:cut])
                pending.data_received(beginning[cut:])
            else:
                pending.data_received(beginning)
            await pending.opened
            count, keys = commands.count(commands.KV), commands.keys(commands.KV)
            requests: list[Request[Any]] = [count, keys, replace(count), replace(count)]
            asked = [ask(pending, request) for request in requests]
            await until(lambda: len(pending._pipeline._in_flight) == 4)
            middle = max(cut, len(beginning))
            pending.data_received(stream[len(beginning) : middle])
            pending.data_received(stream[middle:])
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert done[:3] == [1, ["k" * 130], 1]
            assert isinstance(done[3], ConnectionLost)
            assert "1001 (going away) bye" in str(done[3])
            client.abort()
            return len(stream)

    cut, total = 0, 1
    while cut < total:
        total = await session(cut)
        cut += 1


async def test_frames_may_follow_the_handshake_at_once() -> None:
    ping = frame(Opcode.PING, b"there?")

    async def session(cut: int) -> None:
        async def handler(server: RawPeer) -> None:
            answers.append(await server.handshake())
            assert await server.request() == ("SV_INFO", {})
            assert (await server.event()).opcode is Opcode.PONG
            await server.request()
            await server.send(text(COUNT))
            await read_to_end(server)

        answers: list[bytes] = []
        async with raw_peer(handler) as url, asyncio.timeout(BOUND):
            [pending], client = await start_opening(url)
            await until(lambda: bool(answers))
            pending.data_received(answers[0] + ping[:cut])
            pending.data_received(ping[cut:] + text(reply("SV_INFO", **NDB)))
            await pending.opened
            assert await ask(pending, commands.count(commands.KV)) == 1
            client.abort()

    for cut in range(len(ping) + 1):
        await session(cut)


async def test_open_says_that_the_server_closed_at_once() -> None:
    async def handler(server: RawPeer) -> None:
        await server.send(await server.handshake() + frame(Opcode.CLOSE, b"\x03\xf5"))
        await read_to_end(server)

    async with raw_peer(handler) as url:
        with pytest.raises(ConnectError, match=r"closed the connection: 1013 \(try again later\)"):
            await KvClient().open(url)


async def start_opening(
    url: str,
) -> tuple[list[connection.Connection], asyncio.Transport]:
    """Return a connection that waits for the answer to its handshake."""
    [server] = parse_servers(url, None, None)
    pipeline = Pipeline()

    def lost(link: connection.Connection) -> None:
        pipeline.abandon(str(link.ended))

    transport, made = await asyncio.get_running_loop().create_connection(
        lambda: connection.Connection(server, pipeline, ConnectionPolicy(), lost),
        server.address.host,
        server.address.port,
    )
    return [made], transport


def ask(link: connection.Connection, request: Request[T]) -> asyncio.Future[T]:
    """Make a request on a connection that has opened."""
    if not link._started:
        link.start()
    request.message = request.encode()
    request.deadline = math.inf
    request.waiter = waiter = asyncio.get_running_loop().create_future()
    link.wake(link._pipeline.add(request))
    return waiter


def link_of(client: KvClient) -> connection.Connection:
    """Return the connection of a client that is connected."""
    assert client._channel is not None
    assert client._channel._connection is not None
    return client._channel._connection


async def test_a_large_reply_arrives_whole() -> None:
    keys = [str(number) * 8 for number in range(200_000)]

    async def handler(server: RawPeer) -> None:
        await server.request()
        await server.send(text(reply("KV_KEYS", keys=keys)))
        await close_properly(server)

    async with connected(handler) as client:
        assert await client.keys() == keys


async def test_a_ping_is_answered() -> None:
    ponged = asyncio.Event()

    async def handler(server: RawPeer) -> None:
        await server.send(frame(Opcode.PING, b"there?"))
        pong = await server.event()
        assert (pong.opcode, pong.data) == (Opcode.PONG, b"there?")
        ponged.set()
        await server.send(frame(Opcode.PONG, b"unasked"))
        await close_properly(server)

    async with connected(handler):
        await ponged.wait()


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (frame(Opcode.BINARY, b"{}"), CloseCode.UNSUPPORTED_DATA, "not a binary message"),
        (frame(Opcode.TEXT, b"\xff"), CloseCode.INVALID_DATA, "not UTF-8"),
        (
            frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"("),
            CloseCode.INVALID_DATA,
            "not UTF-8",
        ),
        (
            frame(Opcode.TEXT, b"{", fin=False) + text(COUNT),
            CloseCode.PROTOCOL_ERROR,
            "expected a continuation",
        ),
        (frame(Opcode.CONT, b"{}"), CloseCode.PROTOCOL_ERROR, "unexpected continuation"),
        (b"\x81\x82\0\0\0\0{}", CloseCode.PROTOCOL_ERROR, "incorrect masking"),
        (b"\x81\x7e\0\x02{}", CloseCode.PROTOCOL_ERROR, "length not in its shortest form"),
        (b"\x89\x7e\0\x02{}", CloseCode.PROTOCOL_ERROR, "length not in its shortest form"),
        (
            b"\x81\x7f" + bytes(7) + b"\x02{}",
            CloseCode.PROTOCOL_ERROR,
            "length not in its shortest",
        ),
        (b"\x81\x7f\x80" + bytes(7), CloseCode.PROTOCOL_ERROR, "most significant bit set"),
        (b"\x82\x7f" + b"\xff" * 8, CloseCode.PROTOCOL_ERROR, "most significant bit set"),
        (b"\x89\x7e\0\x7e", CloseCode.PROTOCOL_ERROR, "control frame too long"),
        (b"\x88\x7f\0\0\1" + bytes(5), CloseCode.PROTOCOL_ERROR, "control frame too long"),
        (b"\xc1\x02{}", CloseCode.PROTOCOL_ERROR, "reserved bits"),
        (b"\x83\x02{}", CloseCode.PROTOCOL_ERROR, "invalid opcode"),
        (
            text(reply("KV_KEYS", keys=[])),
            CloseCode.PROTOCOL_ERROR,
            "KV_COUNT was answered by 'KV_KEYS_RSP'",
        ),
        (text(COUNT) * 2, CloseCode.PROTOCOL_ERROR, "answers no request"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_left(
    sent: bytes, code: CloseCode, said: str
) -> None:
    async def handler(server: RawPeer) -> None:
        await server.request()
        await server.send(sent)
        close = await server.event()
        assert close.opcode is Opcode.CLOSE
        assert int.from_bytes(close.data[:2]) == code

    async with connected(handler) as client:
        failures: list[Exception] = []
        while not failures or not isinstance(failures[-1], ConnectionLost):
            try:
                await client.count()
            except NdbException as failure:
                failures.append(failure)
        assert said in str(failures[-1])
        # The first to be told is the one whose reply it was.
        assert isinstance(failures[0], ConnectionLost | UnreadableReply)


async def test_replies_out_of_step_are_not_given_to_anyone() -> None:
    async def handler(server: RawPeer) -> None:
        for _ in range(3):
            await server.request()
        await server.send(text(reply("KV_KEYS", keys=["of another"])) * 2)
        assert (await server.event()).opcode is Opcode.CLOSE

    async with connected(handler) as client:
        counts = await asyncio.gather(*(client.count() for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in counts] == [StrayReply, ConnectionLost, ConnectionLost]


async def test_a_reply_that_python_can_not_hold_disturbs_no_other() -> None:
    async def handler(server: RawPeer) -> None:
        for message in ('{"KV_COUNT_RSP":{"st":1,"cnt":1E400}}', COUNT):
            await server.request()
            await server.send(text(message))
        await close_properly(server)

    async with connected(handler) as client:
        with pytest.raises(UnreadableReply, match="out of range"):
            await client.count()
        assert await client.count() == 1


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("nonsense", UnreadableReply),
        (reply("KV_KEYS", keys=[]), UnreadableReply),
        # The client sends requests: where the server found none, it may have read two as one.
        *(('{"ERR":{"st":%d,"m":"why"}}' % status, ResponseError) for status in (2, 3, 10, 13)),
        # The refusal of another command.
        ('{"KV_GET_RSP":{"st":26,"m":"why"}}', ResponseError),
    ],
)
async def test_after_a_sign_of_being_out_of_step_no_reply_is_given_to_anyone(
    message: str, error: type[NdbException]
) -> None:
    async def handler(server: RawPeer) -> None:
        await server.request()
        await server.request()
        await server.send(text(message) + text(COUNT))
        assert (await server.event()).opcode is Opcode.CLOSE

    async with connected(handler) as client:
        first, second = await asyncio.gather(client.count(), client.count(), return_exceptions=True)
        assert isinstance(first, error)
        assert isinstance(second, ConnectionLost)
        assert "violated the protocol" in str(second)


# Writing.


@pytest.mark.parametrize(("count", "left"), [(1, 1), (15, 15), (50, 2)])
async def test_requests_of_one_turn_leave_together_sixteen_at_a_time(count: int, left: int) -> None:
    async def handler(server: RawPeer) -> None:
        for _ in range(count):
            await server.request()
        await server.send(text(COUNT) * count)
        await close_properly(server)

    async with connected(handler) as client:
        asking = [asyncio.ensure_future(client.count()) for _ in range(count)]
        # Each of them has run up to its request, and the turn's flush has not come yet.
        await asyncio.sleep(0)
        assert len(link_of(client)._pipeline._unsent) == left
        assert await asyncio.gather(*asking) == [1] * count


async def test_requests_wait_while_the_server_does_not_read() -> None:
    read_on = asyncio.Event()
    large = {"k": "x" * 2_000_000}

    async def handler(server: RawPeer) -> None:
        await read_on.wait()
        names: list[str] = []
        while len(names) < 11:
            name, _ = await server.request()
            names.append(name)
            await server.send(text(reply(name, cnt=len(names))))
        assert names == ["KV_SET"] * 10 + ["KV_COUNT"]
        await close_properly(server)

    async with connected_closely(handler) as client:
        link = link_of(client)
        sets = [asyncio.create_task(client.set(large)) for _ in range(10)]
        await until(lambda: link._paused)
        # What is not sent can be taken back, and says that it was.
        with pytest.raises(RequestTimeout, match="was not sent") as timeout:
            await client.keys(timeout=0.01)
        assert timeout.value.maybe_executed is False
        taken_back = asyncio.create_task(client.clear())
        last = asyncio.create_task(client.count())
        await asyncio.sleep(0)
        taken_back.cancel()
        assert not any(task.done() for task in sets[5:])
        read_on.set()
        await asyncio.gather(*sets)
        assert await last == 11
        assert link._paused is False


async def test_a_connection_lost_under_back_pressure_tells_what_was_sent() -> None:
    go = asyncio.Event()

    async def handler(server: RawPeer) -> None:
        await go.wait()
        server.writer.transport.abort()

    async with connected_closely(handler) as client:
        link = link_of(client)
        sets = [asyncio.create_task(client.set({"k": "x" * 8_000_000})) for _ in range(3)]
        await until(lambda: link._paused)
        unsent = asyncio.create_task(client.count())
        await asyncio.sleep(0)
        go.set()
        executed = []
        for request in (*sets, unsent):
            with pytest.raises(ConnectionLost) as lost:
                await request
            executed.append(lost.value.maybe_executed)
        assert executed[0] is True
        assert executed[-1] is False
        with pytest.raises(ConnectionLost) as later:
            await client.count()
        assert later.value.maybe_executed is False


async def test_a_client_closed_under_back_pressure_sends_no_request_after_its_close() -> None:
    read_on = asyncio.Event()

    async def handler(server: RawPeer) -> None:
        await read_on.wait()
        assert (await server.request())[0] == "KV_SET"
        await server.send(text(reply("KV_SET")))
        await close_properly(server)

    async with connected_closely(handler) as client:
        link = link_of(client)
        sent = asyncio.create_task(client.set({"k": "x" * 8_000_000}))
        await until(lambda: link._paused)
        unsent = asyncio.create_task(client.count())
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        read_on.set()
        await closing
        await sent
        with pytest.raises(ConnectionLost, match=r"client was closed; .* not sent") as lost:
            await unsent
        assert lost.value.maybe_executed is False


# Cancelling, and timeouts.


async def test_a_cancelled_request_disturbs_no_other() -> None:
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def handler(server: RawPeer) -> None:
        for _ in range(3):
            await server.request()
        arrived.set()
        await answer.wait()
        for number in range(3):
            await server.send(text(reply("KV_COUNT", cnt=number)))
        await close_properly(server)

    async with connected(handler) as client:
        first, second, third = (asyncio.create_task(client.count()) for _ in range(3))
        await arrived.wait()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        answer.set()
        assert (await first, await third) == (0, 2)


async def test_a_request_cancelled_in_its_turn_of_the_loop_is_not_sent() -> None:
    async def handler(server: RawPeer) -> None:
        assert (await server.request())[0] == "KV_COUNT"
        await server.send(text(COUNT))
        await close_properly(server)

    async with connected(handler) as client:
        cancelled = asyncio.create_task(client.clear())
        kept = asyncio.create_task(client.count())
        asyncio.get_running_loop().call_soon(cancelled.cancel)
        # The tasks run first, then the cancellation, and then the connection writes.
        assert await kept == 1
        assert cancelled.cancelled()


@pytest.mark.parametrize("per_call", [True, False])
async def test_a_timeout_disturbs_no_other_request(per_call: bool) -> None:
    answer = asyncio.Event()

    async def handler(server: RawPeer) -> None:
        await server.accept()
        await server.request()
        await answer.wait()
        await server.send(text(reply("KV_COUNT", cnt=1)))
        await server.request()
        await server.send(text(reply("KV_COUNT", cnt=2)))
        await close_properly(server)

    async with (
        raw_peer(handler) as url,
        asyncio.timeout(BOUND),
        in_time(KvClient(url, timeout=None if per_call else 0.05)) as client,
    ):
        with pytest.raises(RequestTimeout, match=r"no reply within 0\.05 s; .* may have been"):
            await client.count(timeout=0.05 if per_call else None)
        answer.set()
        assert await client.count(timeout=BOUND) == 2


async def test_a_call_may_wait_longer_than_its_client() -> None:
    async def handler(server: RawPeer) -> None:
        await server.accept()
        for _ in range(3):
            await server.request()
        await server.send(text(COUNT) * 3)
        await close_properly(server)

    async with (
        raw_peer(handler) as url,
        asyncio.timeout(BOUND),
        in_time(KvClient(url, timeout=0.02)) as client,
    ):
        patient = asyncio.create_task(client.count(timeout=math.inf))
        with pytest.raises(RequestTimeout):
            await client.count()
        await asyncio.gather(client.count(timeout=BOUND), patient)


@pytest.mark.parametrize("timeout", [math.nan, "1"])
async def test_a_timeout_that_is_no_number_is_refused_before_anything_is_sent(timeout: Any) -> None:
    said = f"timeout must be a number of seconds, not {timeout!r}"
    with pytest.raises(ValueError, match=said):
        KvClient(timeout=timeout)
    async with connected(close_properly) as client:
        with pytest.raises(ValueError, match=said):
            await client.count(timeout=timeout)
    with pytest.raises(ValueError, match=said):
        await client.open(timeout=timeout)


# Losing the connection.


async def abort(server: RawPeer) -> None:
    sock = server.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.writer.transport.abort()


async def end(server: RawPeer) -> None:
    server.writer.close()


async def end_within_a_frame(server: RawPeer) -> None:
    await server.send(text(COUNT)[:-3])
    server.writer.close()


async def say_goodbye(server: RawPeer) -> None:
    await server.send(frame(Opcode.CLOSE, b"\x03\xe9restart"))
    server.writer.close()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (abort, "the connection broke: .*reset"),
        (end, "without a close frame"),
        (end_within_a_frame, "without a close frame"),
        (say_goodbye, r"the server closed the connection: 1001 \(going away\) restart"),
    ],
)
async def test_every_request_in_flight_is_told_that_the_connection_was_lost(
    how: Callable[[RawPeer], Awaitable[None]], said: str
) -> None:
    async def handler(server: RawPeer) -> None:
        for _ in range(5):
            await server.request()
        await server.send(text(COUNT) * 2)
        await how(server)

    async with connected(handler) as client:
        outcomes = await asyncio.gather(*(client.count() for _ in range(5)), return_exceptions=True)
        assert outcomes[:2] == [1, 1]
        for outcome in outcomes[2:]:
            assert isinstance(outcome, ConnectionLost)
            assert outcome.maybe_executed is True
            with pytest.raises(ConnectionLost, match=said):
                raise outcome


async def test_replies_before_a_close_frame_in_one_segment_are_delivered() -> None:
    async def handler(server: RawPeer) -> None:
        for _ in range(3):
            await server.request()
        goodbye = frame(Opcode.CLOSE, b"\x03\xe9")
        await server.send(text(COUNT) * 2 + goodbye + text(COUNT))
        await close_properly(server)

    async with connected(handler) as client:
        outcomes = await asyncio.gather(*(client.count() for _ in range(3)), return_exceptions=True)
        assert outcomes[:2] == [1, 1]
        # What stands after the close frame is not read (RFC 6455, section 5.5.1).
        assert isinstance(outcomes[2], ConnectionLost)


async def test_a_server_that_says_goodbye_and_stays_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.01)

    async def handler(server: RawPeer) -> None:
        await server.request()
        await server.send(frame(Opcode.CLOSE, b"\x03\xe9"))
        await read_to_end(server)

    async with connected(handler) as client:
        link = link_of(client)
        with pytest.raises(ConnectionLost):
            await client.count()
        await until(link._closed.done)


# Closing.


async def test_a_connection_that_has_ended_is_watched_no_more() -> None:
    async def handler(server: RawPeer) -> None:
        await server.accept()
        await read_to_end(server)

    async with raw_peer(handler) as url, KvClient(url) as client:
        link = link_of(client)
        watching = link._timer
        # The watch may be due in the very turn in which the server ends its side.
        link.eof_received()
        assert watching is not None
        assert watching.cancelled()


async def test_close_ends_the_connection_in_order() -> None:
    async def handler(server: RawPeer) -> None:
        close = await server.event()
        assert close.opcode is Opcode.CLOSE
        assert int.from_bytes(close.data[:2]) == CloseCode.NORMAL_CLOSURE
        await server.send(b"".join(server.websocket.data_to_send()))
        server.writer.close()
        await server.writer.wait_closed()

    async with connected(handler) as client:
        await client.close()
        await client.close()


async def test_replies_that_come_before_the_servers_close_frame_are_delivered() -> None:
    async def handler(server: RawPeer) -> None:
        await server.request()
        await server.request()
        close = await server.event()
        assert close.opcode is Opcode.CLOSE
        await server.send(text(COUNT) + b"".join(server.websocket.data_to_send()))

    async with connected(handler) as client:
        answered, unanswered = (asyncio.create_task(client.count()) for _ in range(2))
        await asyncio.sleep(0)
        await client.close()
        assert await answered == 1
        with pytest.raises(ConnectionLost, match="the client was closed") as lost:
            await unanswered
        assert lost.value.maybe_executed is True


async def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.01)

    async def handler(server: RawPeer) -> None:
        await read_to_end(server)

    async with connected(handler) as client:
        await client.close()


async def test_a_cancelled_close_ends_the_connection_at_once() -> None:
    async def handler(server: RawPeer) -> None:
        await read_to_end(server)

    async with connected(handler) as client:
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing


async def test_a_server_that_breaks_the_protocol_while_closing_is_left() -> None:
    async def handler(server: RawPeer) -> None:
        await server.request()
        assert (await server.event()).opcode is Opcode.CLOSE
        await server.send(frame(Opcode.TEXT, b"\xff"))

    async with connected(handler) as client:
        asked = asyncio.create_task(client.count())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ConnectionLost, match="the client was closed"):
            await asked


# Being forgotten.


async def test_a_client_that_is_garbage_ends_its_connection() -> None:
    ended = asyncio.Event()

    async def handler(server: RawPeer) -> None:
        await server.accept()
        await read_to_end(server)
        ended.set()

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient(url)
        await client.open()
        del client
        gc.collect()
        await ended.wait()
    gc.collect()


def test_a_client_may_outlive_its_event_loop_and_be_opened_in_another() -> None:
    async def use(client: KvClient, leave_open: bool) -> None:
        async def handler(server: RawPeer) -> None:
            await server.accept()
            await server.request()
            await server.send(text(COUNT))
            if not leave_open:
                await close_properly(server)

        async with raw_peer(handler) as url, asyncio.timeout(BOUND):
            await client.open(url)
            assert await client.count() == 1
            if not leave_open:
                await client.close()

    def outlive() -> None:
        client = KvClient()
        asyncio.run(use(client, leave_open=True))
        asyncio.run(use(client, leave_open=False))
        asyncio.run(use(client, leave_open=True))
        asyncio.run(client.close())
        asyncio.run(use(client, leave_open=True))

    outlive()
    gc.collect()


async def test_who_forgot_the_port_is_told_which_one_a_server_has() -> None:
    with pytest.raises(ConnectError, match=r"the default port of a server is 1987$"):
        await KvClient("ws://127.0.0.1/").open()


@pytest.mark.parametrize("uri", ["ws://127.0.0.1:80/", "ws+unix:///nowhere"])
async def test_who_names_a_port_or_a_socket_is_not_told_of_ports(uri: str) -> None:
    with pytest.raises(ConnectError) as failure:
        await KvClient(uri).open()
    assert "default port" not in str(failure.value)
