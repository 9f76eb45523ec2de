"""A server that is killed while clients write, and started again on what it left.

What SIGKILL takes is the process; what it had given to the kernel stays. For a machine that loses
power see `test_power_cut`.
"""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.support.raw_client import opened
from tests.support.recorded_traffic import Seen, Written, check, read, write
from tests.support.reference_model import Model
from tests.support.rounds import rounds
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

WRITERS = 3
READERS = 1

LEAST = 60
"""How many operations each writer has made before the server is killed."""


@pytest.fixture(scope="module")
def clients() -> Iterator[ProcessPoolExecutor]:
    """Processes that are clients: what they know does not go with the server."""
    with ProcessPoolExecutor(WRITERS + READERS, get_context("spawn")) as pool:
        yield pool


def kill_at_some_moment(server: Server, first: int, chance: random.Random) -> None:
    """Kill the server while all write, and at no moment that has to do with what is on disk."""
    names = [f"{number}:n" for number in range(WRITERS)]
    with opened(server.port) as wire:
        deadline = time.monotonic() + BOUND
        while any(
            wire.request("KV_GET", keys=[name])["keys"].get(name, 0) < first + LEAST
            for name in names
        ):
            assert time.monotonic() < deadline, "the writers do not write"
        # This is answered whatever is being written.
        for _ in range(chance.randrange(500)):
            wire.request("SV_INFO")
    server.kill()


@rounds(few=2, many=20)
@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_what_was_acknowledged_or_seen_is_there_after_the_server_was_killed(
    start_server: StartServer,
    clients: ProcessPoolExecutor,
    tmp_path: Path,
    durability: str,
    rounds: int,
) -> None:
    arguments = ("--data-dir", str(tmp_path), "--durability", durability)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    models = [Model(0) for _ in range(WRITERS)]
    first, answered, nameless = 1, 0, 0
    server = start_server(*arguments)
    for _ in range(rounds):
        seeds = [chance.randrange(2**32) for _ in models]
        ends_all = chance.random() < 0.3
        writing = [
            clients.submit(
                write, server.port, Written(number, model, first), seeds[number], ends_all=ends_all
            )
            for number, model in enumerate(models)
        ]
        reading = [clients.submit(read, server.port, WRITERS) for _ in range(READERS)]
        kill_at_some_moment(server, first, chance)
        all_written: list[Written] = [each.result(BOUND) for each in writing]
        seen: list[Seen] = [each.result(BOUND) for each in reading]
        answered += sum(written.answered for written in all_written)
        first += max(len(written.operations) for written in all_written)
        server = start_server(*arguments)
        with opened(server.port) as wire:
            models, nameless = check(wire, all_written, seen, nameless)
    print(f"{answered} requests were answered")
    assert answered > 40 * rounds
