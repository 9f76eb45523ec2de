"""What a client does when its connection is lost, with servers that say when."""

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from ndb import (
    ConnectError,
    ConnectionLost,
    ConnectionPolicy,
    InvalidState,
    KvClient,
    RequestTimeout,
    SessionClient,
    UnreadableReply,
    channel,
    connection,
)
from ndb.policy import Backoff
from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Frame, Opcode

from tests.support.certificates import SELF_SIGNED
from tests.support.event_loop_turns import until
from tests.support.misbehaving_servers import HOST, RawPeer, frame, peer, raw_peer, reply, text
from tests.support.waiting import BOUND

SECRET = "hunter2-marked"
QUICK = ConnectionPolicy(initial_backoff=0.001, max_backoff=0.01)
WATCHFUL = ConnectionPolicy(
    initial_backoff=0.001, max_backoff=0.01, ping_interval=0.02, ping_timeout=0.2
)
"""A busy machine may take long for a pong, but not so long."""

Handler = Callable[[RawPeer], Awaitable[None]]


@asynccontextmanager
async def peers(*handlers: Handler) -> AsyncIterator[str]:
    """Run a server whose connections are handled by `handlers` in turn, the handshake done.

    Those that come after are ended without an answer.
    """
    left = list(handlers)

    async def handle(server: RawPeer) -> None:
        if left:
            handler = left.pop(0)
            await server.accept()
            await handler(server)

    async with raw_peer(handle) as url, asyncio.timeout(BOUND):
        yield url
    assert not left


async def close_properly(server: RawPeer) -> None:
    while (await server.event()).opcode is not Opcode.CLOSE:
        pass
    await server.send(b"".join(server.websocket.data_to_send()))


async def hang_up(server: RawPeer) -> None:
    """End the connection once there is a request."""
    await server.request()
    server.writer.close()


def counts(*numbers: int) -> Handler:
    """Answer so many KV_COUNT, and then wait for the client to close."""

    async def handler(server: RawPeer) -> None:
        for number in numbers:
            assert await server.request() == ("KV_COUNT", {})
            await server.send(text(reply("KV_COUNT", cnt=number)))
        await close_properly(server)

    return handler


@asynccontextmanager
async def refusing(status: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Run a server that lets nobody in; yield its URL and the heads of the requests it gets."""
    heads: list[str] = []

    async def handler(server: RawPeer) -> None:
        heads.append((await server.reader.readuntil(b"\r\n\r\n")).decode())
        await server.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    async with raw_peer(handler) as url:
        yield url, heads


def unused() -> str:
    """Return a URL at which no server is."""
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        return f"ws://{HOST}:{unused.getsockname()[1]}/"


# Several servers, and those that refuse.


async def test_of_several_servers_the_first_that_answers_is_used() -> None:
    async with peers(counts(1)) as url, KvClient([unused(), url]) as client:
        assert await client.count() == 1


async def test_open_tries_each_server_once_and_says_what_is_wrong_with_each() -> None:
    first, second = unused(), unused()
    with pytest.raises(ConnectError) as failure:
        await KvClient().open([first, second])
    for url in (first, second):
        assert str(failure.value).count(f"can't connect to {url[5:-1]}: ") == 1
    assert failure.value.status is None


async def test_a_server_that_does_not_answer_leaves_time_for_the_next() -> None:
    async def silent(server: RawPeer) -> None:
        await server.reader.read()

    async with raw_peer(silent) as first, peers(counts(1)) as second:
        client = KvClient([first, second])
        await client.open(timeout=2)
        assert await client.count() == 1
        await client.close()
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s; .* within 0\.05 s"):
            await client.open([first, first], timeout=0.1)


@pytest.mark.parametrize(
    ("status", "credentials", "said"),
    [
        ("401 Unauthorized", ("ada", SECRET), "the server refused the credentials"),
        ("401 Unauthorized", SECRET, "the server refused the credentials"),
        ("401 Unauthorized", None, "the server requires credentials, and none were given"),
        ("403 Forbidden", None, "the server does not allow this client to connect"),
        ("503 Busy", ("ada", SECRET), "the server answered the WebSocket handshake with"),
    ],
)
async def test_open_says_that_the_server_lets_nobody_in(
    status: str, credentials: Any, said: str
) -> None:
    async with refusing(status) as (url, heads):
        client = SessionClient(url, credentials=credentials)
        with pytest.raises(ConnectError, match=said) as failure:
            await client.open()
    assert f"HTTP {status}" in str(failure.value)
    assert failure.value.status == int(status[:3])
    assert len(heads) == 1
    assert SECRET not in f"{failure.value} {failure.value!r} {client!r}"


@pytest.mark.parametrize(
    ("userinfo", "credentials", "header"),
    [
        ("ada:secret@", None, "Basic YWRhOnNlY3JldA=="),
        ("", ("ada", "secret"), "Basic YWRhOnNlY3JldA=="),
        ("", "a-token", "Bearer a-token"),
    ],
)
async def test_credentials_are_sent_in_the_opening_handshake(
    userinfo: str, credentials: Any, header: str
) -> None:
    async with refusing("401 Unauthorized") as (url, heads):
        with pytest.raises(ConnectError):
            await KvClient(credentials=credentials).open(url.replace("//", f"//{userinfo}"))
    [head] = heads
    assert head.count("Authorization:") == 1
    assert f"\r\nAuthorization: {header}\r\n" in head


async def test_no_log_shows_credentials(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with peers(hang_up, counts(1)) as url:
        uri = url.replace("//", f"//ada:{SECRET}@")
        async with KvClient(uri, policy=QUICK) as client:
            assert await client.count() == 1
    logged = [
        record.getMessage()
        for record in caplog.records
        if record.name == "ndb" and record.levelno >= logging.INFO
    ]
    assert "without a close frame" in logged[0]
    assert logged[1] == f"connected to {url[5:-1]} again"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_refused_credentials_end_the_reconnecting(status: str) -> None:
    connections = 0

    async def handler(server: RawPeer) -> None:
        nonlocal connections
        connections += 1
        if connections == 2:
            await server.handshake()
            await server.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        await server.accept()
        await (hang_up if connections == 1 else counts(1))(server)

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient(url, policy=QUICK)
        await client.open()
        with pytest.raises(
            ConnectionLost, match=f"reconnect any more: .* HTTP {status}|{status}"
        ) as lost:
            await client.count()
        assert lost.value.maybe_executed is True
        with pytest.raises(ConnectionLost, match="reconnect any more") as later:
            await client.count()
        assert later.value.maybe_executed is False
        assert connections == 2
        await client.open()
        assert await client.count() == 1
        await client.close()


async def test_a_server_that_refuses_is_left_out_and_another_is_used() -> None:
    async with refusing("401 Unauthorized") as (other, heads), peers(hang_up, counts(1)) as url:
        policy = ConnectionPolicy(initial_backoff=0.001, max_backoff=0.001)
        async with KvClient([url, other], policy=policy) as client:
            assert await client.count() == 1
    assert len(heads) <= 1


async def test_a_client_follows_to_the_next_server() -> None:
    async with peers(counts(2)) as second:
        moved = asyncio.Event()

        async def first(server: RawPeer) -> None:
            await server.accept()
            await server.request()
            moved.set()

        async with raw_peer(first) as url:
            client = KvClient([url, second], policy=QUICK)
            await client.open()
            counting = asyncio.create_task(client.count())
            await moved.wait()
        assert await counting == 2
        await client.close()


async def test_the_name_is_looked_up_again_at_each_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo
    ports: list[int] = []

    async def moving(host: str, port: int, **more: Any) -> Any:
        if host != "moving.test":
            return await look_up(host, port, **more)
        return await look_up(HOST, ports.pop(0) if len(ports) > 1 else ports[0], **more)

    monkeypatch.setattr(loop, "getaddrinfo", moving)
    async with peers(hang_up) as first, peers(counts(3)) as second:
        ports += [int(url.rstrip("/").rpartition(":")[2]) for url in (first, unused(), second)]
        async with KvClient("ws://moving.test:1987/", policy=QUICK) as client:
            assert await client.count() == 3


# What becomes of requests.


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013])
async def test_whatever_the_server_closes_with_the_client_comes_back(code: int) -> None:
    async def say_goodbye(server: RawPeer) -> None:
        await server.request()
        await server.send(frame(Opcode.CLOSE, code.to_bytes(2)))

    async with peers(say_goodbye, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        assert await client.count() == 1


async def test_a_command_that_may_not_be_repeated_is_not_sent_again() -> None:
    async def two_requests(server: RawPeer) -> None:
        assert (await server.request())[0] == "KV_CLEAR"
        assert (await server.request())[0] == "KV_COUNT"

    async with peers(two_requests, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        cleared, counted = await asyncio.gather(
            client.clear(), client.count(), return_exceptions=True
        )
        assert isinstance(cleared, ConnectionLost)
        assert cleared.maybe_executed is True
        assert "may have been executed" in str(cleared)
        assert counted == 1


async def test_a_request_is_sent_again_only_once() -> None:
    async with peers(hang_up, hang_up, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.count()
        assert lost.value.maybe_executed is True
        assert await client.count() == 1


async def test_a_request_made_without_a_connection_waits_for_one_whatever_it_is() -> None:
    connections = 0
    lost, come_back = asyncio.Event(), asyncio.Event()

    async def refuse(server: RawPeer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await server.accept()
        elif not come_back.is_set():
            lost.set()
        else:
            await server.accept()
            assert [(await server.request())[0] for _ in range(2)] == ["KV_CLEAR", "KV_COUNT"]
            await server.send(text(reply("KV_CLEAR", cnt=5)) + text(reply("KV_COUNT", cnt=0)))
            await close_properly(server)

    async with raw_peer(refuse) as url, KvClient(url, policy=QUICK) as client:
        await lost.wait()
        clearing = asyncio.create_task(client.clear())
        cancelled = asyncio.create_task(client.keys())
        counting = asyncio.create_task(client.count(timeout=BOUND))
        await asyncio.sleep(0)
        cancelled.cancel()
        come_back.set()
        assert await clearing == 5
        assert await counting == 0


@pytest.mark.parametrize("per_call", [True, False])
async def test_a_request_waits_for_a_connection_up_to_its_deadline(per_call: bool) -> None:
    async with peers(hang_up) as url:
        client = KvClient(url, policy=QUICK, timeout=None if per_call else 0.5)
        await client.open(timeout=BOUND)
        with pytest.raises(RequestTimeout, match=r"0\.5 s: .*; .* may have been executed"):
            await client.count(timeout=0.5 if per_call else None)
        await until(lambda: "can't connect" in str(trouble(client)))
    with pytest.raises(RequestTimeout, match=r"0\.5 s: can't connect to .*; .* was not sent"):
        await client.count(timeout=0.5 if per_call else None)
    await client.close()


def is_in_trouble(client: KvClient) -> bool:
    return trouble(client) is not None


def trouble(client: KvClient) -> str | None:
    assert client._channel is not None
    return client._channel._trouble


async def test_requests_have_the_time_of_the_policy_if_nothing_else_is_said() -> None:
    async def silent(server: RawPeer) -> None:
        await server.request()
        await close_properly(server)

    policy = ConnectionPolicy(request_timeout=0.05)
    async with peers(silent) as url, KvClient(url, policy=policy) as client:
        with pytest.raises(RequestTimeout, match=r"no reply within 0\.05 s; the request may"):
            await client.count()


async def test_waiting_requests_fail_when_there_is_no_server_and_the_next_starts_over() -> None:
    connections = 0
    come_back = asyncio.Event()

    async def handler(server: RawPeer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await server.accept()
            await server.request()
        elif come_back.is_set():
            await server.accept()
            await counts(1)(server)

    policy = ConnectionPolicy(initial_backoff=0.001, max_backoff=0.01, reconnect_timeout=0.5)
    async with raw_peer(handler) as url, KvClient(url, policy=policy) as client:
        counting = asyncio.create_task(client.count())
        await until(lambda: connections > 1)
        clearing = asyncio.create_task(client.clear())
        with pytest.raises(
            ConnectionLost, match=r"could not connect for 0\.5 s: can't connect"
        ) as lost:
            await counting
        assert lost.value.maybe_executed is True
        with pytest.raises(ConnectionLost) as unsent:
            await clearing
        assert unsent.value.maybe_executed is False
        # The last attempt may be on its way still. Whoever came before this has been turned away.
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        assert await reader.read() == b""
        writer.close()
        come_back.set()
        assert await client.count() == 1


async def test_a_message_too_big_for_the_server_fails_alone() -> None:
    async def too_big(server: RawPeer) -> None:
        await server.request()
        await server.request()
        await server.send(frame(Opcode.CLOSE, b"\x03\xf1too big"))

    async with peers(too_big, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        stored, counted = await asyncio.gather(
            client.set({"k": "big"}), client.count(), return_exceptions=True
        )
        assert isinstance(stored, ConnectionLost)
        assert "1009 (message too big) too big" in str(stored)
        assert counted == 1


async def test_a_server_that_lets_in_and_closes_at_once_is_not_asked_without_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[float] = []

    class Watched(Backoff):
        def delay(self) -> float:
            delays.append(self._most)
            return super().delay() * 0

    async def close_at_once(server: RawPeer) -> None:
        await server.send(frame(Opcode.CLOSE, b"\x03\xf5"))

    monkeypatch.setattr(channel, "Backoff", Watched)
    policy = ConnectionPolicy(initial_backoff=1, max_backoff=8)
    handlers = [hang_up, *[close_at_once] * 5, counts(1)]
    async with peers(*handlers) as url, KvClient(url, policy=policy) as client:
        answered = False
        while not answered:
            # The second connection that it is sent on is the last for a request.
            with contextlib.suppress(ConnectionLost):
                answered = await client.count() == 1
        assert delays == sorted(delays)
        assert delays[-1] == 8


@pytest.mark.parametrize("broken", [b"\x83\x02{}", text("nonsense"), frame(Opcode.TEXT, b"\xff")])
async def test_nothing_arrives_any_more_on_a_connection_that_was_given_up(
    broken: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent again could be overtaken otherwise by what was sent first."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 1e9)

    async def break_the_protocol(server: RawPeer) -> None:
        await server.request()
        await server.send(broken)
        # It ends without a word from here.
        while await server.reader.read(65536):
            pass

    handlers = (break_the_protocol, answer_and_close)
    async with peers(*handlers) as url, KvClient(url, policy=QUICK) as client:
        with contextlib.suppress(UnreadableReply):
            assert await client.count() == 1
        assert await client.count() == 1


async def answer_and_close(server: RawPeer) -> None:
    while (event := await server.event()).opcode is Opcode.TEXT:
        await server.send(text(reply("KV_COUNT", cnt=1)))
    assert event.opcode is Opcode.CLOSE
    await server.send(b"".join(server.websocket.data_to_send()))


# Closing.


async def test_close_ends_the_reconnecting() -> None:
    async with peers(hang_up) as url:
        client = KvClient(url, policy=ConnectionPolicy(initial_backoff=1e9, max_backoff=1e9))
        await client.open()
        counting = asyncio.create_task(client.count())
        await until(partial(is_in_trouble, client))
        with pytest.raises(InvalidState, match="already open"):
            await client.open()
        clearing = asyncio.create_task(client.clear())
        await asyncio.sleep(0)
        await client.close()
        for asked, executed in ((counting, True), (clearing, False)):
            with pytest.raises(ConnectionLost, match="the client was closed") as lost:
                await asked
            assert lost.value.maybe_executed is executed
    with pytest.raises(InvalidState):
        await client.count()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_close_while_a_connection_is_being_made_ends_that_too() -> None:
    connections = 0
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def handler(server: RawPeer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await server.accept()
            return
        await server.handshake()
        arrived.set()
        while await server.reader.read(65536):
            pass
        ended.set()

    async with raw_peer(handler) as url, asyncio.timeout(BOUND):
        client = KvClient(url, policy=QUICK)
        await client.open()
        await arrived.wait()
        await client.close()
        await ended.wait()
        assert connections == 2


async def test_a_program_that_cancels_every_task_does_not_stop_the_client_for_good() -> None:
    async with peers(hang_up, counts(1)) as url:
        policy = ConnectionPolicy(initial_backoff=1e9, max_backoff=1e9)
        async with KvClient(url, policy=policy) as client:
            with contextlib.suppress(RequestTimeout):
                await client.count(timeout=0.05)
            of_client = client._channel
            assert of_client is not None
            await until(lambda: of_client._reconnecting is not None)
            reconnecting = of_client._reconnecting
            assert reconnecting is not None
            reconnecting.cancel()
            await asyncio.wait([reconnecting])
            of_client._backoff = Backoff(QUICK, lambda: 0)
            assert await client.count() == 1


async def test_a_reconnecting_that_is_cancelled_before_it_begins_starts_over() -> None:
    async def end(server: RawPeer) -> None:
        server.writer.close()

    async with peers(end, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        channel = client._channel
        assert channel is not None
        await until(lambda: channel._reconnecting is not None)
        assert channel._reconnecting is not None
        channel._reconnecting.cancel()
        await asyncio.wait([channel._reconnecting])
        assert await client.count() == 1


async def test_a_name_that_no_thread_can_look_up_is_looked_up_again() -> None:
    async def end(server: RawPeer) -> None:
        server.writer.close()

    async with peers(end, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        loop = asyncio.get_running_loop()
        # It starts no thread, as a process at the limit of its threads does not.
        ended = ThreadPoolExecutor()
        ended.shutdown()
        loop.set_default_executor(ended)
        await until(lambda: "cannot schedule" in (trouble(client) or ""))
        with pytest.raises(ConnectError, match="cannot schedule"):
            await KvClient(url).open()
        loop.set_default_executor(ThreadPoolExecutor())
        assert await client.count() == 1


async def test_a_client_that_is_garbage_stops_reconnecting() -> None:
    async def end(server: RawPeer) -> None:
        server.writer.close()

    async with peers(end) as url:
        client = KvClient(url, policy=ConnectionPolicy(initial_backoff=1e9, max_backoff=1e9))
        await client.open()
        await until(partial(is_in_trouble, client))
        assert len(asyncio.all_tasks()) > 1
        del client
        gc.collect()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


# Servers that are silent.


async def read_pings(server: RawPeer, pings: list[None], *, answer: bool) -> None:
    """Read what the client sends until it ends the connection, in order or not."""
    try:
        while data := await server.reader.read(65536):
            server.websocket.receive_data(data)
            events = server.websocket.events_received()
            opcodes = [event.opcode for event in events if isinstance(event, Frame)]
            pings += [None] * opcodes.count(Opcode.PING)
            answers = b"".join(server.websocket.data_to_send())
            closing = Opcode.CLOSE in opcodes
            if answer or closing:
                await server.send(answers)
            if closing:
                return
    except ConnectionResetError:
        pass


async def count_and_pong(server: RawPeer, number: int = 1) -> None:
    """Answer pings, and then one KV_COUNT."""
    while (await server.event()).opcode is Opcode.PING:
        await server.send(b"".join(server.websocket.data_to_send()))
    await server.send(text(reply("KV_COUNT", cnt=number)))


async def test_a_silent_server_that_answers_pings_is_alive() -> None:
    pings: list[None] = []

    async def handler(server: RawPeer) -> None:
        await read_pings(server, pings, answer=True)

    async with peers(handler) as url, KvClient(url, policy=WATCHFUL):
        await until(lambda: len(pings) > 5)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_server_that_answers_no_ping_is_left_for_another_connection(asked: bool) -> None:
    pings: list[None] = []

    async def silent(server: RawPeer) -> None:
        await read_pings(server, pings, answer=False)

    alive = asyncio.Event()

    async def answering(server: RawPeer) -> None:
        alive.set()
        for number in range(1 + asked):
            await count_and_pong(server, number)
        await read_pings(server, pings, answer=True)

    async with peers(silent, answering) as url, KvClient(url, policy=WATCHFUL) as client:
        if asked:
            assert await client.count() == 0
        await alive.wait()
        assert await client.count() == asked
    assert len(pings) > 0


async def test_a_client_that_does_not_reconnect_says_that_the_server_was_silent() -> None:
    async def silent(server: RawPeer) -> None:
        await read_pings(server, [], answer=False)

    policy = ConnectionPolicy(ping_interval=0.02, ping_timeout=0.02, reconnect_timeout=0)
    async with peers(silent) as url, KvClient(url, policy=policy) as client:
        with pytest.raises(ConnectionLost, match=r"did not answer a ping within 0\.02 s"):
            await client.count()


async def test_a_client_without_keepalive_sends_no_ping() -> None:
    pings: list[None] = []

    async def handler(server: RawPeer) -> None:
        await read_pings(server, pings, answer=True)

    policy = ConnectionPolicy(ping_interval=float("inf"))
    async with peers(handler) as url, KvClient(url, policy=policy) as client:
        with pytest.raises(RequestTimeout):
            await client.count(timeout=0.05)
    assert pings == []


async def test_a_frame_that_never_becomes_whole_is_no_sign_of_life() -> None:
    async def broken(server: RawPeer) -> None:
        await server.request()
        # Its length is wrong, so that the pongs seem to be of its payload.
        await server.send(b"\x81\x7e\x10\x00")
        await read_pings(server, [], answer=True)

    async with (
        peers(broken, count_and_pong) as url,
        KvClient(url, policy=WATCHFUL) as client,
    ):
        assert await client.count() == 1


async def test_a_large_reply_may_come_slowly() -> None:
    pings: list[None] = []
    keys = ["k" * 1000] * 200

    async def slow(server: RawPeer) -> None:
        await server.request()
        message = text(reply("KV_KEYS", keys=keys))
        size = len(message) // 10
        for start in range(0, len(message), size):
            # A ping says that the client has not heard a whole frame for some time.
            while (await server.event()).opcode is not Opcode.PING:
                pass
            await server.send(message[start : start + size])
        await read_pings(server, pings, answer=True)

    async with peers(slow) as url, KvClient(url, policy=WATCHFUL) as client:
        assert await client.keys() == keys


async def test_a_frame_of_an_absurd_length_is_not_waited_for() -> None:
    async def broken(server: RawPeer) -> None:
        await server.request()
        await server.send(b"\x81\x7f" + b'{"KV_COU')
        close = await server.event()
        assert close.opcode is Opcode.CLOSE
        assert int.from_bytes(close.data[:2]) == CloseCode.MESSAGE_TOO_BIG

    async with peers(broken, counts(1)) as url, KvClient(url, policy=QUICK) as client:
        assert await client.count() == 1


# TLS.


async def test_a_context_says_whom_to_trust_and_what_certificate_to_show() -> None:
    async def handler(server: ServerConnection) -> None:
        async for _ in server:
            await server.send(reply("KV_COUNT", cnt=1))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=SELF_SIGNED)
    context.load_cert_chain(SELF_SIGNED)
    context.verify_mode = ssl.CERT_REQUIRED
    trusting = ssl.create_default_context(cafile=SELF_SIGNED)
    async with peer(handler, context) as url:
        # The server tells that it wants a certificate after the client's side of the handshake.
        with pytest.raises(ConnectError, match=r"can't connect to localhost:\d+: "):
            await KvClient(url, ssl=trusting).open()
        trusting.load_cert_chain(SELF_SIGNED)
        async with KvClient(url, ssl=trusting) as client:
            assert await client.count() == 1
