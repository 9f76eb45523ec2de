"""How long clients have to wait, by what they did before. Pure: the caller brings the time."""

from collections import OrderedDict

REMEMBERED = 10_000
"""How many clients are remembered; then the one is forgotten that was quiet the longest."""


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
