"""A machine that loses power: of the server's files, what was synced is left, and any of the rest.

All that the real server does to its files is recorded while a client writes. At many moments the
folder is made as a disk could have it after a power cut at that moment, and opened.

Not covered: a disk that says that it has synced and has not, or that damages what was synced
before; sectors that hold neither what was there nor what was written; folders that were just made
(those of datasets, and the data folder itself). What is written through a memory map is not seen
either: SQLite does that only with its shared memory, which is made anew after a crash.
"""

import json
import random
from collections import deque
from pathlib import Path

import pytest
from ndb_protocol.messages import Expiry

from tests.support.file_calls import Disk, calls
from tests.support.journaled_engine import OnDisk, on_disk
from tests.support.preloaded_libraries import compiled
from tests.support.raw_client import opened, text
from tests.support.recorded_traffic import Operation, Writer, Written, message, states
from tests.support.reference_model import Keys, Model, Settings
from tests.support.reference_model import text as value_text
from tests.support.rounds import rounds
from tests.support.server_process import StartServer

OPERATIONS = 600


@rounds(few=50, many=1000)
@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_what_was_acknowledged_and_synced_is_there_after_a_power_cut(
    start_server: StartServer, tmp_path: Path, durability: str, rounds: int
) -> None:
    folder, log = tmp_path / "data", tmp_path / "log"
    folder.mkdir()
    environment = {
        "LD_PRELOAD": str(compiled(tmp_path)),
        "FILES_BELOW": f"{folder}",
        "FILES_LOG": str(log),
    }
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    server = start_server(*("--data-dir", str(folder), "--durability", durability), env=environment)
    written = Written(0, Model(0), 1)
    acknowledged = write_and_note(server.port, written, seed, log)
    server.kill()

    chance = random.Random(seed)
    made = list(calls(log))
    chosen = set(chance.sample(range(len(made)), min(rounds, len(made))))
    disk, synced = Disk(), 0
    left = tmp_path / "left"
    for number, call in enumerate(made):
        disk.make(call)
        if call.name == "sync" and call.path.name == "ndb.sqlite-wal":
            synced = call.end
        if number in chosen:
            disk.cut(left, chance)
            until = call.end if durability == "strict" else synced
            at_least = sum(end <= until for end in acknowledged)
            found = on_disk(left)
            assert any(agrees(found, model) for _, model in states(written, at_least)), (
                f"{at_least} operations have to be there after call {number}, {call[:2]}"
            )


def write_and_note(port: int, written: Written, seed: int, log: Path) -> list[int]:
    """Write, and return how long the log of the server's calls was at each acknowledgement."""
    writer = Writer(written, seed, ends_all=True)
    ends: list[int] = []
    waiting: deque[Operation] = deque()
    with opened(port) as wire:
        # All are answered at the end: a session whose token nobody learned is in no model.
        for to_come in reversed(range(OPERATIONS)):
            operation = writer.operation()
            written.operations.append(operation)
            waiting.append(operation)
            wire.send(text(message(operation)))
            while len(waiting) > to_come % 8:
                operation = waiting.popleft()
                [operation.reply] = wire.reply().values()
                ends.append(log.stat().st_size)
                writer.answered(operation)
            if to_come % 96 == 0:
                # The log is compacted, and SQLite's own log is brought into the file.
                assert wire.request("KV_SAVE", name="a")["st"] == 121
    return ends


def agrees(found: OnDisk, model: Model) -> bool:
    """Tell whether what is on disk is what the model has; deadlines aside."""
    sessions, keys = found
    return ordered(keys) == ordered(texts(model.keys)) and {
        token: (expiry, ordered(values)) for token, (expiry, _, values) in sessions.items()
    } == {
        token: (expiry_of(session.settings), ordered(texts(session.keys)))
        for token, session in model.sessions.items()
    }


def expiry_of(settings: Settings | None) -> Expiry | None:
    return None if settings is None else Expiry(**vars(settings))


def texts(keys: Keys) -> dict[str, bytes]:
    return {key: value_text(value) for key, value in keys.items()}


def ordered(values: dict[str, bytes]) -> list[tuple[str, object]]:
    """Return keys in their order; values are as they were sent, white space included."""
    return [(key, json.loads(value)) for key, value in values.items()]
