"""File systems of their own, which can be filled, and servers that are killed at a call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.killed_servers import Forking
from tests.support.mounted_disks import mounted, run_or_skip
from tests.support.preloaded_libraries import compiled


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of some megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if request.param == "tmpfs":
        how = ["-t", "tmpfs", "-o", "size=6m", "tmpfs"]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(8 * 2**20)
        # No block is kept back for root. With blocks smaller than its pages, SQLite's shared memory
        # has holes, and a full disk is a SIGBUS.
        run_or_skip("mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(image))
        how = ["-o", "loop", str(image)]
    with mounted(disk, *how):
        disk.chmod(0o700)
        yield disk


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Forking]:
    forking = Forking(compiled(tmp_path))
    with forking.process:
        yield forking
        assert forking.process.stdin is not None
        forking.process.stdin.close()
