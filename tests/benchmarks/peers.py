"""The servers that are measured: ours, and those that stand still beside it."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .machine import on_processor

STARTED_WITHIN = 120
"""Seconds; valgrind takes some of them."""


class MissingError(Exception):
    """Something needed for a row is not on this machine; says what and how to get it."""


@dataclass(frozen=True)
class Peer:
    """A running server: which wire it speaks (`ws` or `resp`), where, and as which process."""

    wire: str
    port: int
    pid: int


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], wire: str, port: int) -> Iterator[Peer]:
    with subprocess.Popen(
        [*on_processor(0), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_for(port, process)
            yield Peer(wire, port, process.pid)
        finally:
            process.terminate()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not accept connections")


def until_loaded(peer: Peer) -> None:
    """Wait until a redis-server has read its files."""
    with socket.create_connection(("127.0.0.1", peer.port)) as connection:
        connection.sendall(b"PING\r\n")
        while connection.recv(2**16).startswith(b"-LOADING"):
            time.sleep(0.01)
            connection.sendall(b"PING\r\n")


@contextmanager
def ndb(*options: str, python: str = sys.executable, through: Sequence[str] = ()) -> Iterator[Peer]:
    """Run our server, as `python` has it; `through` is a command that runs another."""
    port = free_port()
    command = [*through, python, "-m", "ndb_server", "--port", str(port), *options]
    with _running(command, "ws", port) as peer:
        yield peer


@contextmanager
def plain() -> Iterator[Peer]:
    """Run the same work on a server as the documentation of ``websockets`` shows it."""
    port = free_port()
    script = Path(__file__).with_name("plain_server.py")
    with _running([sys.executable, str(script), str(port)], "ws", port) as peer:
        yield peer


@contextmanager
def redis(*options: str) -> Iterator[Peer]:
    """Run redis-server, in memory only unless `options` say otherwise.

    Raises:
        MissingError: it is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise MissingError("redis-server is not installed (apt-get install redis-server)")
    port = free_port()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [program, "--port", str(port), "--dir", folder, "--save", "", *options]
        with _running(command, "resp", port) as peer:
            yield peer
