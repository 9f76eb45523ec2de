"""Who asks for many unknown tokens is answered later, in order, and nobody else is."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest
from ndb_server.access import token_guessing as guesses
from ndb_server.access.token_guessing import TokenThrottle
from ndb_server.engine.batch import Batch
from ndb_server.interfaces import CommitGate, Respond

from tests.support.waiting import BOUND


class Engine:
    """Counts what it is asked for: each message is a number of unknown tokens.

    As a `Dispatcher`, it stops behind one that asks for any.
    """

    unknown_tokens = 0

    hold: CommitGate | None = None

    def respond(
        self, messages: Sequence[bytes], now: int, text_tokens: bool
    ) -> tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]:
        replies: list[bytes] = []
        for message in messages:
            self.unknown_tokens += int(message)
            replies.append(b"reply to " + message)
            if int(message):
                break
        return replies, self.hold


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.engine = Engine()
        self.guesses = TokenThrottle(self.engine, lambda: self.now, lambda: 77)
        self.gone = asyncio.get_running_loop().create_future()

    def client(self, name: str) -> Respond:
        return self.guesses.throttled(name, self.gone, self.engine.respond)


async def test_only_who_asks_for_many_unknown_tokens_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    guessing, honest = bench.client("192.0.2.1"), bench.client("192.0.2.2")
    assert guessing([b"10000"], 0, False) == ([b"reply to 10000"], None)
    (first, last), _ = guessing([b"0", b"500", b"1"], 0, False)
    assert first == b"reply to 0"
    assert not isinstance(last, bytes)
    assert caplog.messages == [
        "192.0.2.1 asks for many unknown tokens; its replies are delayed by 0.5 s"
    ]
    assert bench.guesses.delayed == 1
    # Neither who asks for what is there, nor another client.
    assert guessing([b"0"], 0, False) == ([b"reply to 0"], None)
    assert honest([b"1"], 0, False) == ([b"reply to 1"], None)
    bench.gone.set_result(None)
    assert await last == b"reply to 500"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return for how many seconds replies are held back, one after the other."""
    found: list[float] = []
    real = TokenThrottle._later

    def noted(
        self: TokenThrottle,
        reply: Awaitable[bytes],
        client: str,
        wait: float,
        gone: asyncio.Future[None],
    ) -> Awaitable[bytes]:
        found.append(wait)
        return real(self, reply, client, wait, gone)

    monkeypatch.setattr(TokenThrottle, "_later", noted)
    return found


async def test_the_log_says_once_a_minute_who_asks_for_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    held: list[bytes | Awaitable[bytes]] = []
    for second, names in ((0.0, "aab"), (59.9, "ab"), (60.0, "aa"), (119.9, "a"), (120.0, "b")):
        bench.now = second
        for name in names:
            held += bench.client(name)([b"200000"], 0, False)[0]
    assert [message.partition(" asks ")[0] for message in caplog.messages] == ["a", "b", "a", "b"]
    assert bench.guesses.delayed == len(held) == 9
    bench.guesses.close()
    await asyncio.gather(*map(_awaited, held))


async def test_who_waits_for_one_token_does_not_pay_for_what_others_asked_for(
    waits: list[float],
) -> None:
    bench = Bench()
    guessing, honest = bench.client("192.0.2.1"), bench.client("192.0.2.1")
    [first], _ = guessing([b"40000"], 0, False)
    [second], _ = honest([b"1"], 0, False)
    assert waits == [30, 0.002]
    assert await _awaited(second) == b"reply to 1"
    bench.guesses.close()
    await _awaited(first)


async def test_those_who_wait_share_what_may_be_asked_for(waits: list[float]) -> None:
    bench = Bench()
    [first], _ = bench.client("192.0.2.1")([b"20000"], 0, False)
    clients = [bench.client("192.0.2.1") for _ in range(100)]
    held = [replies for client in clients for replies in client([b"1"], 0, False)[0]]
    assert waits[1:] == [number / 1000 for number in range(2, 102)]
    # However many there are, the rate of all is bounded.
    assert sum(1 / wait for wait in waits[1:]) < 5 * 1000
    bench.guesses.close()
    await asyncio.gather(_awaited(first), *map(_awaited, held))
    assert not bench.guesses._waiting


async def test_sessions_that_expired_now_and_then_slow_nobody() -> None:
    bench = Bench()
    honest = bench.client("192.0.2.1")
    for second in range(1000):
        bench.now = float(second)
        assert honest([b"1000"], 0, False) == ([b"reply to 1000"], None)


async def test_the_reply_comes_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "RATE", 1_000_000)
    bench = Bench()
    [reply], _ = bench.client("192.0.2.1")([b"20000"], 0, False)
    assert not isinstance(reply, bytes)
    assert await asyncio.wait_for(reply, BOUND) == b"reply to 20000"


async def test_a_reply_that_comes_later_anyway_comes_later_still() -> None:
    bench = Bench()

    async def later() -> bytes:
        return b"later"

    def respond(
        messages: Sequence[bytes], now: int, text_tokens: bool
    ) -> tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]:
        bench.engine.respond(messages, now, text_tokens)
        return [later()], None

    [reply], _ = bench.guesses.throttled("192.0.2.1", bench.gone, respond)([b"20000"], 0, False)
    assert not isinstance(reply, bytes)
    bench.guesses.close()
    assert await reply == b"later"


@pytest.mark.parametrize(
    ("done", "expected"), [(True, b"reply to 20000"), (False, b"number 1 at 77")]
)
async def test_a_reply_that_waits_for_a_batch_waits_for_both(done: bool, expected: bytes) -> None:
    bench = Bench()
    batch: Batch[object] = Batch()
    bench.engine.hold = CommitGate(1, batch, lambda number, now: b"number %d at %d" % (number, now))
    (_, reply), hold = bench.client("192.0.2.1")([b"0", b"20000"], 0, False)
    assert hold is bench.engine.hold
    bench.guesses.close()
    coming = asyncio.ensure_future(_awaited(reply))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not coming.done()
    batch.committed = done
    for waiting in batch.waiters:
        waiting.batch_done()
    assert await coming == expected


async def _awaited(reply: bytes | Awaitable[bytes]) -> bytes:
    assert not isinstance(reply, bytes)
    return await reply
