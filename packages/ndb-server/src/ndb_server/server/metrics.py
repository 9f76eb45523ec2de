"""The counters of the server, and the page that Prometheus reads.

Requests are counted in plain numbers. They become metrics only when somebody requests the page, so
the cost of a request is a few additions, regardless of how often the page is read.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import cast

from ndb_protocol import Command
from ndb_protocol.requests import NO_COMMAND
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..dispatch.dispatcher import Dispatcher
from ..interfaces import CommitGate, Respond

_LATENCIES = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
)  # fmt: skip
DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
"""Bounds for how late something is, in seconds."""


SIZES = (1, 4, 16, 64, 256, 1024, 4096)
"""Bounds for how much is in a batch of changes."""


class Histogram:
    """How often something was observed, by how large it was.

    Args:
        bounds: the upper bounds of its buckets, ascending and inclusive. There is one more bucket
            for larger values.
    """

    __slots__ = ("_bounds", "_first", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._first = bounds[0]
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`, `times` times."""
        # Of the time that a request takes, most is within the first bound.
        bucket = bisect_left(self._bounds, value) if value > self._first else 0
        self.counts[bucket] += times
        self.sum += value * times

    def add(self, other: "Histogram") -> None:
        """Count what `other`, of the same bounds, has counted."""
        self.counts = [
            ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.sum += other.sum

    def buckets(self) -> list[tuple[str, float]]:
        """Return the bounds, and how many observations were within each."""
        within = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip([*self._bounds, float("inf")], self.counts, strict=True):
            within += count
            found.append(("+Inf" if bound == float("inf") else str(float(bound)), within))
        return found


class _Outcome(Histogram):
    """How long requests took that were answered with one status.

    Attributes:
        amended: how many came here from another status, less those that went to one: they were to
            be answered so, and it came otherwise.
    """

    __slots__ = ("amended",)

    def __init__(self) -> None:
        super().__init__(_LATENCIES)
        self.amended = 0


class RequestMetrics(Collector):
    """Counts requests and how long each took, by command and status.

    The duration of a request is the time from when the server begins to process the data of a read
    until the reply can be written. The replies to one read are written together, so each of its
    requests counts with the time of all of them.

    A reply may have to wait until a change is durable, and is replaced if that fails. Until then
    the request is not counted as answered, because a counter must not decrease.

    Args:
        binary: returns how many binary messages were answered, which name no command.
        held: returns the notes of requests whose replies wait.
        clock: returns the time in seconds, from any starting point.
    """

    def __init__(
        self,
        binary: Callable[[], int],
        held: Callable[[], Iterable[Histogram]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._binary = binary
        self._held = held
        self._clock = clock
        self._outcomes: defaultdict[tuple[str, int], _Outcome] = defaultdict(_Outcome)

    def note(self, command: Command | None, status: int) -> _Outcome:
        """Return where requests of this kind are counted, for a `Dispatcher` to note."""
        return self._outcomes[command.name if command else NO_COMMAND, int(status)]

    def amend(self, before: _Outcome, after: _Outcome) -> None:
        """Count a request as answered with another status than was noted before.

        How long it took is counted by its command alone, which remains.
        """
        before.amended -= 1
        after.amended += 1

    def counting(self, dispatcher: Dispatcher) -> Respond:
        """Return what answers as `dispatcher` does, and counts what that notes."""
        dispatch, clock, quick = dispatcher.dispatch, self._clock, _LATENCIES[0]

        def respond(
            messages: Sequence[bytes], now: int, text_tokens: bool
        ) -> tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]:
            begin = clock()
            notes: list[Histogram] = []
            replies, hold = dispatch(messages, now, text_tokens, notes)
            seconds = clock() - begin
            times = len(notes)
            if seconds <= quick and (times == 1 or (times and notes.count(notes[0]) == times)):
                # As nearly always: quick, and all of one kind. A call more would show.
                histogram = notes[0]
                histogram.counts[0] += times
                histogram.sum += seconds * times
            else:
                for histogram, times in Counter(notes).items():
                    histogram.observe(seconds, times)
            last = replies[-1]
            if type(last) is not bytes:
                replies[-1] = self._count_later(cast(Awaitable[bytes], last), notes, begin)
            return replies, hold

        return respond

    async def _count_later(
        self, coming: Awaitable[bytes], notes: list[Histogram], begin: float
    ) -> bytes:
        reply = await coming
        notes[-1].observe(self._clock() - begin)
        return reply

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics, for prometheus-client."""
        requests = CounterMetricFamily(
            "ndb_requests", "Requests answered.", labels=["command", "status"]
        )
        latency = HistogramMetricFamily(
            "ndb_request_duration_seconds",
            "Time from the read of requests to their replies.",
            labels=["command"],
        )
        by_command: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_LATENCIES))
        held = Counter(self._held())
        for (name, status), outcome in self._outcomes.items():
            times = outcome.count
            if times:
                by_command[name].add(outcome)
            if answered := times + outcome.amended - held[outcome]:
                requests.add_metric([name, str(status)], answered)
        if binary := self._binary():
            requests.add_metric([NO_COMMAND, "2"], binary)
        for name, histogram in by_command.items():
            latency.add_metric([name], histogram.buckets(), histogram.sum)
        yield requests
        yield latency


class Metrics(Collector):
    """The page of all metrics. Other components add their counters.

    The names are without the prefix ``ndb_`` and, of counters, without the suffix ``_total``.
    """

    def __init__(self) -> None:
        self._read: list[Callable[[], Metric]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(namespace="ndb", registry=self._registry)

    def register(self, collector: Collector) -> None:
        """Add what `collector` yields."""
        self._registry.register(collector)

    def counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a number that only grows, which `read` returns."""
        self._read.append(lambda: CounterMetricFamily(f"ndb_{name}", meaning, value=read()))

    def counters(
        self, name: str, meaning: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Add numbers that only grow, which `read` returns by the values of `label`."""

        def family() -> Metric:
            counted = CounterMetricFamily(f"ndb_{name}", meaning, labels=[label])
            for value, count in read().items():
                counted.add_metric([value], count)
            return counted

        self._read.append(family)

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a number, which `read` returns."""
        self._read.append(lambda: GaugeMetricFamily(f"ndb_{name}", meaning, value=read()))

    def gauges(
        self, name: str, meaning: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Add numbers, which `read` returns by the values of `label`."""

        def family() -> Metric:
            numbers = GaugeMetricFamily(f"ndb_{name}", meaning, labels=[label])
            for value, number in read().items():
                numbers.add_metric([value], number)
            return numbers

        self._read.append(family)

    def histogram(self, name: str, meaning: str, histogram: Histogram) -> None:
        """Add a histogram."""
        self._read.append(
            lambda: HistogramMetricFamily(
                f"ndb_{name}", meaning, buckets=histogram.buckets(), sum_value=histogram.sum
            )
        )

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics, for prometheus-client."""
        return [read() for read in self._read]

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format of Prometheus that an ``Accept`` header asks for.

        Returns:
            The page and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
