"""The work that requests do on values, counted, so that none can keep the server to itself.

A short JSONPath can ask for more than there is time or memory for: ``$..*..*..*``, or a filter that
looks at everything for each of everything. So each thing done for a request is a step or more of
those that it has. A step takes half a microsecond as a rule, and one and a half at the most. To
read a value takes steps for its length, and for the arrays, objects, members and fractions it has.
"""

from ndb_protocol import Status

from .errors import RefusedError


class Steps:
    """The steps that one request after the other may take.

    Args:
        most: how many each may take; 0 for any number.

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
            f"it takes more than {self._most} steps; let 'path' or 'keys' name less, or keep "
            "smaller values",
        )
