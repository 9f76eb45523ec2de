"""The command `ndb bench`, against a real server."""

import asyncio
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest
from ndb import SessionClient
from ndb.bench import OPERATIONS

from tests.support.documentation_pages import blocks
from tests.support.project_sources import ROOT
from tests.support.server_process import Server
from tests.support.waiting import BOUND

NDB = (sys.executable, "-m", "ndb")
SMALL = ("--clients", "3", "--in-flight", "4", "--sessions", "20", "--seconds", "0.3")

FIGURES = {"requests", "throughput", "latencyMs", "errors"}


def ndb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NDB, *arguments], check=False, capture_output=True, text=True, timeout=BOUND
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*NDB, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def counts(server: Server) -> dict[str, int]:
    async with SessionClient(server.url) as client:
        return await client.session_info_all()


async def until_prepared(client: SessionClient, sessions: int) -> None:
    """Ask until there are so many sessions with their keys."""
    async with asyncio.timeout(BOUND):
        while (await client.session_info_all())["totalKeys"] < 4 * sessions:
            pass


async def test_every_operation_is_measured_and_nothing_is_left_behind(server: Server) -> None:
    mix = dict.fromkeys(OPERATIONS, 1)
    options = ("--value-size", "100", "--mix", ",".join(f"{name}=1" for name in mix))
    # Each operation is to have its turn.
    done = ndb("bench", "--json", "--url", server.url, *SMALL[:-1], "1", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    result: dict[str, Any] = json.loads(done.stdout)
    measured = {name: result.pop(name) for name in ("seconds", "cpu", "operations", "total")}
    assert result == {"clients": 3, "inFlight": 4, "sessions": 20, "valueSize": 100, "mix": mix}
    assert measured["seconds"] > 0
    assert measured["cpu"] > 0
    operations, total = measured["operations"], measured["total"]
    assert operations.keys() == mix.keys()
    for figures in (*operations.values(), total):
        assert figures.keys() == FIGURES
        assert figures["requests"] > 0
        assert figures["throughput"] > 0
        latencies = figures["latencyMs"]
        assert 0 < latencies["p50"] <= latencies["p99"] <= latencies["p99.9"]
        assert figures["errors"] == {}
    assert sum(figures["requests"] for figures in operations.values()) == total["requests"]
    assert await counts(server) == {"totalSessions": 0, "totalKeys": 0}


async def test_sessions_of_others_are_left_alone(server: Server) -> None:
    async with SessionClient(server.url) as client:
        session = await client.create_session()
        await client.set({"a": 1}, session)
        assert ndb("bench", "--url", server.url, *SMALL).returncode == 0
        assert await client.get(["a"], session) == {"a": 1}
    assert await counts(server) == {"totalSessions": 1, "totalKeys": 1}


def test_the_table_has_a_row_for_each_operation_and_one_for_all(server: Server) -> None:
    done = ndb("bench", "--url", server.url, *SMALL, "--mix", "get=1,count=1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if line.split()]
    assert " ".join(lines[0]) == "requests requests/s p50 ms p99 ms p99.9 ms errors"
    assert [line[0] for line in lines[2:5]] == ["get", "count", "total"]
    for line in lines[2:5]:
        assert len(line) == 7
        assert line[-1] == "0"
    assert "3 clients with 4 in flight each, 20 sessions, values of 16 bytes" in done.stdout


async def test_refused_requests_are_told_and_make_it_fail(server: Server) -> None:
    with start("bench", "--url", server.url, "--sessions", "20", "--seconds", "3") as program:
        async with SessionClient(server.url) as client:
            await until_prepared(client, 20)
            await client.end_all_sessions()
        stdout, stderr = program.communicate(timeout=BOUND)
    assert (program.returncode, stderr) == (1, "")
    assert "errors: SESSION_NOT_EXIST" in stdout


@pytest.mark.parametrize("sessions", [50, 100_000], ids=["measuring", "creating sessions"])
async def test_interrupted_it_ends_its_sessions(server: Server, sessions: int) -> None:
    arguments = ("--url", server.url, "--sessions", str(sessions), "--seconds", "60")
    with start("bench", *arguments) as program:
        async with SessionClient(server.url) as client:
            await until_prepared(client, 50)
        program.send_signal(signal.SIGINT)
        stdout, stderr = program.communicate(timeout=BOUND)
    assert (program.returncode, stdout, stderr) == (130, "", "")
    assert await counts(server) == {"totalSessions": 0, "totalKeys": 0}


async def test_a_server_that_goes_away_for_good_is_one_line(server: Server) -> None:
    with start("bench", "--url", server.url, "--sessions", "20", "--seconds", "60") as program:
        async with SessionClient(server.url) as client:
            await until_prepared(client, 20)
        server.kill()
        stdout, stderr = program.communicate(timeout=BOUND)
    assert (program.returncode, stdout) == (1, "")
    assert stderr.startswith("ndb: ")
    assert stderr.count("\n") == 1


async def test_a_value_that_the_server_does_not_take_is_one_line(server: Server) -> None:
    done = ndb("bench", "--url", server.url, "--value-size", "3000000", "--sessions", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ndb: the request has 12,000,0")
    assert "and the server takes at most 4,194,304" in done.stderr
    assert done.stderr.count("\n") == 1
    assert await counts(server) == {"totalSessions": 0, "totalKeys": 0}


def test_an_unreachable_server_is_one_line(server: Server) -> None:
    server.stop()
    done = ndb("bench", "--url", server.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ndb: can't connect to 127.0.0.1:{server.port}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--mix get=0", "--mix: the weight of get is '0', not a positive integer"),
        ("--mix pop=1", "--mix: 'pop' is not an operation; the operations are get, "),
        ("--mix get=1,get=1", "--mix: get is given twice"),
        ("--mix=", "--mix: '' is not an operation"),
        ("--clients 0", '"0" for --clients. Must be >= 1.'),
        ("--in-flight 0", '"0" for --in-flight. Must be >= 1.'),
        ("--sessions 0", '"0" for --sessions. Must be >= 1.'),
        ("--sessions many", '--sessions: unable to convert "many" into int.'),
        ("--value-size -1", '"-1" for --value-size. Must be >= 0.'),
        ("--seconds 0", '"0.0" for --seconds. Must be > 0.'),
        ("--seconds nan", '"nan" for --seconds.'),
        ("--seconds inf", '"inf" for --seconds.'),
        ("--url http://127.0.0.1/", "not a WebSocket URI: scheme isn't ws or wss"),
        ("--url=", "no URI; use ws://HOST:PORT/"),
        ("--bogus", "Unknown option: --bogus."),
        ("more", "Unused Tokens: ['more']."),
    ],
)
def test_bad_usage_is_one_line_that_names_it(arguments: str, reason: str) -> None:
    done = ndb("bench", *shlex.split(arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ndb: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_password_in_the_url_is_not_told() -> None:
    done = ndb("bench", "--url", "ws://ada:secret@127.0.0.1:1/")
    assert done.returncode == 2
    assert "secret" not in done.stderr


def test_without_its_extra_it_says_how_to_get_it() -> None:
    absent = "import sys; sys.modules['cyclopts'] = None; import ndb.cli; ndb.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", absent, "bench"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "ndb: the command line is an optional extra; run pip install 'ndb-client[cli]'\n"
    )


def test_a_terminal_shows_progress(server: Server) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*NDB, "bench", "--json", "--url", server.url, *SMALL],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        text=True,
    ) as program:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:
            # How Linux says that nobody has the other end of the terminal any more.
            pass
        finally:
            os.close(ours)
        stdout, _ = program.communicate(timeout=BOUND)
    assert json.loads(stdout)["total"]["requests"] > 0
    for what in (b"creating sessions", b"measuring: ", b"requests/s", b"ending sessions"):
        assert what in shown


def test_what_the_page_says_works(server: Server) -> None:
    page = ROOT / "docs" / "howto" / "measure-a-server.md"
    lines = [line for block in blocks(page) for line in block.text.splitlines()]
    commands = [line for line in lines if line.startswith("$ ndb bench")]
    assert commands
    for command in commands:
        _, *arguments = shlex.split(command.removeprefix("$ "))
        done = ndb(*without(arguments, "--url", "--seconds"), "--url", server.url, *SMALL[-2:])
        assert (done.returncode, done.stderr) == (0, "")


def without(arguments: list[str], *names: str) -> list[str]:
    """Return `arguments` without some options and their values."""
    kept = list(arguments)
    for name in names:
        if name in kept:
            at = kept.index(name)
            del kept[at : at + 2]
    return kept
