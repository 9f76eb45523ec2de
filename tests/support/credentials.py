"""Entries in a file of credentials, and the headers that show their secrets."""

import base64
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import BOUND


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def auth(*arguments: str) -> str:
    """Run ``ndb-server auth``; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ndb_server", "auth", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=BOUND,
    )
    assert done.stderr == ""
    return done.stdout


def added(file: Path, name: str, *roles: str) -> str:
    """Add an entry to a file of credentials; return its secret."""
    options = [f"--role={role}" for role in roles]
    return auth("add", name, *options, "--auth-file", str(file)).split()[-1]
