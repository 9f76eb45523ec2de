"""Who has to wait for how long."""

import pytest
from ndb_server.access import rate_limits as throttle
from ndb_server.access.rate_limits import Allowance, Reminder


def test_who_was_quiet_the_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED", 2)
    allowance = Allowance(rate=1, burst=0)
    for client in "abc":
        allowance.spend(client, 5, 0)
    assert allowance.spend("b", 1, 0) == 6
    assert allowance.spend("a", 1, 0) == 1


def test_of_whom_nothing_was_said_the_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED", 2)
    reminder = Reminder(interval=60)
    assert [reminder.is_due(client, 0) for client in "abbca"] == [True, True, False, True, True]
    assert reminder.is_due("a", 59) is False


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
