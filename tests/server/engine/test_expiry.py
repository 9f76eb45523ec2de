"""Deadlines: who is due, in which order, and what is kept of those who are not."""

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st
from ndb_protocol import NO_TOKEN
from ndb_server.engine.expiry import BUCKET_MS, HORIZON_MS, Deadlines

START = 1_700_000_000_000
SECOND = 1000


@dataclass
class Calendar:
    """Deadlines over a plain dictionary of tokens."""

    present: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.present.get)

    def add(self, token: int, deadline: int, now: int = START) -> None:
        self.present[token] = deadline
        self.deadlines.add(token, deadline, now)

    def due(self, now: int) -> list[int]:
        # As whoever works them off does: a session is gone before the next one is asked for.
        taken: dict[int, int] = {}
        while (token := self.deadlines.pop(now)) is not None:
            if token != NO_TOKEN:
                taken[token] = self.present.pop(token)
        self.present.update(taken)
        return list(taken)

    def entries(self) -> int:
        deadlines = self.deadlines
        waiting = sum(map(len, deadlines._buckets.values()))
        return waiting + len(deadlines._open_bucket) + len(deadlines._late)


def test_nobody_is_due_where_there_is_nobody() -> None:
    assert Calendar().due(START) == []


def test_a_token_is_due_at_its_deadline_and_not_a_millisecond_before() -> None:
    for deadline in range(START, START + 2 * BUCKET_MS):
        calendar = Calendar()
        calendar.add(7, deadline)
        assert calendar.due(deadline - 1) == []
        assert calendar.due(deadline) == [7]
        assert calendar.due(deadline + 10 * SECOND) == []


def test_tokens_are_due_in_the_order_of_their_buckets() -> None:
    calendar = Calendar()
    moments = [500, 3, 70, 64, 63, 100_000, 4, 128, 127, 65]
    for token, moment in enumerate(moments, start=1):
        calendar.add(token, START + moment)
    buckets = [calendar.present[token] // BUCKET_MS for token in calendar.due(START + 100_000)]
    assert len(buckets) == len(moments)
    assert buckets == sorted(buckets)


def test_tokens_of_the_open_bucket_are_due_at_their_deadlines_in_order() -> None:
    calendar = Calendar()
    begin = START // BUCKET_MS * BUCKET_MS
    assert calendar.due(begin) == []
    for token in (5, 3, 1, 2, 4):
        calendar.add(token, begin + token)
    assert calendar.due(begin) == []
    calendar.add(6, begin + 1)
    for now in range(begin, begin + 6):
        assert calendar.due(now) == [token for token, at in calendar.present.items() if at == now]


def test_a_bucket_is_worked_off_one_entry_at_a_time() -> None:
    calendar = Calendar()
    for token in range(1, 101):
        calendar.add(token, START)
        if token % 2:
            calendar.present[token] = START + SECOND
    popped = [calendar.deadlines.pop(START) for _ in range(100)]
    assert calendar.deadlines.pop(START) is None
    assert popped.count(NO_TOKEN) == 50
    assert {*popped} == {NO_TOKEN, *range(2, 101, 2)}
    assert calendar.entries() == 50


def test_a_gone_token_is_never_due_and_its_entry_goes_with_its_bucket() -> None:
    calendar = Calendar()
    calendar.add(1, START)
    calendar.add(2, START + 1)
    del calendar.present[1]
    assert calendar.due(START + 1) == [2]
    assert calendar.entries() == 0


def test_a_token_that_goes_while_its_bucket_is_worked_off_is_not_due() -> None:
    calendar = Calendar()
    calendar.add(1, START)
    calendar.add(2, START + 1)
    over = calendar.deadlines.pop(START + 1)
    assert over in {1, 2}
    del calendar.present[1], calendar.present[2]
    assert calendar.due(START + 1) == []


def test_an_extended_token_is_due_at_its_new_deadline_alone() -> None:
    calendar = Calendar()
    calendar.add(1, START)
    calendar.present[1] = START + SECOND
    assert calendar.due(START) == []
    assert calendar.due(START + SECOND - 1) == []
    assert calendar.due(START + SECOND) == [1]


def test_a_token_extended_while_its_bucket_is_worked_off_is_due_at_its_new_deadline() -> None:
    calendar = Calendar()
    begin = START // BUCKET_MS * BUCKET_MS
    calendar.add(1, begin)
    calendar.add(2, begin + 5)
    assert calendar.due(begin) == [1]
    calendar.present[2] = begin + SECOND
    assert calendar.due(begin + 5) == []
    assert calendar.due(begin + SECOND - 1) == []
    assert calendar.due(begin + SECOND) == [2]


def test_extending_a_token_makes_no_entry() -> None:
    calendar = Calendar()
    calendar.add(1, START)
    for moment in range(1, 1000):
        calendar.present[1] = START + moment * SECOND
        assert calendar.due(START + (moment - 1) * SECOND) == []
        assert calendar.entries() == 1


def test_two_entries_of_a_token_become_one_when_they_meet() -> None:
    calendar = Calendar()
    calendar.add(1, START + SECOND)
    for later in range(2, 10):
        # It went, and another session has the token now: the first's entry is still there.
        calendar.add(1, START + later * SECOND)
    assert calendar.due(START + 9 * SECOND) == [1]
    assert calendar.entries() == 0


def test_entries_of_long_sessions_that_ended_do_not_stay_as_long() -> None:
    calendar = Calendar()
    for token in range(1000):
        calendar.add(token, START + 30 * 24 * 3600 * SECOND)
        del calendar.present[token]
    assert calendar.due(START + HORIZON_MS) == []
    assert calendar.entries() == 0


def test_entries_of_long_sessions_move_on_and_come_due_at_their_deadlines() -> None:
    calendar = Calendar()
    day = 24 * 3600 * SECOND
    for token in range(1, 101):
        calendar.add(token, START + day + token)
    for now in range(START, START + day, HORIZON_MS // 3):
        assert calendar.due(now) == []
        assert calendar.entries() == 100
        assert max(map(len, calendar.deadlines._buckets.values())) < 100
    assert calendar.due(START + day - 1) == []
    assert sorted(calendar.due(START + day + 50)) == list(range(1, 51))


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "extend", "go", "wait", "wait", "rearm"]),
        st.integers(1, 8),
        st.one_of(st.integers(0, 3), st.integers(0, 3 * BUCKET_MS), st.integers(0, 10 * SECOND)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(steps)
@example([("add", 1, 24), ("go", 1, 0), ("add", 1, 0)])
def test_it_is_a_list_sorted_by_bucket(steps: list[tuple[str, int, int]]) -> None:
    calendar = Calendar()
    now = START
    for action, token, ms in steps:
        later = now + SECOND + ms
        if action == "add" and token not in calendar.present:
            calendar.add(token, later)
        elif action == "extend" and token in calendar.present:
            # A session has one duration, and time goes on: it never moves to an earlier moment.
            calendar.present[token] = max(later, calendar.present[token])
        elif action == "go":
            calendar.present.pop(token, None)
        elif action in {"wait", "rearm"}:
            now += ms
            expected = sorted(token for token, at in calendar.present.items() if at <= now)
            due = calendar.due(now)
            buckets = [calendar.present[token] // BUCKET_MS for token in due]
            assert buckets == sorted(buckets)
            assert sorted(due) == expected
            for over in due:
                if action == "rearm":
                    periods = (now - calendar.present[over]) // SECOND + 1
                    calendar.add(over, calendar.present[over] + periods * SECOND)
                else:
                    del calendar.present[over]
        assert calendar.entries() >= len(calendar.present)
    assert sorted(calendar.due(now + 20 * SECOND)) == sorted(calendar.present)
    assert calendar.entries() == 0
    assert not calendar.deadlines._bucket_numbers
