"""The kit as who has it runs it: its own process, its last line, its exit status."""

import subprocess
import sys
from dataclasses import dataclass

SECONDS = 110
PATIENCE = 60
"""Seconds of silence after which a server or a client has failed, unless a test says otherwise."""


@dataclass(frozen=True)
class Ran:
    """What came of a run.

    Attributes:
        status: the exit status.
        lines: what was printed on standard output.
        stderr: what was printed on standard error.
    """

    status: int
    lines: list[str]
    stderr: str

    @property
    def counts(self) -> dict[str, int]:
        """The total, which is the last line."""
        return {what: int(n) for n, what in (part.split() for part in self.lines[-1].split(", "))}


def run_kit(*arguments: str) -> Ran:
    """Run ``ndb-conformance``."""
    ran = subprocess.run(
        [sys.executable, "-m", "ndb_protocol.conformance", f"--timeout={PATIENCE}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Ran(ran.returncode, ran.stdout.splitlines(), ran.stderr)
