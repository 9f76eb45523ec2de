"""Programs that are started with standard descriptors missing, or with an output that is full."""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, combinations
from pathlib import Path

import pytest
from ndb_server.storage.files import lock
from ndb_server.storage.store import LOCK_FILE

from tests.support.raw_client import opened
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND, until

COMBINATIONS = list(chain.from_iterable(combinations((0, 1, 2), count) for count in range(4)))


def without(descriptors: tuple[int, ...], command: list[str]) -> list[str]:
    """Return how to run `command` without these descriptors."""
    closed = " ".join(f"{number}>&-" for number in descriptors)
    return ["sh", "-c", f'exec "$@" {closed}', "sh", *command]


def server_program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ndb_server", *arguments]


def listening_port(pid: int) -> int | None:
    """Return the port on which a process listens; None if it does not yet."""
    # A line of /proc/net/tcp has local and remote address, state and, as the tenth column, inode.
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = {line[9]: int(line[1].split(":")[1], 16) for line in lines if line[3] == "0A"}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed by now.
        with suppress(FileNotFoundError):
            found = re.fullmatch(r"socket:\[([0-9]+)\]", entry.readlink().name)
            if found and found[1] in ports:
                return ports[found[1]]
    return None


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_without_standard_descriptors_starts_serves_and_stops(
    tmp_path: Path, loop: str
) -> None:
    with ExitStack() as running:
        servers: dict[tuple[int, ...], subprocess.Popen[bytes]] = {}
        for missing in COMBINATIONS:
            folder = tmp_path / "-".join(["without", *map(str, missing)])
            command = server_program("--port=0", f"--loop={loop}", f"--data-dir={folder}")
            with folder.with_suffix(".log").open("wb") as log:
                servers[missing] = running.enter_context(
                    subprocess.Popen(without(missing, command), stdout=subprocess.PIPE, stderr=log)
                )
            running.callback(servers[missing].kill)
        for missing, process in servers.items():
            with opened(until(partial(listening_port, process.pid)) or 0) as client:
                assert client.request("KV_SET", keys={"a": 1})["st"] == 1
            for number in missing:
                # It holds the place of what is missing; no file and no socket has it.
                assert Path(f"/proc/{process.pid}/fd/{number}").readlink() == Path(os.devnull)
            process.terminate()
        for missing, process in servers.items():
            assert process.wait(BOUND) == 0
            folder = tmp_path / "-".join(["without", *map(str, missing)])
            os.close(lock(folder / LOCK_FILE))
            assert process.stdout is not None
            printed = process.stdout.read()
            assert printed.startswith(b"ws://") is (1 not in missing)
            logged = folder.with_suffix(".log").read_text()
            assert ("accepts connections" in logged) is (2 not in missing)
            assert "Traceback" not in logged


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a key and a dataset."""
    folder = tmp_path_factory.mktemp("some") / "data"
    process = subprocess.Popen(
        server_program("--port=0", f"--data-dir={folder}"), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
        with opened(port) as client:
            assert client.request("KV_SET", keys={"a": 1})["st"] == 1
            assert client.request("KV_SAVE", name="evening")["st"] == 121
        process.send_signal(signal.SIGTERM)
    return folder


COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("ndb_server", "check", "--data-dir={data}"),
    "datasets": ("ndb_server", "datasets", "--data-dir={data}"),
    "export": ("ndb_server", "export", "--data-dir={data}"),
    "auth list": ("ndb_server", "auth", "list", "--auth-file={auth}"),
    "version": ("ndb_server", "--version"),
    "ndb --version": ("ndb", "--version"),
    "ndb-conformance --version": ("ndb_protocol.conformance", "--version"),
    "schema": ("ndb_protocol", "schema"),
}


def run(
    command: tuple[str, ...], redirections: str, **paths: Path
) -> subprocess.CompletedProcess[str]:
    arguments = [argument.format(**paths) for argument in command]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


@pytest.fixture(scope="module")
def auth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("auth") / "auth"
    add = ("ndb_server", "auth", "add", "shop", "--role=app", "--auth-file={auth}")
    assert run(add, "", auth=file).returncode == 0
    return file


@pytest.mark.parametrize(
    ("command", "redirection", "why"),
    [
        *((command, ">&-", "Bad file descriptor") for command in COMMANDS),
        *((command, ">/dev/full", "No space left on device") for command in ("check", "schema")),
    ],
)
def test_a_command_whose_output_cannot_be_written_fails_and_says_so(
    command: str, redirection: str, why: str, data: Path, auth: Path
) -> None:
    done = run(COMMANDS[command], redirection, data=data, auth=auth)
    assert done.returncode in (1, 2)
    [line] = done.stderr.splitlines()
    assert re.fullmatch(rf"[a-z_ -]+: cannot write to standard output: {why}", line)


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"], ids=["closed", "full"])
def test_no_credentials_are_added_whose_secret_nobody_sees(
    redirection: str, tmp_path: Path
) -> None:
    add = ("ndb_server", "auth", "add", "shop", "--role=app", "--auth-file={auth}")
    done = run(add, redirection, auth=tmp_path / "auth")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "cannot write to standard output" in line
    assert not list(tmp_path.iterdir())
    assert run((*add[:3], "web", *add[4:]), "", auth=tmp_path / "auth").returncode == 0
    kept = (tmp_path / "auth").read_text()
    assert run(add, redirection, auth=tmp_path / "auth").returncode == 1
    assert (tmp_path / "auth").read_text() == kept


def test_nothing_is_imported_from_an_input_that_is_closed(tmp_path: Path) -> None:
    done = run(("ndb_server", "import", "-", "--data-dir={data}"), "<&-", data=tmp_path / "data")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("ndb-server: cannot import - into")
    assert line.endswith("Bad file descriptor")


@pytest.mark.parametrize(
    "command",
    [("ndb_server", "--bogus"), ("ndb", "--bogus"), ("ndb_protocol.conformance",)],
    ids=["ndb-server", "ndb", "ndb-conformance"],
)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
def test_an_error_that_cannot_be_said_has_the_same_status(
    command: tuple[str, ...], redirection: str
) -> None:
    done = run(command, redirection)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_measurement_without_standard_descriptors_is_made(start_server: StartServer) -> None:
    measure = (
        *("ndb", "bench", f"--url={start_server().url}", "--clients=2", "--sessions=10"),
        "--seconds=0.1",
    )
    assert run(measure, "<&- 2>&-").stdout
    done = run(measure, "<&- >&-")
    assert done.returncode == 1
    assert done.stderr == "ndb: cannot write to standard output: Bad file descriptor\n"


def test_a_server_is_checked_without_standard_descriptors(start_server: StartServer) -> None:
    check = ("ndb_protocol.conformance", start_server().url, "--only=SV_INFO/*")
    done = run(check, "<&- 2>&-")
    assert (done.returncode, "SV_INFO" in done.stdout or "passed" in done.stdout) == (0, True)
    done = run(check, "<&- >&-")
    assert done.returncode == 2
    assert "cannot write to standard output: Bad file descriptor" in done.stderr
