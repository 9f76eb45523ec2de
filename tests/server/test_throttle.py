"""Who has to wait for how long."""

import pytest
from ndb_server import throttle
from ndb_server.throttle import Allowance, GrowingDelays


def test_each_failure_doubles_the_delay_up_to_the_longest() -> None:
    delays = GrowingDelays(first=1, longest=10)
    now = 100.0
    waits = []
    for _ in range(6):
        now += delays.wait("a", now)
        delays.failed("a", now)
        waits.append(delays.wait("a", now))
    assert waits == [1, 2, 4, 8, 10, 10]


def test_others_do_not_wait() -> None:
    delays = GrowingDelays()
    delays.failed("a", 0)
    assert delays.wait("b", 0) == 0


def test_attempts_at_the_same_time_wait_in_line() -> None:
    delays = GrowingDelays(first=1, longest=10)
    delays.failed("a", 0)
    waits = []
    for _ in range(3):
        waits.append(delays.wait("a", 0))
        delays.reserve("a", 0)
    assert waits == [1, 2, 3]


def test_who_has_not_failed_reserves_nothing() -> None:
    delays = GrowingDelays()
    delays.reserve("a", 0)
    assert delays.wait("a", 0) == 0


def test_it_is_forgiven_after_a_while() -> None:
    delays = GrowingDelays(first=1, longest=10, forgiven=60)
    for _ in range(5):
        delays.failed("a", 0)
    assert delays.wait("a", 75) == 0
    delays.failed("a", 75)
    assert delays.wait("a", 75) == 1


def test_who_was_quiet_the_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED", 2)
    delays = GrowingDelays(first=1)
    allowance = Allowance(rate=1, burst=0)
    for client in "abc":
        delays.failed(client, 0)
        allowance.spend(client, 5, 0)
    assert [delays.wait(client, 0) for client in "abc"] == [0, 1, 1]
    assert allowance.spend("b", 1, 0) == 6
    assert allowance.spend("a", 1, 0) == 1


def test_an_allowance_is_for_a_rate_and_some_at_once() -> None:
    allowance = Allowance(rate=10, burst=100)
    assert allowance.spend("a", 100, 0) == 0
    assert allowance.spend("a", 1, 0) == pytest.approx(0.1)
    assert allowance.spend("b", 1, 0) == 0
    # Ten seconds later it is all there again.
    assert allowance.spend("a", 101, 10.1) == pytest.approx(0.1)


def test_who_asks_now_and_then_never_waits() -> None:
    allowance = Allowance(rate=10, burst=100)
    assert all(allowance.spend("a", 9, second) == 0 for second in range(1000))
