"""Expiry: finds the sessions whose deadline has passed, with a calendar of short buckets.

A session has one entry, in the bucket of the deadline it had when the entry was added. Extending a
session only writes its new deadline, and the entry moves when its bucket is due. So an extension
costs nothing here. The entries of a due bucket are processed one at a time: a bucket of a million
entries is processed in pieces as small as a bucket of ten.

The entry of a session that has ended stays until its bucket is due. So no entry is added further
ahead than `HORIZON_MS`, even if its session lives longer: it moves when it is due.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from ndb_protocol import NO_TOKEN

BUCKET_MS = 16
"""The time a bucket spans. At 100,000 expiries a second it holds 1,600 entries."""

HORIZON_MS = 600_000
"""How far ahead entries are added. The time varies by token, so that entries of sessions that were
created at once are not due at once again."""


class Deadlines:
    """Tokens, ordered by the deadlines of their sessions.

    Args:
        deadline_of: returns the current deadline in ms of a token's session; None if the session
            has ended or does not expire.
    """

    def __init__(self, deadline_of: Callable[[int], int | None]) -> None:
        self._deadline_of = deadline_of
        # Tokens of `add_all` that have no entry yet.
        self._to_enter: list[int] = []
        self._buckets: dict[int, list[int]] = {}
        # A heap.
        self._bucket_numbers: list[int] = []
        # The due bucket that is being processed, and tokens that were added again meanwhile.
        self._open_bucket: list[int] = []
        self._open_number = -1
        self._re_added: set[int] = set()
        # A heap of entries that belong into that bucket or an earlier one, but came too late.
        self._late: list[tuple[int, int]] = []

    def add(self, token: int, deadline: int, now: int) -> None:
        """Add an entry for `token`, whose session expires at `deadline` ms."""
        if self._open_bucket:
            self._re_added.add(token)
        horizon = now + HORIZON_MS - token % (HORIZON_MS // 2)
        number = min(deadline, horizon) // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.append(token)
        elif number > self._open_number:
            self._buckets[number] = [token]
            heappush(self._bucket_numbers, number)
        else:
            heappush(self._late, (deadline, token))

    def add_all(self, tokens: list[int]) -> None:
        """Add entries for `tokens` later: each call of `pop` adds one, until all are added."""
        self._to_enter += tokens

    def pop(self, now: int) -> int | None:
        """Remove the next entry that is due; add it again if its session's deadline has moved.

        Returns:
            The token of a session that expires now; `NO_TOKEN` if the entry's session has ended or
            lives on; None if no entry is due.
        """
        if self._to_enter:
            added = self._to_enter.pop()
            deadline = self._deadline_of(added)
            if deadline is not None:
                self.add(added, deadline, now)
            return NO_TOKEN
        token = self._next(now)
        if token is None:
            return None
        deadline = self._deadline_of(token)
        if deadline is None:
            return NO_TOKEN
        if deadline > now or deadline // BUCKET_MS > self._open_number:
            # A session expires only in its deadline's bucket, where a second entry is detected.
            self.add(token, deadline, now)
            return NO_TOKEN
        return token

    def _next(self, now: int) -> int | None:
        if self._late and self._late[0][0] <= now:
            return heappop(self._late)[1]
        if not self._open_bucket:
            if not self._bucket_numbers or self._bucket_numbers[0] * BUCKET_MS > now:
                return None
            self._open_number = heappop(self._bucket_numbers)
            self._open_bucket = self._buckets.pop(self._open_number)
            self._re_added.clear()
        token = self._open_bucket.pop()
        # A session that ended and was loaded again has two entries: only the later one counts.
        return NO_TOKEN if token in self._re_added else token
