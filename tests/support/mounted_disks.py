"""File systems that are mounted for a test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import installed


def run_or_skip(*command: str) -> None:
    """Run a command; skip the test if it can't be run here."""
    installed(command[0])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} can't be used here: {done.stderr or 'it failed'}")


@contextmanager
def mounted(folder: Path, *how: str) -> Iterator[None]:
    """Have a file system mounted on `folder`, as mount(8) is told; skip the test if it can't be."""
    run_or_skip("mount", *how, str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
