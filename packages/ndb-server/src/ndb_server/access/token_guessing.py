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

from ..dispatch.dispatcher import Counting
from ..engine.batch import CommitGate
from ..websocket.connection import HeldBack, Respond
from .rate_limits import Allowance, Reminder

logger = logging.getLogger("ndb_server.guesses")

PER_SECOND = 1000
"""Unknown tokens that a client may ask for each second in the long run."""

AT_ONCE = 10_000
"""And how many it may ask for at once."""

LOGGED_EVERY = 60
"""Seconds until the log says again of the same client that it waits."""


class Guesses:
    """Watches what clients ask for.

    Args:
        counting: where unknown tokens are counted.
        clock: returns the time in seconds.
        now: returns the time in ms, for what is answered anew.

    Attributes:
        slowed: how many replies were held back.
    """

    def __init__(
        self, counting: Counting, clock: Callable[[], float], now: Callable[[], int]
    ) -> None:
        self._counting = counting
        self._clock = clock
        self._now = now
        self._allowance = Allowance(PER_SECOND, AT_ONCE)
        self._reminder = Reminder(LOGGED_EVERY)
        # How many replies to each client are held back now.
        self._waiting: Counter[str] = Counter()
        self._over = asyncio.get_running_loop().create_future()
        self.slowed = 0

    def close(self) -> None:
        """Hold nothing back any more."""
        self._over.set_result(None)

    def slowing(self, client: str, gone: asyncio.Future[None], respond: Respond) -> Respond:
        """Return what answers as `respond` does, and later where `client` asks for too many.

        Args:
            client: by what its tokens are counted.
            gone: done once nobody waits for the replies.
            respond: what answers; it stops behind a request that asks for an unknown token.
        """
        counting = self._counting

        def watched(
            messages: Sequence[bytes], now: int, text_tokens: bool
        ) -> tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]:
            before = counting.unknown_tokens
            replies, hold = respond(messages, now, text_tokens)
            if counting.unknown_tokens == before:
                return replies, hold
            asked = counting.unknown_tokens - before
            time = self._clock()
            owed = self._allowance.spend(client, asked, time)
            if not owed:
                return replies, hold
            wait = min(owed, asked * (self._waiting[client] + 1) / PER_SECOND)
            self.slowed += 1
            if self._reminder.is_due(client, time):
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
        if hold is None or number < hold.first or await hold.batch.wait():
            return reply
        return hold.reply_if_undone(number, self._now())

    def _later(
        self, reply: Awaitable[bytes], client: str, wait: float, gone: asyncio.Future[None]
    ) -> Awaitable[bytes]:
        ends = asyncio.wait([gone, self._over], timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        turn = asyncio.ensure_future(ends)
        self._waiting[client] += 1
        turn.add_done_callback(lambda _: self._stop_counting(client))

        async def later() -> bytes:
            await turn
            return await reply

        return HeldBack(later())

    def _stop_counting(self, client: str) -> None:
        self._waiting[client] -= 1
        if not self._waiting[client]:
            del self._waiting[client]
