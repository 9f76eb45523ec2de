"""Which sessions expire when: a calendar of short buckets.

A session has one entry, in the bucket of the deadline it had when the entry was made. Extending a
session only writes its new deadline; the entry moves when its bucket comes up. So an extension
costs nothing here, and what happens to an entry is found out when its turn has come, one at a time:
a bucket of a million is worked off in as small pieces as one of ten.

The entry of a session that ends stays until its bucket comes up. So no entry is made further ahead
than `HORIZON_MS`, however long its session may live: it moves on when it comes up.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from ndb_protocol import NO_TOKEN

BUCKET_MS = 16
"""Deadlines a bucket spans: at 100,000 expiries a second it holds 1,600 entries."""

HORIZON_MS = 600_000
"""How far ahead entries are made. They move on about as often as that, spread by their tokens: many
sessions made at once do not come up at once again."""


class Deadlines:
    """Tokens in the order of their sessions' deadlines, bucket by bucket.

    Args:
        deadline_of: returns the present deadline of a token's session in ms, None if it has gone
            or does not expire.
    """

    def __init__(self, deadline_of: Callable[[int], int | None]) -> None:
        self._deadline_of = deadline_of
        # Those that came together, and are still to be entered.
        self._coming_in: list[int] = []
        self._buckets: dict[int, list[int]] = {}
        self._coming: list[int] = []
        # The bucket being worked off, and who got another entry meanwhile.
        self._open: list[int] = []
        self._opened = -1
        self._moved: set[int] = set()
        # Entries of that bucket and those before whose deadline is still to come, a heap.
        self._soon: list[tuple[int, int]] = []

    def add(self, token: int, deadline: int, now: int) -> None:
        """Enter `token`, whose session expires at `deadline` ms."""
        if self._open:
            self._moved.add(token)
        horizon = now + HORIZON_MS - token % (HORIZON_MS // 2)
        number = min(deadline, horizon) // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.append(token)
        elif number > self._opened:
            self._buckets[number] = [token]
            heappush(self._coming, number)
        else:
            heappush(self._soon, (deadline, token))

    def add_all(self, tokens: list[int]) -> None:
        """Enter `tokens` bit by bit: each call of `pop` enters one, until all are entered."""
        self._coming_in += tokens

    def pop(self, now: int) -> int | None:
        """Take out the next entry that has come up, and enter it anew if its session lives on.

        Returns:
            A token whose deadline is not after `now`; `NO_TOKEN` if the entry's session has gone or
            lives on; None if no entry has come up.
        """
        if self._coming_in:
            entered = self._coming_in.pop()
            deadline = self._deadline_of(entered)
            if deadline is not None:
                self.add(entered, deadline, now)
            return NO_TOKEN
        token = self._next(now)
        if token is None:
            return None
        deadline = self._deadline_of(token)
        if deadline is None:
            return NO_TOKEN
        if deadline > now or deadline // BUCKET_MS > self._opened:
            # In a late bucket, entries of one token meet; they would not if it were due here.
            self.add(token, deadline, now)
            return NO_TOKEN
        return token

    def _next(self, now: int) -> int | None:
        if self._soon and self._soon[0][0] <= now:
            return heappop(self._soon)[1]
        if not self._open:
            if not self._coming or self._coming[0] * BUCKET_MS > now:
                return None
            self._opened = heappop(self._coming)
            self._open = self._buckets.pop(self._opened)
            self._moved.clear()
        token = self._open.pop()
        # A token is there twice if its session ended and was loaded again: two entries meet.
        return NO_TOKEN if token in self._moved else token
