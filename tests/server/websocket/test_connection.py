"""Connections on real sockets in the loop of the test, which decides how their bytes are cut."""

import asyncio
import gc
import json
import logging
import socket
import struct
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import pytest
from ndb_protocol.messages import Reply
from ndb_server.access.admission import AdmissionControl, Policy
from ndb_server.dispatch.dispatcher import NOT_TEXT, Dispatcher
from ndb_server.engine.engine import Engine
from ndb_server.http.responses import Refusal
from ndb_server.interfaces import Respond, ThrottledReply
from ndb_server.limits import UNLIMITED
from ndb_server.websocket.connection import (
    MAX_MESSAGE_SIZE,
    Connection,
    text_header,
)
from websockets.frames import Frame, Opcode

from tests.support.event_loop_turns import turns, until
from tests.support.in_process_connections import TIMEOUTS, Peer, connected, dateless, echo, opened
from tests.support.raw_client import Frames, close, frame, handshake, header, said, text
from tests.support.rounds import TORTURE
from tests.support.waiting import BOUND
from tests.support.websocket_exchanges import (
    ANSWERED,
    BROKEN,
    COUNT,
    COUNTED_ONE,
    DONE,
    SET,
    Exchange,
)


async def test_where_not_all_was_run_at_once_the_others_have_their_turn_first() -> None:
    order: list[bytes] = []

    def one_at_a_time(messages: Sequence[bytes], _: int, __: bool) -> tuple[Sequence[bytes], None]:
        order.append(messages[0])
        return messages[:1], None

    async with opened(one_at_a_time) as one, opened(one_at_a_time) as other:
        for name, peer in (("one", one), ("other", other)):
            peer.socket.sendall(b"".join(text(f"{name} {number}") for number in range(50)))
        for name, peer in (("one", one), ("other", other)):
            said = [await peer.said() for _ in range(50)]
            assert said == [f"{name} {number}" for number in range(50)]
    assert {message.split()[0] for message in order[:10]} == {b"one", b"other"}
    assert len(order) == 100


class Clock:
    """The event loop's clock, which stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what was to happen meanwhile happen."""
        self.now += seconds
        await turns()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


def commands() -> Respond:
    """Return what answers with the commands of an empty engine, KV_KEYS a turn of the loop late."""
    engine = Engine()

    async def keys(params: Any, now: int) -> Reply:
        await asyncio.sleep(0)
        return engine.handlers["KV_KEYS"](params, now)

    dispatcher = Dispatcher({**engine.handlers, "KV_KEYS": keys})
    return dispatcher.dispatch


# Bytes cut anywhere

Cuts = Callable[[bytes], Iterator[list[bytes]]]


def whole(data: bytes) -> Iterator[list[bytes]]:
    yield [data]


def at_every_position(data: bytes, step: int = 1) -> Iterator[list[bytes]]:
    for position in range(1, len(data), step):
        yield [data[:position], data[position:]]


def here_and_there(data: bytes) -> Iterator[list[bytes]]:
    return at_every_position(data, step=7)


def byte_by_byte(data: bytes) -> Iterator[list[bytes]]:
    yield [data[position : position + 1] for position in range(len(data))]


CUTS = pytest.mark.parametrize(
    "cuts",
    [whole, here_and_there, byte_by_byte, pytest.param(at_every_position, marks=TORTURE)],
)

LATER = text({"KV_KEYS": {}})
LATER_ANSWERED = '{"KV_KEYS_RSP":{"st":1,"keys":["a"]}}'

WAITING = [
    Exchange(
        "requests behind one that takes a thread",
        SET + LATER + COUNT + LATER + COUNT + close(),
        [DONE, LATER_ANSWERED, COUNTED_ONE, LATER_ANSWERED, COUNTED_ONE, (1000, "")],
    ),
    *(
        exchange._replace(
            name=f"a request that takes a thread, then {exchange.name}",
            sent=exchange.sent.replace(SET, SET + LATER, 1),
            received=[DONE, LATER_ANSWERED, *exchange.received[1:]],
        )
        for exchange in BROKEN
        # A ping may be answered before the request that it stands behind.
        if not any(isinstance(reply, bytes) for reply in exchange.received)
    ),
]


@CUTS
@pytest.mark.parametrize(
    "exchange", [*ANSWERED, *BROKEN, *WAITING], ids=lambda exchange: exchange.name
)
async def test_an_exchange_has_one_outcome_however_its_bytes_are_cut(
    exchange: Exchange, cuts: Cuts
) -> None:
    for pieces in cuts(exchange.sent):
        async with opened(commands()) as peer:
            await peer.send(*pieces)
            assert await peer.said_until_end() == exchange.received, pieces


HANDSHAKES = {
    "frames in the segment of the handshake": handshake() + SET + COUNT + close(),
    "text tokens": handshake("ndb.v1.text") + COUNT + close(),
    "an unknown subprotocol": handshake("chat") + close(),
    "a version that is unknown": handshake(Sec_WebSocket_Version="12"),
    "no key": handshake(Sec_WebSocket_Key=""),
    "a method other than GET": handshake(start="POST / HTTP/1.1") + b"body",
    "a request of plain HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an old version of HTTP": handshake(start="GET / HTTP/1.0"),
    "what is no HTTP": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "a header that is none": b"GET / HTTP/1.1\r\nno header\r\n\r\n",
}


@pytest.mark.parametrize("sent", HANDSHAKES.values(), ids=HANDSHAKES.keys())
async def test_a_handshake_has_one_outcome_however_its_bytes_are_cut(sent: bytes) -> None:
    outcomes = set()
    for cuts in (whole, at_every_position, byte_by_byte):
        for pieces in cuts(sent):
            async with connected(commands()) as peer:
                await peer.send(*pieces)
                outcomes.add(dateless(await peer.rest()))
    assert len(outcomes) == 1


# Messages


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, MAX_MESSAGE_SIZE])
async def test_a_message_of_any_length_up_to_the_limit_is_answered(length: int) -> None:
    message = "m" * length
    async with opened() as peer:
        sending = asyncio.ensure_future(peer.send(text(message)))
        assert await peer.said() == message
        await sending


async def test_a_message_over_the_limit_in_fragments_closes_with_1009() -> None:
    half = bytes(MAX_MESSAGE_SIZE // 2 + 1)
    async with opened() as peer:
        await peer.send(text("before"))
        await peer.send(frame(Opcode.TEXT, half, fin=False))
        await peer.send(frame(Opcode.CONT, half))
        assert await peer.said_until_end() == [
            "before",
            (
                1009,
                "frame with 2097153 bytes after reading 2097153 bytes exceeds limit of "
                "4194304 bytes",
            ),
        ]


async def test_a_message_at_the_limit_in_fragments_is_answered() -> None:
    half = b"h" * (MAX_MESSAGE_SIZE // 2)
    async with opened() as peer:
        await peer.send(frame(Opcode.TEXT, half, fin=False))
        sending = asyncio.ensure_future(peer.send(frame(Opcode.CONT, half)))
        assert await peer.said() == (half + half).decode()
        await sending


async def test_nothing_of_a_message_over_the_limit_is_kept() -> None:
    async with opened() as peer:
        await peer.send(header(0x81, MAX_MESSAGE_SIZE + 1))
        assert await peer.said() == (
            1009,
            "frame with 4194305 bytes exceeds limit of 4194304 bytes",
        )
        await assert_forgets_what_it_reads(peer)


async def assert_forgets_what_it_reads(peer: Peer) -> None:
    piece = bytes(2**20)
    tracemalloc.start()
    try:
        for _ in range(8):
            await peer.send(piece)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(piece)
    finally:
        tracemalloc.stop()


# The opening handshake


@pytest.mark.parametrize(
    ("offered", "selected", "tkn"),
    [
        (None, None, 7),
        ("ndb.v1", "ndb.v1", 7),
        ("ndb.v1.text", "ndb.v1.text", "7"),
        ("chat", None, 7),
        ("chat, ndb.v1.text", "ndb.v1.text", "7"),
        ("ndb.v1.text, ndb.v1", "ndb.v1.text", "7"),
        ("ndb.v1, ndb.v1.text", "ndb.v1", 7),
    ],
)
async def test_the_first_known_subprotocol_that_is_offered_decides_on_the_form_of_tokens(
    offered: str | None, selected: str | None, tkn: int | str
) -> None:
    dispatcher = Dispatcher(Engine(make_token=lambda: 7).handlers)
    async with connected(dispatcher.dispatch) as peer:
        await peer.send(handshake(offered) + text({"SH_NEW": {}}))
        head = (await peer.head()).decode().split("\r\n")
        told = [line for line in head if line.startswith("Sec-WebSocket-Protocol")]
        assert told == ([f"Sec-WebSocket-Protocol: {selected}"] if selected else [])
        message = await peer.said()
        assert isinstance(message, str)
        assert json.loads(message) == {"SH_NEW_RSP": {"st": 1, "tkn": tkn}}


UPGRADE = "this is a WebSocket server: connect with ws: or wss:. "
VERSION = "Sec-WebSocket-Version must be 13 (RFC 6455)"
METHOD = "only GET and HEAD are supported"
MISSING = "is missing or wrong (RFC 6455, section 4.2.1)"
BODY = "an opening handshake must not have a body"
REFUSED = {
    "a request of plain HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 426, UPGRADE),
    "an upgrade to something else": (handshake(Upgrade="h2c"), 426, UPGRADE),
    "no Connection": (handshake(Connection="close"), 400, f"Connection {MISSING}"),
    "a Connection that is none": (handshake(Connection="s3cret="), 400, f"Connection {MISSING}"),
    "a version that is unknown": (handshake(Sec_WebSocket_Version="8"), 426, VERSION),
    "no version": (handshake(Sec_WebSocket_Version=""), 426, VERSION),
    "two versions": (handshake(Sec_WebSocket_Version="13, 8"), 426, VERSION),
    "no key": (handshake(Sec_WebSocket_Key=""), 400, f"Sec-WebSocket-Key {MISSING}"),
    "a key that is none": (
        handshake(Sec_WebSocket_Key="s3cret"), 400, f"Sec-WebSocket-Key {MISSING}",
    ),
    "a subprotocol that is none": (handshake("s3cret="), 400, f"Sec-WebSocket-Protocol {MISSING}"),
    "a body": (handshake(Content_Length="4"), 400, BODY),
    "a body in chunks": (handshake(Transfer_Encoding="chunked"), 400, BODY),
    "a method other than GET": (handshake(start="POST / HTTP/1.1"), 405, METHOD),
    "an old version of HTTP": (handshake(start="GET / HTTP/1.0"), 426, UPGRADE),
    "what is no HTTP": (b"hello\r\n", 400, "this is not an HTTP request (RFC 9112)"),
}  # fmt: skip


@pytest.mark.parametrize(
    "offers", ["WebSocket", "websocket, h2c", "h2c,websocket", "x/1, websocket"]
)
async def test_whatever_else_a_handshake_offers_to_go_on_with_is_ignored(offers: str) -> None:
    # RFC 6455, section 4.2.1: the header contains the value.
    async with connected() as peer:
        await peer.send(handshake(Upgrade=offers))
        head = (await peer.head()).split(b"\r\n")
        assert head[0].startswith(b"HTTP/1.1 101 ")
        assert b"Upgrade: websocket" in head


@pytest.mark.parametrize(("sent", "status", "named"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refused_handshake_is_told_why(sent: bytes, status: int, named: str) -> None:
    async with connected() as peer:
        await peer.send(sent)
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert body.decode().startswith(named)
        lines = head.split(b"\r\n")
        assert (b"Upgrade: websocket" in lines) == (status == 426)
        assert (b"Connection: Upgrade" in lines) == (status == 426)
        assert (b"Sec-WebSocket-Version: 13" in lines) == (named == VERSION)


async def test_nothing_of_what_follows_a_refused_handshake_is_kept() -> None:
    async with connected() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await peer.rest()).startswith(b"HTTP/1.1 426 ")
        await assert_forgets_what_it_reads(peer)


async def test_who_ends_its_side_is_not_kept_for_long_for_a_reply_that_is_held_back(
    clock: Clock,
) -> None:
    coming: list[asyncio.Future[bytes]] = [asyncio.Future() for _ in range(4)]
    left = iter([*map(ThrottledReply, coming[:2]), coming[2], ThrottledReply(coming[3])])

    def later(
        messages: Sequence[bytes], _: int, __: bool
    ) -> tuple[Sequence[bytes | Awaitable[bytes]], None]:
        return [next(left)], None

    async with opened(later) as peer:
        await peer.send(b"".join(map(text, "1234")))
        await clock.advance(TIMEOUTS.write * 10)
        peer.socket.shutdown(socket.SHUT_WR)
        # Each reply has the time anew.
        for number in (0, 1):
            await clock.advance(TIMEOUTS.write - 0.1)
            coming[number].set_result(b"reply")
            assert await peer.said() == "reply"
        # One that takes long for another reason is waited for.
        await clock.advance(TIMEOUTS.write * 10)
        coming[2].set_result(b"reply")
        assert await peer.said() == "reply"
        await clock.advance(TIMEOUTS.write - 0.1)
        assert not peer.connection.closed.done()
        await clock.advance(0.2)
        assert peer.connection.closed.done()


async def test_a_handshake_that_does_not_end_in_time_ends_the_connection(clock: Clock) -> None:
    async with connected() as peer:
        await peer.send(handshake()[:-1])
        await clock.advance(TIMEOUTS.handshake - 0.1)
        assert not peer.connection.closed.done()
        await clock.advance(0.2)
        assert peer.connection.closed.done()


async def test_a_connection_that_is_open_does_not_end_with_the_time_for_handshakes(
    clock: Clock,
) -> None:
    async with opened() as peer:
        await clock.advance(TIMEOUTS.handshake * 10)
        await peer.send(text("still here"))
        assert await peer.said() == "still here"


# Answers that take their time


class Later:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, asyncio.Future[bytes]]] = []

    def __call__(
        self, messages: Sequence[bytes], _: int, __: bool
    ) -> tuple[Sequence[bytes | Awaitable[bytes]], None]:
        replies: list[bytes | Awaitable[bytes]] = []
        for message in messages:
            if not message.startswith(b"later"):
                replies.append(message)
                continue
            answer = asyncio.get_running_loop().create_future()
            self.asked.append((message, answer))
            return [*replies, answer], None
        return replies, None

    def answer(self, answer: bytes | None = None) -> None:
        message, asking = self.asked.pop(0)
        asking.set_result(answer or message)


async def test_pings_are_answered_while_a_request_is() -> None:
    later = Later()
    async with opened(later) as peer:
        await peer.send(text("later") + frame(Opcode.PING, b"1"))
        assert await peer.said() == b"1"
        await peer.send(frame(Opcode.PONG, b"2") + frame(Opcode.PING, b"3"))
        assert await peer.said() == b"3"
        later.answer()
        assert await peer.said() == "later"


async def test_requests_behind_one_that_takes_long_wait_their_turn() -> None:
    later = Later()
    async with opened(later) as peer:
        await peer.send(text("later 1") + text("1") + text("later 2") + text("2") + text("3"))
        assert [message for message, _ in later.asked] == [b"later 1"]
        later.answer()
        assert [await peer.said(), await peer.said()] == ["later 1", "1"]
        assert [message for message, _ in later.asked] == [b"later 2"]
        later.answer()
        assert [await peer.said() for _ in range(3)] == ["later 2", "2", "3"]


async def test_requests_behind_one_that_takes_long_are_not_read_without_end() -> None:
    later = Later()
    async with opened(later) as peer:
        requests = b"".join(text(f"{number:01000}") for number in range(2000))
        sending = asyncio.ensure_future(peer.send(text("later") + requests))
        tracemalloc.start()
        try:
            await until(lambda: not peer.transport.is_reading())
            assert tracemalloc.get_traced_memory()[1] < len(requests) / 2
        finally:
            tracemalloc.stop()
        assert not sending.done()
        later.answer()
        assert await peer.said() == "later"
        for number in range(2000):
            assert await peer.said() == f"{number:01000}"
        await sending


async def test_a_client_that_ends_its_side_gets_every_answer() -> None:
    later = Later()
    async with opened(later) as peer:
        await peer.send(text("1") + text("later") + text("2"))
        peer.socket.shutdown(socket.SHUT_WR)
        assert await peer.said() == "1"
        await turns()
        later.answer()
        assert await peer.said_until_end() == ["later", "2"]


async def test_a_client_that_ends_its_side_without_asking_is_parted_from() -> None:
    async with opened() as peer:
        peer.socket.shutdown(socket.SHUT_WR)
        assert await peer.rest() == b""


async def test_a_client_that_ends_its_side_before_the_handshake_is_parted_from() -> None:
    async with connected() as peer:
        await peer.send(handshake()[:30])
        peer.socket.shutdown(socket.SHUT_WR)
        assert await peer.rest() == b""


@pytest.mark.parametrize(
    "sent",
    [b"", text("later") + text("1"), text("1")[:3]],
    ids=["nothing", "requests", "part of a frame"],
)
async def test_a_client_that_is_gone_takes_nothing_with_it(sent: bytes) -> None:
    later = Later()
    async with opened(later) as peer:
        # Something unread makes a reset of what would be an end.
        await peer.send(text("0") + sent)
        await peer.end()
        for _ in later.asked[:]:
            later.answer()
        await asyncio.sleep(0)


# Clients that do not read


LARGE = "x" * 100_000


async def test_a_client_that_takes_nothing_is_cut_off_after_the_time_to_write(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    control = AdmissionControl(Policy(), UNLIMITED, lambda *_: echo)
    async with opened(admit_client=control.admit_client) as peer:
        sending = asyncio.ensure_future(peer.send(text(LARGE) * 20))
        await until(lambda: not peer.transport.is_reading())
        await clock.advance(TIMEOUTS.write - 0.1)
        assert not peer.connection.closed.done()
        assert control.reached == {}
        await clock.advance(0.2)
        assert peer.connection.closed.done()
        with pytest.raises(ConnectionError):
            await sending
    assert "the client does not read its replies" in caplog.text
    assert control.reached == {"write": 1}


async def test_a_client_that_takes_a_little_at_a_time_loses_nothing(clock: Clock) -> None:
    async with opened() as peer:
        sending = asyncio.ensure_future(peer.send(text(LARGE) * 20))
        await until(lambda: not peer.transport.is_reading())
        frames = Frames()
        received: list[Frame] = []
        while len(received) < 20:
            received += frames.feed(await peer.receive())
            await clock.advance(TIMEOUTS.write - 0.1)
        assert [said(frame) for frame in received] == [LARGE] * 20
        await sending


async def test_an_answer_written_meanwhile_does_not_hide_that_a_client_reads(clock: Clock) -> None:
    later = Later()
    async with opened(later) as peer:
        peer.let_little_be_sent()
        await peer.send(text(LARGE) + text(LARGE) + text("later"))
        later.answer(b"y" * 2**20)
        await turns()
        frames = Frames()
        received = frames.feed(await peer.receive())
        await clock.advance(TIMEOUTS.write + 0.1)
        assert not peer.connection.closed.done()
        while len(received) < 3:
            received += frames.feed(await peer.receive())
        assert [said(frame) for frame in received] == [LARGE, LARGE, "y" * 2**20]


async def test_a_client_that_does_not_read_is_not_pinged(clock: Clock) -> None:
    async with opened() as peer:
        sending = asyncio.ensure_future(peer.send(text(LARGE) * 20))
        await until(lambda: not peer.transport.is_reading())
        for _ in range(5):
            peer.connection.check_alive()
        for _ in range(20):
            assert await peer.said() == LARGE
        await sending


# Keepalive


PING = (Opcode.PING, "")


async def test_a_silent_client_is_pinged_and_then_parted_from() -> None:
    async with opened() as peer:
        for _ in range(3):
            peer.connection.check_alive()
        assert await peer.said_until_end() == [PING, (1011, "keepalive ping timeout")]


@pytest.mark.parametrize(
    "sign", [frame(Opcode.PONG), text("1"), text("1")[:1]], ids=["pong", "request", "byte"]
)
async def test_any_sign_of_life_lets_a_client_stay(sign: bytes) -> None:
    async with opened() as peer:
        for _ in range(2):
            peer.connection.check_alive()
        assert await peer.said() == PING
        await peer.send(sign)
        for _ in range(2):
            peer.connection.check_alive()
        await peer.send(text("1")[len(sign) :] if sign == text("1")[:1] else text("1"))
        assert PING in [await peer.said(), await peer.said()]


async def test_a_client_in_its_handshake_is_not_pinged() -> None:
    async with connected() as peer:
        await peer.send(handshake()[:30])
        for _ in range(5):
            peer.connection.check_alive()
        await peer.send(handshake()[30:])
        assert (await peer.head()).startswith(b"HTTP/1.1 101 ")


async def test_a_client_that_waits_for_an_answer_is_not_taken_for_dead() -> None:
    later = Later()
    async with opened(later) as peer:
        # So much stands behind that nothing more is read, pongs neither.
        behind = text(LARGE)
        sending = asyncio.ensure_future(peer.send(text("later") + behind * 5))
        await until(lambda: not peer.transport.is_reading())
        for _ in range(5):
            peer.connection.check_alive()
        later.answer()
        assert await peer.said() == "later"
        for _ in range(5):
            assert await peer.said() == LARGE
        await sending


# Closing


async def test_a_client_that_does_not_end_the_connection_is_cut_off(clock: Clock) -> None:
    async with opened() as peer:
        await peer.send(close())
        assert await peer.said_until_end() == [(1000, "")]
        await clock.advance(TIMEOUTS.close - 0.1)
        assert not peer.connection.closed.done()
        await clock.advance(0.2)
        assert peer.connection.closed.done()


async def test_a_client_that_has_ended_its_side_and_does_not_read_is_cut_off(clock: Clock) -> None:
    async with opened() as peer:
        peer.let_little_be_sent()
        await peer.send(text(LARGE[:50_000]))
        peer.socket.shutdown(socket.SHUT_WR)
        await turns()
        await clock.advance(TIMEOUTS.close - 0.1)
        assert not peer.connection.closed.done()
        await clock.advance(0.2)
        assert peer.connection.closed.done()


async def test_shutting_down_closes_with_1001_and_waits_for_the_client() -> None:
    async with opened() as peer:
        await peer.send(text("1"))
        ending = asyncio.ensure_future(peer.connection.shut_down())
        assert await peer.said() == "1"
        assert await peer.said() == (1001, "server is shutting down")
        assert not ending.done()
        await peer.send(text("too late") + close(1001))
        assert await peer.rest() == b""
        await peer.end()
        await ending


async def test_shutting_down_waits_for_every_answer_that_takes_long() -> None:
    later = Later()
    async with opened(later) as peer:
        await peer.send(text("later 1") + text("1") + text("later 2") + text("2"))
        ending = asyncio.ensure_future(peer.connection.shut_down())
        await turns()
        later.answer()
        await turns()
        later.answer()
        expected = ["later 1", "1", "later 2", "2", (1001, "server is shutting down")]
        assert [await peer.said() for _ in range(5)] == expected
        await peer.end()
        await ending


async def test_shutting_down_answers_what_a_slow_client_has_asked_for() -> None:
    def respond(messages: Sequence[bytes], _: int, __: bool) -> tuple[Sequence[bytes], None]:
        # Not to all of them at once.
        return [message * 100_000 for message in messages[:3]], None

    async with opened(respond) as peer:
        numbers = "0123456789"
        await peer.send(b"".join(text(number) for number in numbers))
        ending = asyncio.ensure_future(peer.connection.shut_down())
        await turns()
        for number in numbers:
            assert await peer.said() == number * 100_000
        assert await peer.said() == (1001, "server is shutting down")
        await peer.end()
        await ending


async def test_shutting_down_reads_no_more_requests() -> None:
    later = Later()
    async with opened(later) as peer:
        await peer.send(text("later"))
        ending = asyncio.ensure_future(peer.connection.shut_down())
        await turns()
        peer.socket.send(text("too late"))
        await turns()
        later.answer()
        await turns()
        assert [await peer.said(), await peer.said()] == [
            "later",
            (1001, "server is shutting down"),
        ]
        await peer.send(close(1001))
        assert await peer.rest() == b""
        await peer.end()
        await ending


async def test_shutting_down_ends_a_handshake() -> None:
    async with connected() as peer:
        await peer.send(handshake()[:30])
        await peer.connection.shut_down()


async def test_shutting_down_cuts_off_a_client_that_does_not_answer_the_close_frame(
    clock: Clock,
) -> None:
    async with opened() as peer:
        ending = asyncio.ensure_future(peer.connection.shut_down())
        assert await peer.said() == (1001, "server is shutting down")
        await clock.advance(TIMEOUTS.close + 0.1)
        assert ending.done()


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_a_text_frame_is_what_the_authority_makes_of_it(length: int) -> None:
    payload = b"x" * length
    assert text_header(length) + payload == Frame(Opcode.TEXT, payload).serialize(mask=False)


class Hasty(Connection):
    """A connection whose client is gone in the moment in which it has the answer."""

    client: socket.socket

    def _write(self, chunks: list[bytes]) -> None:
        super()._write(chunks)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


async def test_a_client_that_is_gone_before_the_server_ends_its_side_is_no_error() -> None:
    loop = asyncio.get_running_loop()
    troubles: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    met: list[Hasty] = []

    def meet() -> Hasty:
        met.append(Hasty(unheard, lambda: 0, NOT_TEXT, set(), TIMEOUTS, answer_http=refused))
        met[0].client = client
        return met[0]

    server = await loop.create_server(meet, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.send(handshake())
        await until(lambda: bool(met))
        async with asyncio.timeout(BOUND):
            await met[0].closed
    server.close()
    await turns(2)
    del met[:]
    gc.collect()
    assert troubles == []


def refused(*_: object) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, "role", "not you")


def unheard(messages: Sequence[bytes], _: int, __: bool) -> tuple[list[bytes], None]:
    raise AssertionError(messages)
