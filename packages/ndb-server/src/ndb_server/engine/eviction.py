"""Eviction: when memory is full, the sessions that expire first make room."""

from collections.abc import Callable
from heapq import heappop, heappush

_TOKEN_BITS = 64
_TOKEN_MASK = 2**_TOKEN_BITS - 1
_MIN_STALE = 64


class EvictionQueue:
    """A priority queue of tokens, ordered by the deadlines of their sessions.

    A session has one entry, with the deadline it had when the entry was added. Extending a session
    does not change its entry: deadlines only move later, and `pop` adds such an entry again.
    Entries of ended sessions are stale. When most entries are stale, the live ones are moved to a
    new heap, a few with each new entry.

    Args:
        deadline_of: returns the current deadline in ms of a token's session; None if the session
            has ended or does not expire.
        count: returns how many sessions there are.
    """

    def __init__(self, deadline_of: Callable[[int], int | None], count: Callable[[], int]) -> None:
        self._deadline_of = deadline_of
        self._count = count
        # An entry is a deadline and a token in one integer, which takes half the memory of a pair.
        self._heap: list[int] = []
        self._old_heap: list[int] = []

    def add(self, token: int, deadline: int) -> None:
        """Add `token`, whose session expires at `deadline` ms."""
        heappush(self._heap, deadline << _TOKEN_BITS | token)
        for _ in range(2):
            if self._old_heap:
                # Without its last entry, a heap is still a heap.
                self._re_add(self._old_heap.pop())
        if not self._old_heap and len(self._heap) > 2 * self._count() + _MIN_STALE:
            self._heap, self._old_heap = [], self._heap

    def _re_add(self, entry: int) -> None:
        if self._deadline_of(entry & _TOKEN_MASK) is not None:
            heappush(self._heap, entry)

    def pop(self) -> int | None:
        """Remove and return the token of the session that expires next; None if none expires."""
        while heaps := [heap for heap in (self._heap, self._old_heap) if heap]:
            entry = heappop(min(heaps, key=_first))
            token: int = entry & _TOKEN_MASK
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
