"""A server that is killed between any two steps of a save.

A step is a system call that changes a file or a folder of the datasets, or syncs it. Each run kills
the server at the next one, until a save is complete.
"""

import shutil
from pathlib import Path

import pytest
from ndb_server.limits import UNLIMITED
from ndb_server.storage.datasets import KEYS, SESSIONS, DatasetFolder, read_datasets

from tests.support.journaled_engine import on_disk, values
from tests.support.killed_servers import Forking
from tests.support.raw_client import Wire, opened
from tests.support.server_process import StartServer

LARGE = {f"key{number}": "x" * 100 for number in range(8)}


@pytest.fixture
def template(start_server: StartServer, tmp_path: Path) -> Path:
    """A data folder whose datasets are older than what is in the store."""
    folder = tmp_path / "template"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as wire:
        new(wire, {"which": "old"})
        wire.request("KV_SET", keys={"which": "old"})
        assert wire.request("SH_SAVE", name="a")["st"] == 121
        assert wire.request("KV_SAVE", name="a")["st"] == 121
        new(wire, {"which": "new"} | LARGE)
        wire.request("KV_SET", keys={"which": "new"} | LARGE)
    server.kill()
    return folder


def new(wire: Wire, keys: dict[str, str]) -> None:
    tkn = wire.request("SH_NEW", expiry={"duration": 1_000_000})["tkn"]
    assert wire.request("SH_SET", tkn=tkn, keys=keys)["st"] == 1


def content_of(folder: Path, kind: str) -> list[dict[str, bytes]]:
    """Return the keys in the newest dataset."""
    found = read_datasets(DatasetFolder(folder), "a", [kind], UNLIMITED)
    if kind == KEYS:
        return [values(found.keys)]
    return sorted((values(session.keys) for session in found.sessions.values()), key=len)


@pytest.mark.parametrize(
    ("command", "kind"), [("SH_SAVE", SESSIONS), ("KV_SAVE", KEYS)], ids=["sessions", "keys"]
)
def test_a_server_killed_at_any_step_of_a_save_leaves_the_old_dataset_or_the_new_one(
    forking: Forking, template: Path, tmp_path: Path, command: str, kind: str
) -> None:
    shutil.copytree(template, tmp_path / "unsaved")
    sessions, keys = store = on_disk(tmp_path / "unsaved")
    kept = [keys] if kind == KEYS else sorted((of[2] for of in sessions.values()), key=len)
    old = content_of(template, kind)
    left: list[list[dict[str, bytes]]] = []
    reply = None
    for number in range(1, 200):
        folder = tmp_path / f"run{number}"
        shutil.copytree(template, folder)
        reply, killed = forking.ask(folder, "datasets", number, command, name="a")
        assert killed == (reply is None)
        left.append(content_of(folder, kind))
        assert on_disk(folder) == store
        if reply is not None:
            assert reply["st"] == 121
            break
    # The last was not killed; the others were before the first step, the last and each between.
    assert reply is not None
    assert len(left) > 10
    assert left[0] == old
    new = left[-1]
    assert new == kept
    turn = left.index(new)
    assert left == [old] * turn + [new] * (len(left) - turn)
