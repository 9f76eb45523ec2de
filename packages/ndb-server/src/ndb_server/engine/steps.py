"""Counts the work that requests do on values, so that no request can monopolize the server.

A short JSONPath can need more time or memory than there is: ``$..*..*..*``, or a filter that visits
all nodes for each node. So all work on values takes steps, and the steps of a request are limited.
A step usually lasts half a microsecond, and at most one and a half. To parse a value takes steps
for its length, and for its arrays, objects, members and fractions.
"""

from ndb_protocol import Status

from ..errors import RefusedError


class Steps:
    """Counts the steps of a request, and limits them.

    Args:
        limit: the most steps that a request may take; 0 means no limit.

    Attributes:
        exceeded: how many requests were refused because they needed more.
        total: how many steps all requests took that have ended.
    """

    __slots__ = ("_limit", "_remaining", "exceeded", "total")

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit or 2**62
        self._remaining = self._limit
        self.exceeded = 0
        self.total = 0

    def end_request(self) -> None:
        """End a request; the next one may take all steps again."""
        self.total += self._limit - self._remaining
        self._remaining = self._limit

    def take(self, count: int = 1) -> None:
        """Take `count` steps.

        Raises:
            RefusedError: the request needs more steps than it may take (status 201).
        """
        self._remaining -= count
        if self._remaining < 0:
            raise self.refusal()

    def refusal(self) -> RefusedError:
        """Count a request that needs too many steps, and return the error for it."""
        self.exceeded += 1
        return RefusedError(
            Status.LIMIT_EXCEEDED,
            f"it takes more than {self._limit} steps; select less with 'path' or 'keys', or store "
            "smaller values",
        )
