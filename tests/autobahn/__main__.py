"""Run the Autobahn test suite against both echoes; exit with 1 if ours is worse.

Usage: python -m tests.autobahn WSTEST

WSTEST is the program of the suite. Its reports are left in ``build/autobahn``.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .compare import OURS, PLAIN, main

SPECIFICATION = Path(__file__).with_name("fuzzingclient.json")


@contextmanager
def echo(*options: str) -> Iterator[str]:
    """Run an echo; yield its URL."""
    command = [sys.executable, "-m", "tests.autobahn.echo", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def run(wstest: str) -> int:
    specification = json.loads(SPECIFICATION.read_text())
    with echo() as ours, echo("--plain") as plain, TemporaryDirectory() as folder:
        specification["servers"] = [
            {"agent": OURS, "url": ours},
            {"agent": PLAIN, "url": plain},
        ]
        path = Path(folder) / SPECIFICATION.name
        path.write_text(json.dumps(specification))
        command = [wstest, "--mode", "fuzzingclient", "--spec", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return main(Path(specification["outdir"]) / "index.json")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m tests.autobahn WSTEST")
    sys.exit(run(sys.argv[1]))
