"""File systems of their own, which can be filled, and faults in a running server."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.durability.files import compiled
from tests.durability.killing import Forking
from tests.e2e.wire import BOUND


def run(*command: str) -> str:
    """Run a command; return why it could not, if so."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]}"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr or "it failed" if done.returncode else ""


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of some megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if request.param == "tmpfs":
        refused = run("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk))
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(8 * 2**20)
        # No block is kept back for root. With blocks smaller than its pages, SQLite's shared memory
        # has holes, and a full disk is a SIGBUS.
        refused = run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(image)) or run(
            "mount", "-o", "loop", str(image), str(disk)
        )
    if refused:
        pytest.skip(f"no {request.param} can be mounted here: {refused}")
    try:
        disk.chmod(0o700)
        yield disk
    finally:
        assert not run("umount", str(disk))


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Forking]:
    forking = Forking(compiled(tmp_path))
    with forking.process:
        yield forking
        assert forking.process.stdin is not None
        forking.process.stdin.close()


@contextmanager
def faults(server: Server, calls: str, fault: str) -> Iterator[None]:
    """Have system calls of a server fail, or take long: see ``inject`` of strace(1)."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; on Debian: apt-get install strace")
    command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
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
