"""The conformance vectors, on the engine and its dispatch, with time as an argument."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ndb_protocol import NDB_V1_TEXT
from ndb_protocol.conformance.conversation import Conversation
from ndb_protocol.conformance.scenarios import Scenario, load_scenarios
from ndb_protocol.vectors import Advance, Vector, load_vectors
from ndb_server.dispatch.dispatcher import Dispatcher
from ndb_server.engine.engine import Engine
from ndb_server.storage.dataset_commands import DatasetCommands

# What the server says of itself is neither the engine's nor the datasets': a live server has it.
VECTORS = [vector for vector in load_vectors() if vector.file != "SV_INFO"]
EXPIRY = [scenario for scenario in load_scenarios() if scenario.file == "expiry"]


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@contextmanager
def dispatcher(data_dir: Path | None, clock: Clock) -> Iterator[Dispatcher]:
    engine = Engine()
    datasets = DatasetCommands(engine, data_dir, clock)
    try:
        yield Dispatcher({**engine.handlers, **datasets.handlers})
    finally:
        datasets.close()


async def answer(server: Dispatcher, message: str, now: int, *, text_tokens: bool = False) -> str:
    [reply], _ = server.dispatch([message.encode()], now, text_tokens=text_tokens)
    if isinstance(reply, Awaitable):
        reply = await reply
    return reply.decode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.file}: {vector.name}")
async def test_dispatch_answers_as_the_vector_says(vector: Vector, tmp_path: Path) -> None:
    clock, conversation = Clock(), Conversation()
    text_tokens = vector.subprotocol == NDB_V1_TEXT
    with dispatcher(None if vector.persistence is False else tmp_path, clock) as server:
        for step in vector.steps:
            if isinstance(step, Advance):
                clock.now += step.advance_ms
                continue
            message = conversation.fill(step.send)
            reply = await answer(server, message, clock.now, text_tokens=text_tokens)
            conversation.check(step.expect, reply)


@pytest.mark.parametrize("scenario", EXPIRY, ids=lambda scenario: scenario.name)
async def test_dispatch_answers_as_the_scenario_says_that_a_live_server_is_checked_with(
    scenario: Scenario, tmp_path: Path
) -> None:
    clock, conversation = Clock(), Conversation()
    with dispatcher(tmp_path, clock) as server:
        for step in scenario.steps:
            clock.now += step.advance_ms
            if step.send is not None and step.expect is not None:
                reply = await answer(server, conversation.fill(step.send), clock.now)
                conversation.check(step.expect, reply)
