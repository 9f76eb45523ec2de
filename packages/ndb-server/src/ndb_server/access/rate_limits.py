"""Rate limiting: how long a client has to wait. Pure: the caller passes the time."""

from collections import OrderedDict

MAX_CLIENTS = 10_000
"""How many clients are remembered; then the one is forgotten that was quiet the longest."""


def _remember(times: OrderedDict[str, float], client: str, time: float) -> None:
    times[client] = time
    times.move_to_end(client)
    if len(times) > MAX_CLIENTS:
        times.popitem(last=False)


class LogThrottle:
    """Something that is said of a client once in a while, however often there is cause to.

    Args:
        interval: seconds until it is said again.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._logged_at: OrderedDict[str, float] = OrderedDict()

    def is_due(self, client: str, now: float) -> bool:
        """Tell whether to say it now, which is taken to be done then."""
        logged_at = self._logged_at.get(client)
        if logged_at is not None and now - logged_at < self._interval:
            return False
        _remember(self._logged_at, client, now)
        return True


class RateLimiter:
    """The allowed rate of an action. A client that exceeds it has to wait.

    A client may act `burst` times at once, and `rate` times a second in the long run.

    Args:
        rate: times a second.
        burst: times at once.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        # When all of a client's limiter will be there again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def acquire(self, client: str, times: int, now: float) -> float:
        """Enter that `client` did it; return for how many seconds it has to wait for that."""
        full_at = max(now, self._full_at.get(client, now)) + times / self._rate
        _remember(self._full_at, client, full_at)
        return max(0, full_at - now - self._burst / self._rate)
