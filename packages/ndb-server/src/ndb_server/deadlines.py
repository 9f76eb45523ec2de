"""Which sessions expire when: a calendar of short buckets.

A session has one entry, in the bucket of the deadline it had when the entry was made. Extending a
session only writes its new deadline; the entry moves when its bucket comes up. So an extension
costs nothing here, and a bucket is sorted only when its time has come, while it is small.

The entry of a session that ends stays until its bucket comes up. So no entry is made further ahead
than `HORIZON_MS`, however long its session may live: it moves on when it comes up.
"""

from collections.abc import Callable
from heapq import heappop, heappush

BUCKET_MS = 16
"""Deadlines a bucket spans: at 100,000 expiries a second it holds 1,600 entries."""

HORIZON_MS = 600_000
"""How far ahead entries are made. They move on about as often as that, spread by their tokens: many
sessions made at once do not come up at once again."""


class Deadlines:
    """Tokens in the order of their sessions' deadlines.

    Args:
        deadline_of: returns the present deadline of a token's session in ms, None if it has gone
            or does not expire.
    """

    def __init__(self, deadline_of: Callable[[int], int | None]) -> None:
        self._deadline_of = deadline_of
        self._buckets: dict[int, list[int]] = {}
        self._coming: list[int] = []
        # The bucket being worked off, its latest deadline first.
        self._open: list[tuple[int, int]] = []

    def add(self, token: int, deadline: int, now: int) -> None:
        """Enter `token`, whose session expires at `deadline` ms.

        A deadline in the bucket that is being worked off would be found only after it: it lies at
        least a bucket after `now`, as it does while no session lives less than a second.
        """
        horizon = now + HORIZON_MS - token % (HORIZON_MS // 2)
        number = min(deadline, horizon) // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [token]
            heappush(self._coming, number)
        else:
            bucket.append(token)

    def pop_due(self, now: int) -> int | None:
        """Take out and return a token whose deadline is not after `now`; None if there is none."""
        while True:
            while self._open:
                if self._open[-1][0] > now:
                    return None
                _, token = self._open.pop()
                deadline = self._deadline_of(token)
                if deadline is None:
                    continue
                if deadline <= now:
                    return token
                self.add(token, deadline, now)
            if not self._coming or self._coming[0] * BUCKET_MS > now:
                return None
            self._open_next(now)

    def _open_next(self, now: int) -> None:
        number = heappop(self._coming)
        # A token is there twice if its session ended and was loaded again: two entries meet.
        for token in set(self._buckets.pop(number)):
            deadline = self._deadline_of(token)
            if deadline is None:
                continue
            if deadline // BUCKET_MS > number:
                self.add(token, deadline, now)
            else:
                self._open.append((deadline, token))
        self._open.sort(reverse=True)

    def clear(self) -> None:
        """Forget every entry."""
        self._buckets.clear()
        self._coming.clear()
        self._open.clear()
