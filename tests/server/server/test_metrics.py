"""How requests and durations are counted, by a clock that goes on as the test says."""

from collections.abc import Awaitable

from hypothesis import given
from hypothesis import strategies as st
from ndb_protocol.messages import CountReply, Reply
from ndb_server.dispatch.dispatcher import Dispatcher
from ndb_server.server.metrics import Histogram, Metrics, RequestMetrics

BOUNDS = (0.5, 1.0, 4.0)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 0.75, 1.0, 3.0, 4.0, 9.0]), st.integers(1, 5)))
)
def test_a_bucket_has_what_is_at_most_its_bound(observed: list[tuple[float, int]]) -> None:
    histogram = Histogram(BOUNDS)
    for value, times in observed:
        histogram.observe(value, times)
    assert histogram.buckets() == [
        (name, sum(times for value, times in observed if value <= bound))
        for name, bound in zip(("0.5", "1.0", "4.0", "+Inf"), (*BOUNDS, float("inf")), strict=True)
    ]
    assert histogram.count == sum(times for _, times in observed)
    assert histogram.sum == sum(value * times for value, times in observed)


class Store:
    """Answers two commands, of which one takes a millisecond, and one two, later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.requests = RequestMetrics(lambda: 3, list, lambda: self.now)
        dispatcher = Dispatcher(
            {"KV_COUNT": self._count, "KV_KEYS": self._keys}, note=self.requests.note
        )
        self.respond = self.requests.counting(dispatcher)
        metrics = Metrics()
        metrics.register(self.requests)
        self._metrics = metrics

    def _count(self, _: object, __: int) -> Reply:
        self.now += 0.001
        return CountReply(cnt=0)

    async def _keys(self, _: object, __: int) -> Reply:
        self.now += 0.002
        return Reply()

    def lines(self, beginning: str) -> list[str]:
        """Return what is on the page."""
        page, content_type = self._metrics.page("")
        assert content_type.startswith("text/plain")
        return [line for line in page.decode().splitlines() if line.startswith(beginning)]


COUNT = b'{"KV_COUNT":{}}'
KEYS = b'{"KV_KEYS":{}}'


async def test_each_of_a_read_has_taken_as_long_as_all_of_it() -> None:
    store = Store()
    assert len(store.respond([COUNT] * 4, 0, False)[0]) == 4
    assert store.lines("ndb_request_duration_seconds_sum") == [
        'ndb_request_duration_seconds_sum{command="KV_COUNT"} 0.016'
    ]
    assert 'ndb_request_duration_seconds_bucket{command="KV_COUNT",le="0.0025"} 0.0' in (
        store.lines("ndb_request_duration_seconds_bucket")
    )
    assert 'ndb_request_duration_seconds_bucket{command="KV_COUNT",le="0.005"} 4.0' in (
        store.lines("ndb_request_duration_seconds_bucket")
    )


async def test_what_is_answered_later_is_counted_then() -> None:
    store = Store()
    [_, coming], _ = store.respond([COUNT, KEYS], 0, False)
    assert isinstance(coming, Awaitable)
    before = ['ndb_requests_total{command="KV_COUNT",status="1"} 1.0']
    binary = ['ndb_requests_total{command="ERR",status="2"} 3.0']
    assert store.lines("ndb_requests_total") == before + binary
    await coming
    after = ['ndb_requests_total{command="KV_KEYS",status="1"} 1.0']
    assert store.lines("ndb_requests_total") == before + after + binary
    assert store.lines('ndb_request_duration_seconds_sum{command="KV_KEYS"') == [
        'ndb_request_duration_seconds_sum{command="KV_KEYS"} 0.003'
    ]
