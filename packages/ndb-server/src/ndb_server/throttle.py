"""How long clients have to wait, by what they did before. Pure: the caller brings the time."""

from collections import OrderedDict

REMEMBERED = 10_000
"""How many clients are remembered; then the one is forgotten that was quiet the longest."""


class GrowingDelays:
    """Makes whoever failed wait before the next attempt, each time twice as long.

    Attempts of one client are made one after the other: those made at the same time wait in line.

    Args:
        first: the delay in seconds after one failure.
        longest: the longest delay in seconds.
        forgiven: seconds after the last attempt from which on it is as if there had been none.
    """

    def __init__(self, first: float = 0.1, longest: float = 5, forgiven: float = 600) -> None:
        self._first = first
        self._longest = longest
        self._forgiven = forgiven
        # How often a client has failed, and when its next attempt may be made.
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Return how many seconds from `now` an attempt of `client` has to wait, at the least."""
        _, free_at = self._failures.get(client, (0, now))
        if now - free_at > self._forgiven:
            del self._failures[client]
            return 0
        return max(0, free_at - now)

    def reserve(self, client: str, now: float) -> None:
        """Enter an attempt of `client` that has been told to wait: the next one comes after it."""
        failures, free_at = self._failures.get(client, (0, now))
        if failures:
            self._enter(client, failures, max(now, free_at) + self._delay(failures))

    def failed(self, client: str, now: float) -> None:
        """Enter that an attempt of `client` failed."""
        failures, free_at = self._failures.get(client, (0, now))
        # Beyond this many the delay grows no more.
        failures = min(failures + 1, 64)
        self._enter(client, failures, max(free_at, now + self._delay(failures)))

    def _delay(self, failures: int) -> float:
        return min(self._longest, self._first * 2.0 ** (failures - 1))

    def _enter(self, client: str, failures: int, free_at: float) -> None:
        self._failures[client] = failures, free_at
        self._failures.move_to_end(client)
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)


class Allowance:
    """Something clients may do so often; who does it more has to wait.

    A client may do it `burst` times at once, and `rate` times a second in the long run.

    Args:
        rate: times a second.
        burst: times at once.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        # When all of a client's allowance will be there again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def spend(self, client: str, times: int, now: float) -> float:
        """Enter that `client` did it; return for how many seconds it has to wait for that."""
        full_at = max(now, self._full_at.get(client, now)) + times / self._rate
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > REMEMBERED:
            self._full_at.popitem(last=False)
        return max(0, full_at - now - self._burst / self._rate)
