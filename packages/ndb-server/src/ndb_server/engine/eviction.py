"""The order in which sessions are evicted when memory is full: those that expire first."""

from collections.abc import Callable
from heapq import heappop, heappush

_TOKEN_BITS = 64
_TOKEN = 2**_TOKEN_BITS - 1
_FEW = 64


class Nearest:
    """Tokens by their sessions' deadlines.

    A session has one entry, with the deadline it had when the entry was made. Extending it does
    nothing here: its deadline only moves away, which is seen when the entry comes up. Entries of
    sessions that have ended are thrown out when they are the most, a few with each new entry.

    Args:
        deadline_of: returns the present deadline of a token's session in ms, None if it has gone
            or does not expire.
        count: returns how many sessions there are.
    """

    def __init__(self, deadline_of: Callable[[int], int | None], count: Callable[[], int]) -> None:
        self._deadline_of = deadline_of
        self._count = count
        # A deadline and a token in one integer, which takes half as much as a pair.
        self._heap: list[int] = []
        self._old: list[int] = []

    def add(self, token: int, deadline: int) -> None:
        """Enter `token`, whose session expires at `deadline` ms."""
        heappush(self._heap, deadline << _TOKEN_BITS | token)
        for _ in range(2):
            if self._old:
                # The last of a heap can be taken away; the rest is a heap still.
                self._keep(self._old.pop())
        if not self._old and len(self._heap) > 2 * self._count() + _FEW:
            self._heap, self._old = [], self._heap

    def _keep(self, entry: int) -> None:
        if self._deadline_of(entry & _TOKEN) is not None:
            heappush(self._heap, entry)

    def pop(self) -> int | None:
        """Take out the token of the session that expires next; None if no session expires."""
        while heaps := [heap for heap in (self._heap, self._old) if heap]:
            entry = heappop(min(heaps, key=_first))
            token: int = entry & _TOKEN
            deadline = self._deadline_of(token)
            if deadline is None:
                continue
            if deadline > entry >> _TOKEN_BITS:
                heappush(self._heap, deadline << _TOKEN_BITS | token)
                continue
            return token
        return None


def _first(heap: list[int]) -> int:
    return heap[0]
