"""Real servers for the tests to talk to, and an eye on what the event loop is told."""

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TypeVar

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

# What is asserted there says what it compared, as in tests.
pytest.register_assert_rewrite("tests.support")

from tests.support.server_process import SECONDS_TO_START, Server, StartServer  # noqa: E402

# How long an example takes, to make or to run, says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell has what it runs in the background ignore it, and what that starts with it.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
