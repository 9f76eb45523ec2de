"""Servers as the pages start them: real processes, on any free port."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAM = [sys.executable, "-m", "ndb_server"]


def on_a_free_port(options: Sequence[str]) -> list[str]:
    """Return `options` with port 0, which the command line has the last word on."""
    chosen = list(options)
    if "--port" in chosen:
        at = chosen.index("--port")
        del chosen[at : at + 2]
    return [*chosen, "--port", "0"]


@contextmanager
def running(
    options: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server in `folder` and yield its URL; stopping it must succeed."""
    with subprocess.Popen(
        [*PROGRAM, *on_a_free_port(options)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stdout is not None
        try:
            uri = process.stdout.readline().strip()
            assert uri.startswith("ws://"), "the server did not start; its stderr says why"
            yield uri
        finally:
            process.terminate()
            status = process.wait(timeout=30)
        assert status == 0
        assert process.stdout.read() == "", "nothing but the URL belongs on stdout"
