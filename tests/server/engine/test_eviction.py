"""Which session goes first."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ndb_server.engine.eviction import EvictionQueue


class Sessions(RuleBasedStateMachine):
    """Sessions come, are extended and go; the one taken is always the nearest to its deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: dict[int, int] = {}
        self.nearest = EvictionQueue(self.deadlines.get, self.deadlines.__len__)
        self.tokens = 0

    @rule(deadline=st.integers(1, 2**40), count=st.integers(1, 200))
    def begin(self, deadline: int, count: int) -> None:
        for number in range(count):
            self.tokens += 1
            self.deadlines[self.tokens] = deadline + number
            self.nearest.add(self.tokens, deadline + number)

    @precondition(lambda self: self.deadlines)
    @rule(data=st.data(), by=st.integers(0, 2**30))
    def extend(self, data: st.DataObject, by: int) -> None:
        self.deadlines[data.draw(st.sampled_from([*self.deadlines]))] += by

    @rule(keep=st.integers(0, 20))
    def end_many(self, keep: int) -> None:
        for token in [*self.deadlines][keep:]:
            del self.deadlines[token]

    @rule()
    def take(self) -> None:
        token = self.nearest.pop()
        if not self.deadlines:
            assert token is None
        else:
            assert token is not None
            assert self.deadlines.pop(token) <= min(self.deadlines.values(), default=2**62)

    @invariant()
    def nobody_is_there_twice(self) -> None:
        entries = self.nearest._heap + self.nearest._old_heap
        tokens = [entry & (2**64 - 1) for entry in entries]
        assert len(tokens) == len({*tokens})


Sessions.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestSessions = Sessions.TestCase


def test_entries_of_sessions_that_have_ended_do_not_pile_up() -> None:
    deadlines: dict[int, int] = {}
    nearest = EvictionQueue(deadlines.get, deadlines.__len__)
    for token in range(1, 100_000):
        deadlines[token] = token
        nearest.add(token, token)
        deadlines.pop(token - 10, None)
    assert len(nearest._heap) + len(nearest._old_heap) < 200
