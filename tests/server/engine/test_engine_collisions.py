"""Tokens that collide cost what others do: what a client chooses never becomes a key of a table.

The hash of a string is another in each process, and nobody outside knows it. The hash of a number
is no secret. What a table makes of numbers that collide is seen here at its worst: all have one
hash, and each one that is looked for is compared with each one that is there.
"""

from typing import Any

import pytest
from ndb_protocol import COMMANDS, Scope
from ndb_protocol.messages import ExistReply, Sessions
from ndb_server.engine.engine import Engine
from ndb_server.engine.journal import Journal
from ndb_server.errors import RefusedError

from tests.support.journaled_engine import START, Disk
from tests.support.valid_params import PARAMS

MANY = 2000


class Colliding(int):
    """A token whose hash is that of all others, and which counts what it is compared with."""

    compared = 0

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        Colliding.compared += 1
        return int(self) == other


@pytest.fixture
def tokens() -> list[int]:
    Colliding.compared = 0
    return [Colliding(number) for number in range(1, MANY)]


@pytest.fixture
def journal() -> Journal:
    """Return a journal whose changes are on their way to the disk for ever."""
    disk = Disk()
    return Journal(disk.write, disk.later)


@pytest.fixture
def engine(journal: Journal) -> Engine:
    engine = Engine(journal=journal)
    for _ in range(10):
        engine.handlers["SH_NEW"](COMMANDS["SH_NEW"].params(), START)
    return engine


OF_A_SESSION = [name for name, command in COMMANDS.items() if command.scope is Scope.SESSION]


@pytest.mark.parametrize("name", OF_A_SESSION)
def test_commands_on_one_session_compare_no_unknown_tokens(
    engine: Engine, journal: Journal, tokens: list[int], name: str
) -> None:
    for token in tokens:
        given: dict[str, Any] = {"tkn": token, **PARAMS.get(name, {})}
        params = COMMANDS[name].params(**given)
        with pytest.raises(RefusedError):
            engine.handlers[name](params, START)
        journal.pending_batch(Scope.SESSION, params)
    assert Colliding.compared == 0
    assert engine.unknown_tokens == len(tokens)


def test_lists_of_unknown_tokens_are_not_compared_with_each_other(
    engine: Engine, tokens: list[int]
) -> None:
    reply = engine.handlers["SH_EXISTS"](Sessions(tkns=tokens), START)
    assert isinstance(reply, ExistReply)
    assert reply.exist == []
    assert engine.snapshot(START, tokens) == []
    assert Colliding.compared == 0
    # The same tokens as keys of a table, to see that it would have shown.
    dict.fromkeys(tokens)
    assert Colliding.compared > MANY * MANY / 4
