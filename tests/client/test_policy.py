"""How long a client waits for what."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb import ConnectionPolicy
from ndb.policy import Backoff, Keepalive, Verdict

TIMES = [field.name for field in dataclasses.fields(ConnectionPolicy)]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, math.nan])
def test_a_time_that_is_none_is_a_value_error_that_names_it(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ConnectionPolicy(**{name: value})


@pytest.mark.parametrize("name", TIMES)
def test_only_reconnecting_can_be_switched_off_with_0(name: str) -> None:
    if name == "reconnect_timeout":
        assert ConnectionPolicy(**{name: 0}).reconnect_timeout == 0
    else:
        with pytest.raises(ValueError, match=f"{name} is 0; it must be a time above 0"):
            ConnectionPolicy(**{name: 0})


def test_a_policy_can_not_be_changed_under_a_client() -> None:
    policy = ConnectionPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.ping_timeout = 1  # type: ignore[misc]


def test_every_time_has_a_bound_by_default() -> None:
    policy = ConnectionPolicy()
    assert all(getattr(policy, name) < math.inf for name in TIMES)
    # A request outlives a dead server: it is found in time to be sent to another.
    assert policy.ping_interval + policy.ping_timeout < policy.request_timeout


def test_the_most_that_is_waited_doubles_up_to_its_bound_and_starts_over() -> None:
    backoff = Backoff(ConnectionPolicy(initial_backoff=0.1, max_backoff=1), lambda: 1)
    assert [backoff.delay() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
    backoff.reset()
    assert backoff.delay() == 0.1


def test_the_first_wait_has_the_same_bound_as_all() -> None:
    backoff = Backoff(ConnectionPolicy(initial_backoff=9, max_backoff=1), lambda: 1)
    assert backoff.delay() == 1


@given(st.lists(st.floats(0, 1), max_size=2000))
def test_what_is_waited_is_any_part_of_the_most(parts: list[float]) -> None:
    policy = ConnectionPolicy()
    chances = iter(parts)
    backoff = Backoff(policy, lambda: next(chances))
    most = Backoff(policy, lambda: 1)
    for part in parts:
        assert backoff.delay() == part * most.delay()


ALIVE, PING, DEAD = Verdict


@pytest.mark.parametrize(
    ("heard", "verdicts"),
    [
        ([True] * 3, [ALIVE] * 3),
        ([False] * 3, [PING, ALIVE, DEAD]),
        ([False, True, False, False, True], [PING, ALIVE, PING, ALIVE, ALIVE]),
    ],
)
def test_a_silent_server_gets_a_ping_and_is_dead_if_it_stays_silent(
    heard: list[bool], verdicts: list[Verdict]
) -> None:
    keepalive = Keepalive(ConnectionPolicy())
    assert [keepalive.look(one) for one in heard] == verdicts


@given(st.floats(0.001, 1000), st.floats(0.001, 1000), st.floats(0, 1))
def test_a_dead_server_is_found_within_the_stated_time(
    interval: float, timeout: float, last: float
) -> None:
    keepalive = Keepalive(ConnectionPolicy(ping_interval=interval, ping_timeout=timeout))
    # The last that is heard comes at any time before the first look.
    waited = keepalive.delay * (1 - last)
    assert keepalive.look(heard=True) is ALIVE
    verdict = ALIVE
    while verdict is not DEAD:
        waited += keepalive.delay
        verdict = keepalive.look(heard=False)
        if verdict is PING:
            assert waited <= interval * 1.001
    assert waited <= (interval + timeout) * 1.001
