"""A server that is killed between any two steps of a save.

A step is a system call that changes a file or a folder of the datasets, or syncs it. Each run kills
the server at the next one, until a save is complete.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ndb_server.datasets import KEYS, SESSIONS, Folder, read
from ndb_server.limits import UNLIMITED

from tests.conftest import StartServer
from tests.durability.files import compiled
from tests.e2e.wire import Wire, opened
from tests.server.durable import on_disk, values

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


class Forking:
    """The process that starts servers: see forking.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, folder: Path, number: int, command: str, **params: Any) -> dict[str, Any] | None:
        """Send a request to a server that is killed at its call of that number.

        Returns:
            The body of the reply; None if the server was killed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder} {number}\n")
        self._process.stdin.flush()
        pid, url = self._line().split()
        reply = None
        try:
            with opened(int(url.rstrip("/").rpartition(":")[2])) as wire:
                reply = wire.request(command, **params)
        except (ConnectionError, AssertionError):
            assert self._line() == str(-signal.SIGKILL)
        else:
            os.kill(int(pid), signal.SIGTERM)
            # The reply may overtake the end of a server that was to be killed.
            assert self._line() == "0"
        return reply

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Forking]:
    command = [sys.executable, "-m", "tests.durability.forking"]
    environment = {**os.environ, "LD_PRELOAD": str(compiled(tmp_path))}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Forking(process)


def content_of(folder: Path, kind: str) -> list[dict[str, bytes]]:
    """Return the keys in the newest dataset."""
    found = read(Folder(folder), "a", [kind], UNLIMITED)
    if kind == KEYS:
        return [values(found.keys)]
    return sorted((values(session.packed) for session in found.sessions.values()), key=len)


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
        reply = forking.ask(folder, number, command, name="a")
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
