"""What was measured, as figures. Pure: no I/O, no clock."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

QUANTILES = {"p50": 500, "p99": 990, "p99.9": 999}
"""The quantiles of the latencies that are reported, in thousandths."""

_BITS = 7


class Histogram:
    """Durations, counted in log-linear buckets as in an HDR histogram.

    Each power of two is divided into 128 buckets of equal width, so that a value is told to within
    0.4 %, however large, and memory depends on the range of the values and not on their number.
    Integers below 256 are exact.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def record(self, value: int) -> None:
        """Count `value`, a non-negative integer."""
        shift = value.bit_length() - _BITS - 1
        if shift > 0:
            self._counts[(shift << _BITS) + (value >> shift)] += 1
        else:
            self._counts[value] += 1

    def add(self, other: "Histogram") -> None:
        """Count what `other` has counted."""
        self._counts.update(other._counts)

    def __len__(self) -> int:
        return self._counts.total()

    def quantile(self, thousandths: int) -> int | None:
        """Return a value that so many thousandths of all values don't exceed; None if empty."""
        # The nearest rank: 1 is the least value, and 999 of 1000 values leave one above.
        rank = -(-len(self) * thousandths // 1000)
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return _middle(bucket)
        return None


def _middle(bucket: int) -> int:
    shift = max((bucket >> _BITS) - 1, 0)
    least = (bucket - (shift << _BITS)) << shift
    return least + (1 << shift) // 2


@dataclass(slots=True)
class Tally:
    """What became of the requests of one kind.

    Attributes:
        latencies: how long each took that was answered and not refused, in nanoseconds.
        errors: how many failed, by the name of the status or the exception.
    """

    latencies: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return the figures of a measurement that took so long, as `ndb bench --json` has them."""
        values = {name: self.latencies.quantile(part) for name, part in QUANTILES.items()}
        return {
            "requests": len(self.latencies),
            "throughput": round(len(self.latencies) / seconds, 1),
            "latencyMs": {
                name: None if value is None else round(value / 1e6, 4)
                for name, value in values.items()
            },
            "errors": dict(self.errors),
        }


def total(tallies: Iterable[Tally]) -> Tally:
    """Return what became of all requests together."""
    everything = Tally()
    for tally in tallies:
        everything.latencies.add(tally.latencies)
        everything.errors.update(tally.errors)
    return everything
