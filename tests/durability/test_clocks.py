"""A wall clock that is set, and a machine that is suspended, under a server and between two.

The clocks are those of the process: see settable_clocks.c.
"""

import json
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.preloaded_libraries import compiled
from tests.support.raw_client import Wire, opened
from tests.support.server_process import Server, StartServer
from tests.support.waiting import until

HOUR = 3600

PERIODS = [600, 1000, 2 * HOUR]


class Made(NamedTuple):
    """A session.

    Attributes:
        period: after how many seconds it expires.
        at: before when it was made, in seconds of this process' monotonic clock.
    """

    period: int
    at: float

    def is_left(self, found: float | None, of: int) -> bool:
        """Tell whether as much is left of `of` seconds as can be, by what has passed since."""
        passed = time.monotonic() - self.at
        # A second, as a wall clock and the time of the server may be apart by a tenth.
        return found is not None and of - passed - 1 < found <= of


class Clocks:
    """The clocks of servers, in seconds ahead of the system's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clocks"
        self.env = {
            "LD_PRELOAD": str(compiled(folder, "settable_clocks.c")),
            "CLOCK_FILE": str(self._file),
        }
        self.set(0)

    def set(self, wall: int, suspended: int = 0) -> None:
        """Set the wall clock, and let the machine have been suspended for so long."""
        data = struct.pack("qq", (wall + suspended) * 10**9, suspended * 10**9)
        # In place: the servers have the file mapped.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(data)


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def started(start_server: StartServer, folder: Path, clocks: Clocks) -> Server:
    return start_server("--data-dir", str(folder), env=clocks.env)


def new(wire: Wire) -> dict[int, Made]:
    """Make a session for each period; return them by their tokens."""
    begin = time.monotonic()
    return {
        wire.request("SH_NEW", expiry={"duration": period, "deleteSession": True})["tkn"]: Made(
            period, begin
        )
        for period in PERIODS
    }


def remaining(wire: Wire, tokens: dict[int, Made]) -> list[int | None]:
    infos = [wire.request("SH_INFO", tkn=token) for token in tokens]
    return [info["expiry"]["remaining"] if info["st"] == 1 else None for info in infos]


def assert_whole(wire: Wire, tokens: dict[int, Made]) -> None:
    """Nobody has lost or won more than what the test itself took."""
    for found, made in zip(remaining(wire, tokens), tokens.values(), strict=True):
        assert made.is_left(found, made.period)


@pytest.mark.parametrize("step", [10 * HOUR, -10 * HOUR], ids=["forward", "back"])
@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_a_step_of_the_wall_clock_changes_no_session_now_or_after_a_restart(
    start_server: StartServer, folder: Path, clocks: Clocks, step: int, ended: str
) -> None:
    server = started(start_server, folder, clocks)
    with opened(server.port) as wire:
        tokens = new(wire)
        clocks.set(step)
        until(lambda: "the clock of the machine was set" in server.stderr)
        assert_whole(wire, tokens)
        # What is written after the step brings what the store has to know of it.
        tokens |= new(wire)
        assert_whole(wire, tokens)
    server.stop() if ended == "stopped" else server.kill()
    server = started(start_server, folder, clocks)
    with opened(server.port) as wire:
        assert_whole(wire, tokens)


def test_a_step_that_nobody_noticed_is_known_by_the_next_write(
    start_server: StartServer, folder: Path, clocks: Clocks
) -> None:
    server = started(start_server, folder, clocks)
    with opened(server.port) as wire:
        clocks.set(10 * HOUR)
        tokens = new(wire)
    server.kill()
    with opened(started(start_server, folder, clocks).port) as wire:
        assert_whole(wire, tokens)


def test_only_a_step_beyond_a_minute_is_logged(
    start_server: StartServer, folder: Path, clocks: Clocks
) -> None:
    server = started(start_server, folder, clocks)
    for step in (50, 100, 140):
        clocks.set(step)
        with opened(server.port) as wire:
            # A write looks at the clock.
            wire.request("KV_SET", keys={"a": step})
    clocks.set(240)
    until(lambda: "the clock of the machine was set forward by 100 s" in server.stderr)
    clocks.set(140)
    until(lambda: "the clock of the machine was set back by 100 s" in server.stderr)
    assert server.stderr.count("the clock of the machine was set") == 2


def test_a_server_without_a_data_folder_goes_on_as_well(
    start_server: StartServer, clocks: Clocks
) -> None:
    server = start_server(env=clocks.env)
    with opened(server.port) as wire:
        tokens = new(wire)
        clocks.set(10 * HOUR)
        until(lambda: "the clock of the machine was set" in server.stderr)
        assert_whole(wire, tokens)


def test_time_in_which_the_machine_was_suspended_passes(
    start_server: StartServer, folder: Path, clocks: Clocks
) -> None:
    server = started(start_server, folder, clocks)
    with opened(server.port) as wire:
        tokens = new(wire)
        clocks.set(0, suspended=HOUR)
        first, second, third = remaining(wire, tokens)
        assert (first, second) == (None, None)
        longest = [*tokens.values()][-1]
        assert longest.is_left(third, HOUR)
    server.kill()
    assert "the clock of the machine was set" not in server.stderr
    with opened(started(start_server, folder, clocks).port) as wire:
        assert longest.is_left(remaining(wire, tokens)[2], HOUR)


@pytest.mark.parametrize(
    ("step", "left"), [(HOUR, [None, None, HOUR]), (-HOUR, PERIODS)], ids=["forward", "back"]
)
def test_a_step_while_the_server_is_down_is_time_that_has_passed_and_never_gives_any(
    start_server: StartServer,
    folder: Path,
    clocks: Clocks,
    step: int,
    left: list[int | None],
) -> None:
    server = started(start_server, folder, clocks)
    with opened(server.port) as wire:
        tokens = new(wire)
    server.stop()
    clocks.set(step)
    with opened(started(start_server, folder, clocks).port) as wire:
        each = zip(remaining(wire, tokens), left, tokens.values(), strict=True)
        for found, expected, made in each:
            if expected is None:
                assert found is None
            else:
                assert made.is_left(found, expected)


@pytest.fixture
def exported(
    start_server: StartServer, folder: Path, clocks: Clocks
) -> tuple[list[dict[str, int]], dict[int, Made]]:
    """What is exported of a store after a step of the wall clock, and the sessions by tokens."""
    server = started(start_server, folder, clocks)
    with opened(server.port) as wire:
        tokens = new(wire)
        clocks.set(10 * HOUR)
        until(lambda: "the clock of the machine was set" in server.stderr)
        wire.request("KV_SET", keys={"a": 1})
    command = [sys.executable, "-m", "ndb_server", "export", "--data-dir", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (folder.parent / "lines").write_text(lines)
    return [json.loads(line) for line in lines.splitlines()], tokens


def test_exported_deadlines_are_of_the_wall_clock_and_imported_ones_too(
    start_server: StartServer,
    clocks: Clocks,
    tmp_path: Path,
    exported: tuple[list[dict[str, int]], dict[int, Made]],
) -> None:
    lines, tokens = exported
    date = subprocess.run(
        ["date", "+%s"], env=clocks.env, capture_output=True, text=True, check=True
    )
    now = int(date.stdout) * 1000
    for line in lines[:3]:
        made = tokens[int(line["tkn"])]
        # What `date` says has no fraction.
        assert made.is_left((line["deadline"] - now) / 1000 - 1, made.period)
    command = [sys.executable, "-m", "ndb_server", "import", str(tmp_path / "lines")]
    imported = tmp_path / "imported"
    subprocess.run([*command, "--data-dir", str(imported)], env=clocks.env, check=True)
    with opened(started(start_server, imported, clocks).port) as wire:
        assert_whole(wire, tokens)


def test_dates_in_the_file_are_of_the_wall_clock(
    folder: Path, exported: tuple[list[dict[str, int]], dict[int, Made]]
) -> None:
    select = "SELECT tkn, strftime('%s', deadline) FROM readable_sessions"
    script = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"
    )
    command = [sys.executable, "-c", script, f"file:{folder / 'ndb.sqlite'}", select]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in exported[0][:3]:
        assert re.search(rf"'{line['tkn']}', '{line['deadline'] // 1000}'", found)
