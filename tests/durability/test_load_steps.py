"""A server that is killed between any two steps of a load.

A step is a system call that changes the store or its log, or syncs it.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.journaled_engine import on_disk
from tests.support.killed_servers import Forking
from tests.support.raw_client import Wire, opened
from tests.support.rounds import TORTURE
from tests.support.server_process import StartServer

LARGE = {f"key{number}": "x" * 100 for number in range(8)}

EACH = 64
"""Bytes of a record: each session is one of its own, and so is each key."""


@pytest.fixture
def template(start_server: StartServer, tmp_path: Path) -> Path:
    """A data folder with other sessions and keys in its store than in its datasets."""
    folder = tmp_path / "template"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as wire:
        kept = new(wire, {"which": "saved"})
        loaded = [new(wire, {"which": "saved"}), new(wire, LARGE), new(wire, {})]
        wire.request("KV_SET", keys={"both": "saved", "saved": 1} | LARGE)
        assert wire.request("SH_SAVE", name="a")["st"] == 121
        assert wire.request("KV_SAVE", name="a")["st"] == 121
        for token in loaded:
            assert wire.request("SH_END", tkn=token)["st"] == 1
        wire.request("SH_SET", tkn=kept, keys={"which": "changed"})
        wire.request("KV_CLEAR_SET", keys={"both": "changed", "stays": 1})
    server.kill()
    return folder


def new(wire: Wire, keys: dict[str, Any]) -> int:
    token: int = wire.request("SH_NEW", expiry={"duration": 1_000_000})["tkn"]
    assert wire.request("SH_SET", tkn=token, keys=keys)["st"] == 1
    return token


def found(folder: Path) -> object:
    """Return what a folder holds, but for deadlines."""
    sessions, keys = on_disk(folder)
    return {token: (expiry, values) for token, (expiry, _, values) in sessions.items()}, keys


@pytest.mark.parametrize(
    "stride", [pytest.param(9, id="few"), pytest.param(1, id="many", marks=TORTURE)]
)
@pytest.mark.parametrize("command", ["SH_LOAD", "KV_LOAD", "--load"])
def test_a_server_killed_at_any_step_of_a_load_has_all_of_it_or_nothing(
    forking: Forking, template: Path, tmp_path: Path, command: str, stride: int
) -> None:
    before = found(shutil.copytree(template, tmp_path / "unloaded"))
    left = []
    acknowledged = []
    killed = True
    number = 1
    while killed:
        folder = shutil.copytree(template, tmp_path / f"run{number}")
        if command == "--load":
            done, killed = forking.load(folder, "ndb.sqlite", number, EACH, "a")
        else:
            reply, killed = forking.ask(folder, "ndb.sqlite", number, command, EACH, name="a")
            assert reply is None or reply["st"] == 141
            done = reply is not None
        left.append(found(folder))
        acknowledged.append(done)
        number += stride
    after = left[-1]
    assert after != before
    assert all(each in (before, after) for each in left)
    assert min(left.count(before), left.count(after)) > 1
    assert all(each == after for each, done in zip(left, acknowledged, strict=True) if done)
