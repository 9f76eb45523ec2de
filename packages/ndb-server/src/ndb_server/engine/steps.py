"""Counts the work that requests do on values, so that no request can monopolize the server.

A short JSONPath can need more time or memory than there is: ``$..*..*..*``, or a filter that visits
all nodes for each node. So everything that is done for a request takes one or more of its steps. A
step usually takes half a microsecond, and at most one and a half. Reading a value takes steps for
its length, and for its arrays, objects, members and fractions.
"""

from ndb_protocol import Status

from ..errors import RefusedError


class Steps:
    """Counts the steps of one request after the other.

    Args:
        most: the most steps that each request may take; 0 for any number.

    Attributes:
        exceeded: how many requests would have taken more.
        spent: how many were taken by the requests that have ended.
    """

    __slots__ = ("_left", "_most", "exceeded", "spent")

    def __init__(self, most: int = 0) -> None:
        self._most = most or 2**62
        self._left = self._most
        self.exceeded = 0
        self.spent = 0

    def end(self) -> None:
        """End a request: the next one has all of them again."""
        self.spent += self._most - self._left
        self._left = self._most

    def take(self, count: int = 1) -> None:
        """Take `count` steps.

        Raises:
            RefusedError: there are no more (status 201).
        """
        self._left -= count
        if self._left < 0:
            raise self.refusal()

    def refusal(self) -> RefusedError:
        """Return the refusal of what would take too many."""
        self.exceeded += 1
        return RefusedError(
            Status.LIMIT_EXCEEDED,
            f"it takes more than {self._most} steps; select less with 'path' or 'keys', or store "
            "smaller values",
        )
