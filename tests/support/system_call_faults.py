"""System calls of a running server that fail, or take long."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import installed
from tests.support.server_process import Server
from tests.support.waiting import BOUND


@contextmanager
def faults(server: Server, calls: str, fault: str) -> Iterator[None]:
    """Have system calls of a server fail, or take long: see ``inject`` of strace(1)."""
    command = [installed("strace"), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:{fault}", "-p", str(server.pid)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until_traced(server, process)
        yield
    finally:
        # Detaches, and lets the server go on.
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=BOUND)
        if "not permitted" in said:
            pytest.skip(f"strace can't attach here: {said}")


def until_traced(server: Server, strace: subprocess.Popen[str]) -> None:
    """Wait until every thread is traced; the bound is that of the test."""
    tasks = Path(f"/proc/{server.pid}/task")
    while strace.poll() is None:
        if all("TracerPid:\t0" not in (task / "status").read_text() for task in tasks.iterdir()):
            return
