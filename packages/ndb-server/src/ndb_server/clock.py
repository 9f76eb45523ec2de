"""The time of the server."""

import time


class Clock:
    """Milliseconds since the epoch that never go back, whatever is done to the system's clock.

    The wall clock is read once; from then on the monotonic clock counts.
    """

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        return (time.monotonic_ns() + self._offset) // 1_000_000
