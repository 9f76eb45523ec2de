"""Keep a server busy for long, and see that nothing grows and nothing is left over.

Usage: python -m tests.soak [--short | --minutes MINUTES]

Clients come and go, politely and not; sessions are used, ended and left to expire; everything is
saved and loaded meanwhile (`load.py`). How many there are of anything is bounded, so the server's
memory has no reason to grow.

The first fifth of the time belongs to twice as many clients, and the server takes what it needs for
them: what it needs later is less, however much of the machine the clients get. What follows is cut
into eight parts; the median of the resident memory in each must be within 5 % of that in the first.
In the end, when all clients have gone and their sessions have expired, there must be as many
descriptors and tasks as in the beginning, and no connection, session or key.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.http_client import ops_port, scrape
from tests.support.process_memory import resident_bytes

from .load import CLIENTS, Load

MINUTES = 30
SHORT = 2
WARM_UP = 0.2
PARTS = 8
TOLERANCE = 0.05
SECONDS_BETWEEN_SAMPLES = 0.25
SECONDS_TO_END = 120
"""The most that is waited for the end of what is to end, beside CI's tests too."""

LEFT_OVER = (
    "ndb_process_open_fds",
    "ndb_tasks",
    "ndb_connections",
    "ndb_sessions",
    "ndb_session_keys",
    "ndb_keys",
)
"""What must be in the end what it was in the beginning."""


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Run a server; yield its process id, its port and that for metrics."""
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ndb_server", "--port=0", "--ops-port=0"),
                f"--data-dir={folder / 'data'}",
            ],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
            yield process.pid, port, ops_port(log.read_text())
        finally:
            process.terminate()
            status = process.wait(SECONDS_TO_END)
    assert status == 0, f"the server exited with {status}"
    assert "Traceback" not in log.read_text(), log.read_text()


def left_over(http_port: int) -> dict[str, float]:
    samples = scrape(http_port)
    return {name: samples[name, ()] for name in LEFT_OVER}


async def memory(pid: int, load: Load, seconds: float, parts: int) -> list[float]:
    """Put a load on a server; return its resident bytes in each part of the time."""
    loading = asyncio.create_task(load.run())
    begin = time.monotonic()
    found = []
    for number in range(parts):
        end = begin + seconds * (number + 1) / parts
        samples = [resident_bytes(pid)]
        while time.monotonic() < end:
            await asyncio.wait([loading], timeout=SECONDS_BETWEEN_SAMPLES)
            if loading.done():
                # Nothing ends it but an error.
                await loading
            samples.append(resident_bytes(pid))
        found.append(statistics.median(samples))
        print(
            f"{time.monotonic() - begin:5.0f} s: {found[-1] / 2**20:.2f} MiB, "
            f"{load.requests:,} requests, {load.connections:,} connections, {load.saves} saves",
            flush=True,
        )
    load.stop()
    await loading
    return found


def soak(pid: int, port: int, http_port: int, seconds: float) -> Iterator[str]:
    """Load a server; yield what is wrong."""
    # The first time takes what the others find: SQLite keeps the descriptor of a reader that is
    # gone for the next, as POSIX locks end with any descriptor of their file.
    asyncio.run(Load(port, CLIENTS).save())
    scrape(http_port)
    before = left_over(http_port)
    asyncio.run(memory(pid, Load(port, 2 * CLIENTS), seconds * WARM_UP, 1))
    first, *others = asyncio.run(memory(pid, Load(port, CLIENTS), seconds * (1 - WARM_UP), PARTS))
    change = max((other / first - 1 for other in others), key=abs)
    print(f"resident memory changed by {change:+.1%}")
    if abs(change) > TOLERANCE:
        yield f"resident memory changed by more than {TOLERANCE:.0%}"
    deadline = time.monotonic() + SECONDS_TO_END
    while (after := left_over(http_port)) != before and time.monotonic() < deadline:
        pass
    for name, value in after.items():
        print(f"{name}: {before[name]:.0f} in the beginning, {value:.0f} in the end")
        if value != before[name]:
            yield f"{name} is not what it was in the beginning"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--short", action="store_true", help=f"{SHORT} minutes")
    arguments = parser.parse_args()
    minutes = SHORT if arguments.short else arguments.minutes
    with TemporaryDirectory() as folder, server(Path(folder)) as (pid, port, http_port):
        wrong = list(soak(pid, port, http_port, minutes * 60))
    sys.exit("; ".join(wrong) or None)


if __name__ == "__main__":
    main()
