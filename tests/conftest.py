"""Real servers for the tests to talk to, and an eye on what the event loop is told."""

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

# How long an example takes, to make or to run, says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell has what it runs in the background ignore it, and what that starts with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

SECONDS_TO_START = 60
SECONDS_TO_STOP = 60


def pytest_sessionfinish() -> None:
    """Write down what this process saw, if that is measured.

    It would be written when the process ends, but pytest-xdist kills a worker that takes more than
    10 seconds for that.
    """
    coverage = Coverage.current()
    if coverage is not None:
        coverage.save()


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def without_skip(report: Report) -> Report:
    """Make a skip a failure in CI: what is never run there is not known to work."""
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"CI allows no skip: {report.longreprtext}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return without_skip((yield))


@dataclass
class Server:
    """A server in a process of its own.

    Attributes:
        process: the process.
        url: where it accepts connections.
        stderr_file: what it writes to stderr.
        killed: the test ended it by other means than `stop`: how it exits is the test's concern.
    """

    process: subprocess.Popen[str]
    url: str
    stderr_file: Path
    killed: bool = False

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    def stop(self) -> None:
        """Ask the server to stop, as an operator would, and see that it does so in order."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(SECONDS_TO_STOP)
        assert "Traceback" not in self.stderr, self.stderr
        assert status == 0, self.stderr

    def kill(self) -> None:
        """End the server at once, as the out-of-memory killer would."""
        self.killed = True
        self.process.kill()
        self.process.wait(SECONDS_TO_STOP)


class StartServer(Protocol):
    """Starts a server on any free port, with more arguments and environment variables.

    `through` is a program that becomes the server, and `pass_fds` are descriptors it has.
    """

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> Server: ...


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(
        *args: str,
        env: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> Server:
        stderr_file = tmp_path_factory.mktemp("server") / "stderr"
        with stderr_file.open("w") as stderr:
            process = subprocess.Popen(
                [*through, sys.executable, "-m", "ndb_server", "--port", "0", *args],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
            )
        server = Server(process, "", stderr_file)
        servers.append(server)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], SECONDS_TO_START)
        server.url = process.stdout.readline().strip() if ready else ""
        if not server.url:
            server.killed = True
            pytest.fail(f"the server did not start: {server.stderr}")
        return server

    yield start
    for server in servers:
        assert server.process.stdout is not None
        with server.process.stdout:
            if not server.killed:
                server.stop()
            elif server.process.poll() is None:
                server.kill()


@pytest.fixture
def server(start_server: StartServer) -> Server:
    return start_server()


@pytest.fixture(autouse=True)
def nothing_reaches_the_loops_exception_handler(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which a callback raised, or an exception was never looked at.

    The handler of asyncio logs what it is told, and does nothing else.
    """
    yield
    told = [
        record.getMessage()
        for record in caplog.get_records("setup") + caplog.get_records("call")
        if record.name == "asyncio" and record.levelno >= logging.ERROR
    ]
    assert not told
