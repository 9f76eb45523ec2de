"""Who has to wait for how long."""

import pytest
from ndb_server.access import rate_limits as throttle
from ndb_server.access.rate_limits import LogThrottle, RateLimiter


def test_who_was_quiet_the_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_CLIENTS", 2)
    limiter = RateLimiter(rate=1, burst=0)
    for client in "abc":
        limiter.acquire(client, 5, 0)
    assert limiter.acquire("b", 1, 0) == 6
    assert limiter.acquire("a", 1, 0) == 1


def test_of_whom_nothing_was_said_the_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_CLIENTS", 2)
    log_throttle = LogThrottle(interval=60)
    assert [log_throttle.is_due(client, 0) for client in "abbca"] == [True, True, False, True, True]
    assert log_throttle.is_due("a", 59) is False


def test_an_allowance_is_for_a_rate_and_some_at_once() -> None:
    limiter = RateLimiter(rate=10, burst=100)
    assert limiter.acquire("a", 100, 0) == 0
    assert limiter.acquire("a", 1, 0) == pytest.approx(0.1)
    assert limiter.acquire("b", 1, 0) == 0
    # Ten seconds later it is all there again.
    assert limiter.acquire("a", 101, 10.1) == pytest.approx(0.1)


def test_who_asks_now_and_then_never_waits() -> None:
    limiter = RateLimiter(rate=10, burst=100)
    assert all(limiter.acquire("a", 9, second) == 0 for second in range(1000))
