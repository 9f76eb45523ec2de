"""Count the instructions that a request takes in the server and in the client.

Usage: python -m tests.benchmarks.instructions [--against PYTHON]

valgrind counts those of a process, without the kernel. However busy the machine is, they are the
same within a hundredth. PYTHON is that of an environment with another version of the three
distributions, which is measured in turn with this one.

Each figure is the difference of two runs, one with more requests than the other: what a process
takes to start and to end is in both.
"""

import argparse
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from . import peers
from .filling import HANDSHAKE, fill, frame
from .load import compiled
from .machine import describe
from .peers import MissingError, Peer

SESSIONS = 1000
CONNECTIONS = 50

Count = Callable[[str, int], int]
"""Counts all instructions of a process that has the code of a Python, with so many requests."""


@contextmanager
def valgrind() -> Iterator[tuple[list[str], Callable[[], int]]]:
    """Yield what runs a command under valgrind, and what returns its count when it has ended.

    Raises:
        MissingError: it can't be run here.
    """
    if shutil.which("valgrind") is None:
        raise MissingError("valgrind is not installed (apt-get install valgrind)")
    clock = compiled("slower_clock.c", "-shared", "-fPIC")
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"

        def count() -> int:
            [found] = re.findall(r"I +refs: +([\d,]+)", log.read_text())
            return int(found.replace(",", ""))

        # A hash table has the same collisions each time.
        through = ["env", f"LD_PRELOAD={clock}", "PYTHONHASHSEED=0", "valgrind"]
        through += ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        yield [*through, f"--log-file={log}"], count


def ask(peer: Peer, tokens: Sequence[int], depth: int, requests: int) -> None:
    """Make requests on all connections, `depth` of them in each write, which is one read."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", peer.port)))
            for _ in range(CONNECTIONS)
        ]
        for connection in sockets:
            connection.sendall(HANDSHAKE)
            assert b" 101 " in connection.recv(2**16)
        made = 0
        while made < requests:
            for connection in sockets:
                chosen = [tokens[(made + number) % len(tokens)] for number in range(depth)]
                connection.sendall(
                    b"".join(
                        frame(f'{{"SH_GET":{{"tkn":{tkn},"keys":["a","b"]}}}}') for tkn in chosen
                    )
                )
                made += depth
            for connection in sockets:
                replies = b""
                while replies.count(b"}}") < depth:
                    replies += connection.recv(2**16)
                assert replies.count(b'"value-a-') == depth


def server(depth: int) -> Count:
    def count(python: str, requests: int) -> int:
        with valgrind() as (through, counted):
            with peers.ndb(python=python, through=through) as peer:
                ask(peer, fill(peer, SESSIONS), depth, requests)
            return counted()

    return count


def client(name: str, tasks: int) -> Count:
    script = Path(__file__).with_name("programs.py")

    def count(python: str, requests: int) -> int:
        with ExitStack() as stack:
            peer = stack.enter_context(peers.ndb() if name == "ndb" else peers.redis())
            tokens = fill(peer, SESSIONS)
            through, counted = stack.enter_context(valgrind())
            words = [name, str(peer.port), str(tasks), f"--requests={requests}"]
            subprocess.run(
                [*through, python, str(script), *words],
                input="\n".join(map(str, tokens)),
                check=True,
                text=True,
            )
            return counted()

    return count


OURS: dict[str, tuple[Count, int]] = {
    "server, 50 connections × 16 requests in a read": (server(16), 80_000),
    "server, 50 connections × one request in a read": (server(1), 20_000),
    "our client, 32 tasks": (client("ndb", 32), 19_200),
    "our client, one task": (client("ndb", 1), 10_000),
}
"""What is measured, and with how many requests."""

THEIRS: dict[str, tuple[Count, int]] = {
    "redis-py, 32 tasks": (client("redis", 32), 6_400),
    "redis-py, pipelines of 32": (client("redis-pipeline", 32), 12_800),
    "redis-py, one task": (client("redis", 1), 5_000),
}


def of_a_request(count: Count, python: str, requests: int) -> float:
    """Return the instructions of a request, in thousands."""
    few = requests // 8
    # Nothing is compiled or looked up for the first time in those that are counted.
    count(python, few)
    return (count(python, requests + few) - count(python, few)) / requests / 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.instructions")
    parser.add_argument("--against", metavar="PYTHON", help="of an environment to compare with")
    against: str | None = parser.parse_args().against
    print(f"Measured on {describe()}.\n", flush=True)
    if against is None:
        print("| thousand instructions a request | |\n|---|---:|", flush=True)
        for what, (count, requests) in {**OURS, **THEIRS}.items():
            print(f"| {what} | {of_a_request(count, sys.executable, requests):.1f} |", flush=True)
        return
    print("| thousand instructions a request | before | now | ratio |\n|---|---:|---:|---:|")
    for what, (count, requests) in OURS.items():
        before, now = (of_a_request(count, each, requests) for each in (against, sys.executable))
        print(f"| {what} | {before:.1f} | {now:.1f} | {now / before:.3f} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except MissingError as error:
        sys.exit(f"Not measured: {error}")
