"""The load generator: built when needed, run from a processor of its own."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .machine import on_processor
from .peers import MissingError, Peer


@cache
def compiled(source: str, *options: str) -> Path:
    """Return what a C file of this folder is compiled to.

    Raises:
        MissingError: there is no compiler here.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise MissingError("a C compiler is not installed (apt-get install gcc)")
    program = Path(tempfile.mkdtemp(prefix="ndb-bench-")) / Path(source).stem
    path = Path(__file__).with_name(source)
    subprocess.run([compiler, "-O3", *options, "-o", program, path], check=True)
    return program


def load(
    peer: Peer,
    tokens: Sequence[int],
    *,
    connections: int,
    depth: int,
    seconds: float,
    operation: str = "get",
) -> dict[str, Any]:
    """Load `peer` and return the load generator's figures.

    Args:
        peer: the server; its processor time is counted.
        tokens: the sessions to ask for, as `filling.fill` returned them.
        connections: how many.
        depth: requests in flight on each.
        seconds: how long.
        operation: `get` or `set`, of two keys.

    Raises:
        MissingError: it can't be built here.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".tokens") as file:
        file.write("\n".join(map(str, tokens)) + "\n")
        file.flush()
        arguments = {
            "-m": peer.wire,
            "-p": peer.port,
            "-c": connections,
            "-d": depth,
            "-t": seconds,
            "-w": min(0.5, seconds / 2),
            "-o": operation,
            "-k": file.name,
            "-P": peer.pid,
        }
        if operation == "get":
            arguments["-x"] = "value-a-"
        words = [str(word) for pair in arguments.items() for word in pair]
        output = subprocess.run(
            [*on_processor(1), compiled("loadgen.c"), *words],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    figures: dict[str, Any] = json.loads(output)
    return figures
