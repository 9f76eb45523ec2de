"""Delays the replies to clients that ask for many unknown tokens.

With a million sessions, one guess in 2⁴⁴ finds a token. The delay keeps guessing infeasible, even
on a fast machine. Clients whose sessions have expired don't notice it. If another client guesses
from the same address, such as behind the same NAT, the waiting clients share the allowed rate
equally, regardless of how much each has asked for before.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from ..gates import finished
from ..interfaces import CommitGate, Respond, ThrottledReply, TokenCounter
from .rate_limits import LogThrottle, RateLimiter

logger = logging.getLogger("ndb_server.token_guessing")

RATE = 1000
"""Unknown tokens that a client may ask for each second in the long run."""

BURST = 10_000
"""And how many it may ask for at once."""

LOG_INTERVAL = 60
"""Seconds until the log says again of the same client that it waits."""


class TokenThrottle:
    """Watches what clients ask for.

    Args:
        counter: where unknown tokens are counted.
        clock: returns the time in seconds.
        now: returns the time in ms, for what is answered anew.

    Attributes:
        delayed: how many replies were held back.
    """

    def __init__(
        self, counter: TokenCounter, clock: Callable[[], float], now: Callable[[], int]
    ) -> None:
        self._counter = counter
        self._clock = clock
        self._now = now
        self._limiter = RateLimiter(RATE, BURST)
        self._log_throttle = LogThrottle(LOG_INTERVAL)
        # How many replies to each client are held back now.
        self._waiting: Counter[str] = Counter()
        self._over = asyncio.get_running_loop().create_future()
        self.delayed = 0

    def close(self) -> None:
        """Hold nothing back any more."""
        self._over.set_result(None)

    def throttled(self, client: str, gone: asyncio.Future[None], respond: Respond) -> Respond:
        """Return what answers as `respond` does, and later where `client` asks for too many.

        Args:
            client: by what its tokens are counted.
            gone: done once nobody waits for the replies.
            respond: what answers; it stops behind a request that asks for an unknown token.
        """
        counter = self._counter

        def watched(
            messages: Sequence[bytes], now: int, text_tokens: bool
        ) -> tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]:
            before = counter.unknown_tokens
            replies, hold = respond(messages, now, text_tokens)
            if counter.unknown_tokens == before:
                return replies, hold
            asked = counter.unknown_tokens - before
            time = self._clock()
            owed = self._limiter.acquire(client, asked, time)
            if not owed:
                return replies, hold
            wait = min(owed, asked * (self._waiting[client] + 1) / RATE)
            self.delayed += 1
            if self._log_throttle.is_due(client, time):
                logger.warning(
                    "%s asks for many unknown tokens; its replies are delayed by %.1f s",
                    client,
                    wait,
                )
            # The last request is the one that asked. All that follows waits with its reply, so that
            # replies stay in order.
            number = len(replies) - 1
            last = self._held(replies[number], number, hold)
            return [*replies[:number], self._later(last, client, wait, gone)], hold

        return watched

    async def _held(
        self, reply: bytes | Awaitable[bytes], number: int, hold: CommitGate | None
    ) -> bytes:
        """Return the reply of this number, which may come later or have to wait for a batch."""
        if not isinstance(reply, bytes):
            return await reply
        if hold is None or number < hold.first or await finished(hold.batch):
            return reply
        return hold.reply_if_undone(number, self._now())

    def _later(
        self, reply: Awaitable[bytes], client: str, wait: float, gone: asyncio.Future[None]
    ) -> Awaitable[bytes]:
        ends = asyncio.wait([gone, self._over], timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        turn = asyncio.ensure_future(ends)
        self._waiting[client] += 1
        turn.add_done_callback(lambda _: self._stop_counter(client))

        async def later() -> bytes:
            await turn
            return await reply

        return ThrottledReply(later())

    def _stop_counter(self, client: str) -> None:
        self._waiting[client] -= 1
        if not self._waiting[client]:
            del self._waiting[client]
