"""A server for which threads or memory run out, and one that fails as nobody has thought of."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from ndb_server.storage.files import lock
from ndb_server.storage.store import LOCK_FILE

from tests.support.raw_client import Wire, handshake, opened, text
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

STACK = 2**29
"""Bytes of a thread's stack: where less address space is left, no thread can be started."""

# A thread is only refused where its stack is larger than what is left of the address space. A hard
# limit on stacks can't be raised by who runs the tests, and then threads don't run out.
needs_large_stacks = pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY,
    reason="the hard limit of the stack is too low to have threads run out (ulimit -Hs)",
)

# Programs that become another one.
LARGE_STACKS = ["sh", "-c", f'ulimit -s {STACK // 1024}; exec "$@"', "sh"]
NO_THREADS = ["sh", "-c", 'ulimit -s 67108864; ulimit -v 33554432; exec "$@"', "sh"]


def virtual_memory(pid: int | str) -> int:
    """Return the bytes of address space that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def leave_room(server: Server, size: int | None) -> None:
    """Let a server have so many bytes of address space more than it has; None for any number."""
    most = resource.RLIM_INFINITY if size is None else virtual_memory(server.pid) + size
    resource.prlimit(server.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def run(
    *arguments: str, through: list[str] | None = None, status: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*(through or []), sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


def credentials(file: Path) -> str:
    """Add an entry that may do everything to a file; return the header by which it comes in."""
    roles = ("--role=app", "--role=kv", "--role=admin")
    add = run("-m", "ndb_server", "auth", "add", "shop", *roles, f"--auth-file={file}")
    return "Bearer " + add.stdout.split()[-1]


# Threads


@needs_large_stacks
@pytest.mark.parametrize(
    ("loop", "option"),
    [
        ("uvloop", "--host=localhost"),
        ("asyncio", "--host=localhost"),
        ("asyncio", "--data-dir=data"),
    ],
)
def test_a_server_that_cannot_start_its_threads_says_so(
    tmp_path: Path, loop: str, option: str
) -> None:
    name, _, value = option.partition("=")
    given = f"{name}={value if name == '--host' else tmp_path / value}"
    done = run(
        *("-m", "ndb_server", "--port=0", f"--loop={loop}", given), through=NO_THREADS, status=2
    )
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("ndb-server: cannot start a thread: allow the process more threads")
    os.close(lock(tmp_path / LOCK_FILE))


@needs_large_stacks
@LOOPS
def test_a_server_without_data_needs_no_thread(
    start_server: StartServer, tmp_path: Path, loop: str
) -> None:
    secret = credentials(tmp_path / "auth")
    server = start_server(f"--loop={loop}", f"--auth-file={tmp_path / 'auth'}", through=NO_THREADS)
    with Wire(server.port) as client:
        client.send(handshake(Authorization=secret))
        assert client.head()[0] == 101
        assert client.request("KV_SET", keys={"a": 1})["st"] == 1


@needs_large_stacks
@LOOPS
def test_a_server_that_has_started_needs_no_thread_more(
    start_server: StartServer, tmp_path: Path, loop: str
) -> None:
    secret = credentials(tmp_path / "auth")
    server = start_server(
        *(f"--loop={loop}", f"--data-dir={tmp_path / 'data'}", f"--auth-file={tmp_path / 'auth'}"),
        through=LARGE_STACKS,
    )
    leave_room(server, STACK // 2)
    with Wire(server.port) as client:
        client.send(handshake(Authorization=secret))
        assert client.head()[0] == 101
        assert client.request("KV_SET", keys={"a": 1})["st"] == 1
        assert client.request("KV_SAVE", name="evening")["st"] == 121
        assert client.request("KV_LOAD", name="evening")["st"] == 141
    server.stop()


@needs_large_stacks
def test_an_import_needs_no_thread(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text('{"key":"a","value":1}\n')
    command = ("-m", "ndb_server", "import", str(lines), f"--data-dir={tmp_path / 'data'}")
    assert "1 independent keys" in run(*command, through=NO_THREADS).stdout


# Memory

VALUE = "x" * 3_000_000


@LOOPS
def test_what_there_is_no_memory_for_is_refused_and_changes_nothing(
    start_server: StartServer, tmp_path: Path, loop: str
) -> None:
    options = (f"--loop={loop}", f"--data-dir={tmp_path}", "--shutdown-timeout=0")
    server = start_server(*options)
    outcomes: dict[str, int | None] = {}
    with opened(server.port) as other:
        assert other.request("KV_SET", keys={"other": 1})["st"] == 1
        leave_room(server, 50 * 2**20)
        while len(outcomes) < 100 and list(outcomes.values()).count(1) >= len(outcomes) - 4:
            outcomes[f"key {len(outcomes)}"] = set_value(server.port, f"key {len(outcomes)}")
        # Whoever asks for little is answered meanwhile.
        assert other.request("KV_GET", keys=["other"])["keys"] == {"other": 1}
        assert other.request("KV_SAVE", name="evening")["st"] in {121, 123}
        leave_room(server, None)
        assert other.request("KV_SET", keys={"other": 2})["st"] == 1
        check(other, outcomes)
    # Event loops log what they themselves have no memory for, with its trace.
    server.process.terminate()
    assert server.process.wait(BOUND) == 0
    server.killed = True
    assert set(outcomes.values()) - {1} <= {None, 202, 1000}
    assert {None, 202, 1000} & set(outcomes.values())
    assert "limits reached, with the number of times: process_memory" in server.stderr
    assert "Logging error" not in server.stderr
    with opened(start_server(*options).port) as client:
        check(client, outcomes)


def set_value(port: int, key: str) -> int | None:
    """Store a large value; return the status, None if the connection was ended instead."""
    try:
        with opened(port) as client:
            return int(client.request("KV_SET", keys={key: VALUE})["st"])
    except (AssertionError, OSError):
        return None


def check(client: Wire, outcomes: dict[str, int | None]) -> None:
    """See that what was stored is there, and what was refused is not."""
    stored = set(client.request("KV_KEYS")["keys"])
    assert {key for key, status in outcomes.items() if status == 1} <= stored
    assert not {key for key, status in outcomes.items() if status not in {1, None}} & stored


@LOOPS
def test_a_reply_that_there_is_no_memory_for_ends_nobody_elses_connection(
    start_server: StartServer, loop: str
) -> None:
    server = start_server(f"--loop={loop}", "--shutdown-timeout=0")
    names = [f"key {number}" for number in range(10)]
    with opened(server.port) as other, opened(server.port) as greedy:
        for name in names:
            assert other.request("KV_SET", keys={name: VALUE})["st"] == 1
        leave_room(server, 10 * 2**20)
        greedy.send(text({"KV_GET": {"keys": names}}))
        assert greedy.reply()["KV_GET_RSP"] == {"st": 1000, "m": "the server ran out of memory"}
        assert other.request("KV_COUNT")["cnt"] == len(names)


RESTORE = """
import resource, sys
from pathlib import Path
import uvloop
from ndb_server.cli import main as cli

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 8 * 2**20, resource.RLIM_INFINITY))
cli.main(["--port=0", *sys.argv[1:]])
"""


def test_a_start_that_there_is_no_memory_for_says_so_and_not_that_files_are_damaged(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(f"--data-dir={tmp_path}")
    with opened(server.port) as client:
        for number in range(10):
            assert client.request("KV_SET", keys={f"key {number}": VALUE})["st"] == 1
        assert client.request("KV_SAVE", name="evening")["st"] == 121
    server.stop()
    done = run("-c", RESTORE, f"--data-dir={tmp_path}", status=2)
    [line] = done.stderr.splitlines()
    assert line.startswith("ndb-server: out of memory: allow the process more")


# What nobody has thought of

FAILING = """
import asyncio, gc, sys
from pathlib import Path
from ndb_server.engine.batch import ChangeSet
from ndb_server.server.server import Options, serve
from ndb_server.storage.store import Store

def fail_to_tell(url):
    raise AttributeError

def break_the_store(url):
    [store] = [one for one in gc.get_objects() if isinstance(one, Store)]
    store.write(ChangeSet(False, [], [object()], {}), lambda _: None)

asyncio.run(serve(Options(port=0, data_dir=Path(sys.argv[1])), globals()[sys.argv[2]]))
"""


@pytest.mark.parametrize(
    ("way", "error"), [("fail_to_tell", "AttributeError"), ("break_the_store", "BrokenError")]
)
def test_a_server_that_fails_ends_and_lets_go_of_its_folder(
    tmp_path: Path, way: str, error: str
) -> None:
    # The objects that are there are looked through before they are frozen.
    script = FAILING.replace("asyncio.run", "gc.freeze = lambda: None\nasyncio.run")
    done = run("-c", script, str(tmp_path), way, status=1)
    assert error in done.stderr.splitlines()[-1]
    os.close(lock(tmp_path / LOCK_FILE))


def test_a_signal_ends_a_server_that_fails_at_its_start(tmp_path: Path) -> None:
    """It was ignored by then, and the store's thread held the process."""
    told = "os.kill(os.getpid(), 15)\n    raise ValueError"
    script = FAILING.replace("raise AttributeError", told)
    done = run("-c", "import os\n" + script, str(tmp_path), "fail_to_tell", status=1)
    assert "ValueError" in done.stderr
    os.close(lock(tmp_path / LOCK_FILE))


PROGRAM = """
import gc, sys
from ndb_server.cli import main as cli
from ndb_server.engine.batch import ChangeSet
from ndb_server.storage.store import Store

def break_the_store():
    [store] = [one for one in gc.get_objects() if isinstance(one, Store)]
    store.write(ChangeSet(False, [], [object()], {}), lambda _: None)

def fail():
    raise LookupError

gc.freeze = globals()[sys.argv[1]]
cli.main(["--port=0", f"--data-dir={sys.argv[2]}"])
"""


@pytest.mark.parametrize(
    ("way", "said", "trace"),
    [
        ("break_the_store", "the store failed; the log has the cause", "TypeError"),
        ("fail", "unexpected error LookupError; the log has the details", "LookupError"),
    ],
)
def test_a_program_that_fails_says_so_in_a_line_behind_where_it_was(
    tmp_path: Path, way: str, said: str, trace: str
) -> None:
    done = run("-c", PROGRAM, way, str(tmp_path), status=1)
    *log, line = done.stderr.splitlines()
    assert line == f"ndb-server: {said}"
    assert {"Traceback (most recent call last):", trace} <= set(log)
