"""The server's time line.

Deadlines are on the server's own time line: milliseconds since the epoch, as the wall clock showed
them when the store was created. It advances with the machine's monotonic clock, including time in
suspension. Setting the wall clock while the server runs does not change it. An anchor, which is one
moment on both clocks, is on disk. From it, a restarted server calculates how much time has passed.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

# Linux stops its monotonic clock while the machine is suspended. That of macOS goes on.
_UNSTOPPED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_DRIFT = 100
"""Milliseconds that the wall clock may move against the time line before there is a new anchor."""


class Anchor(NamedTuple):
    """A moment on both clocks, in ms since the epoch: the server's own, and the wall clock."""

    time: int
    wall: int

    @property
    def offset(self) -> int:
        """How far the wall clock is ahead of the time of the server, in ms."""
        return self.wall - self.time


def elapsed_ns() -> int:
    """Return nanoseconds of any beginning that pass while the machine is suspended, too."""
    return time.clock_gettime_ns(_UNSTOPPED)


def wall_ms() -> int:
    """Return what the wall clock says, in ms since the epoch."""
    return time.time_ns() // 1_000_000


class Clock:
    """The time line: milliseconds that never go back.

    Args:
        anchor: a moment on both clocks; without one the time line begins at the wall clock's time.
        elapsed: returns nanoseconds of a clock that is never set.
        wall: returns the time of the wall clock, in ms since the epoch.

    Attributes:
        anchor: a moment on both clocks, which must be stored on disk.
    """

    def __init__(
        self,
        anchor: Anchor | None = None,
        elapsed: Callable[[], int] = elapsed_ns,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        self._elapsed = elapsed
        self._wall = wall
        now = wall()
        # A wall clock that was put back while the server was down must not give time back.
        begin = now if anchor is None else anchor.time + max(0, now - anchor.wall)
        self._begin_ns = begin * 1_000_000 - elapsed()
        self.anchor = Anchor(begin, now)

    def __call__(self) -> int:
        return (self._elapsed() + self._begin_ns) // 1_000_000

    def renew(self) -> Anchor:
        """Take a new anchor, this moment, and return it.

        What is read of both clocks varies by a millisecond, and deadlines must not vary with it.
        """
        if not self.follow():
            now = self()
            self.anchor = Anchor(now, now + self.anchor.offset)
        return self.anchor

    def follow(self) -> int:
        """Take a new anchor if the wall clock has moved against the time line.

        Returns:
            By how many ms it has moved at least: 0 if the anchor is still right.
        """
        before, wall, after = self(), self._wall(), self()
        # The process may have stood still in between: the wall clock was read between the two.
        least, most = (wall - at - self.anchor.offset for at in (after, before))
        moved = least if least > 0 else min(most, 0)
        if abs(moved) < _DRIFT:
            return 0
        self.anchor = Anchor(after, after + self.anchor.offset + moved)
        return moved
