"""The command line of the server, run in the process of the test."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from ndb_server.cli import main as cli

from tests.support.waiting import BOUND


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the program; return its status and what it said."""
    capfd.readouterr()
    status = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = int(exit.code or 0)
    sys.stdout.flush()
    said = capfd.readouterr()
    return status, said.out, said.err


def exported(capfd: pytest.CaptureFixture[str], folder: Path, *more: str) -> list[str]:
    """Return the lines of an export that succeeds."""
    status, out, err = run(capfd, "export", "--data-dir", folder, *more)
    assert (status, err) == (0, "")
    return out.splitlines()


def error_of(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the program, which must not start; return the one line it says."""
    # A server that starts where it should not would run on.
    stop = threading.Timer(BOUND, os.kill, (os.getpid(), signal.SIGTERM))
    stop.start()
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments])
    finally:
        stop.cancel()
    assert caught.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("\n")
    [line] = err.splitlines()
    assert line.startswith("ndb-server: ")
    return line
