"""The time line of the server, on clocks that the test sets."""

from collections.abc import Callable

import pytest
from ndb_server.clock import Anchor, Clock

START = 1_700_000_000_000


class Machine:
    """A machine's clocks: nanoseconds that pass, and the wall clock in ms."""

    def __init__(self) -> None:
        self.elapsed = 5_000_000_000
        self.wall = START
        self.read_wall: Callable[[], int] = lambda: self.wall

    def wait(self, ms: int) -> None:
        self.elapsed += ms * 1_000_000
        self.wall += ms

    def clock(self, anchor: Anchor | None = None) -> Clock:
        def wall() -> int:
            return self.read_wall()

        return Clock(anchor, lambda: self.elapsed, wall)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_begins_where_the_wall_clock_is_and_goes_on_as_time_passes(machine: Machine) -> None:
    clock = machine.clock()
    assert clock() == START
    machine.wait(1500)
    assert clock() == START + 1500
    assert clock.follow() == 0
    assert clock.anchor == (START, START)


@pytest.mark.parametrize("step", [100, -100, 3_600_000, -3_600_000])
def test_a_step_of_the_wall_clock_moves_the_anchor_and_nothing_else(
    machine: Machine, step: int
) -> None:
    clock = machine.clock()
    machine.wait(1000)
    machine.wall += step
    assert clock() == START + 1000
    assert clock.follow() == step
    assert clock.anchor == (START + 1000, START + 1000 + step)
    assert clock.follow() == 0
    machine.wait(500)
    assert machine.clock(clock.anchor)() == clock() == START + 1500


@pytest.mark.parametrize("step", [99, -99, 1, -1])
def test_what_is_less_than_a_step_moves_nothing_not_even_an_anchor_that_is_renewed(
    machine: Machine, step: int
) -> None:
    clock = machine.clock(Anchor(START - 7000, START - 9000))
    machine.wait(1000)
    machine.wall += step
    assert clock.follow() == 0
    assert clock.renew() == (START + 3000, START + 1000)


def test_a_step_is_in_an_anchor_that_is_renewed(machine: Machine) -> None:
    clock = machine.clock()
    machine.wall += 5000
    assert clock.renew() == (START, START + 5000)


def test_a_wall_clock_that_was_put_back_meanwhile_gives_no_time_back(machine: Machine) -> None:
    anchor = Anchor(START + 500, START + 60_000)
    assert machine.clock(anchor)() == START + 500


def held_up(machine: Machine, ms: int, *, before: bool) -> Callable[[], int]:
    """Read the wall clock as if the process had stood still before, or after."""

    def read() -> int:
        if before:
            machine.wait(ms)
        wall = machine.wall
        if not before:
            machine.wait(ms)
        return wall

    return read


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("ms", [1, 11, 5000, 3_600_000])
def test_a_process_that_is_held_up_between_its_clocks_takes_none_for_moved(
    machine: Machine, ms: int, *, before: bool
) -> None:
    clock = machine.clock()
    machine.read_wall = held_up(machine, ms, before=before)
    assert clock.follow() == 0
    assert clock.anchor == (START, START)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("ms", [1, 11, 5000])
@pytest.mark.parametrize("step", [3_600_000, -3_600_000])
def test_a_step_is_known_however_long_the_process_is_held_up_between_its_clocks(
    machine: Machine, step: int, ms: int, *, before: bool
) -> None:
    clock = machine.clock()
    machine.read_wall = held_up(machine, ms, before=before)
    machine.wall += step
    assert step - ms <= clock.follow() <= step + ms
    machine.read_wall = lambda: machine.wall
    clock.follow()
    # What can't be told apart from the pause is made good by the next look.
    assert abs(clock.anchor.offset - step) < 100
