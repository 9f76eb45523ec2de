"""One version's client with another version's server: real processes, each on its own Python."""

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.compat.program import BOUND, Plan

PROGRAM = Path(__file__).with_name("program.py")

# Isolated: neither the folder it runs in nor PYTHONPATH has a say in which version it is.
ISOLATED = "-I"

_COMMANDS = "import json, ndb_protocol; print(json.dumps([*ndb_protocol.COMMANDS]))"


class Failed(Exception):
    """A client of one version and a server of another don't work together; says what failed."""


def commands(python: Path) -> list[str]:
    """Return the commands that a version has, in the order of its table."""
    found: list[str] = json.loads(_output(python, "-c", _COMMANDS))
    return found


def check(client: Path, server: Path, more: tuple[str, ...] = ()) -> int:
    """Run the program with the client of one version and the server of another.

    Args:
        client: the Python that has the client.
        server: the Python that has the server.
        more: names to be taken for commands that both have.

    Returns:
        How many commands both have, each of which was sent.

    Raises:
        Failed: something did not work.
    """
    known = commands(server)
    common = [*(name for name in commands(client) if name in known), *more]
    with TemporaryDirectory() as name:
        folder = Path(name)
        # The server's own version makes the file: its format is no part of what versions share.
        file = folder / "credentials"
        admin = _secret(server, file, "admin", "app", "kv", "admin")
        app = _secret(server, file, "app", "app")
        guards = (f"--auth-file={file}", f"--data-dir={folder / 'data'}", "--max-keys=20")
        with (
            _serving(server, folder / "a.log") as url,
            _serving(server, folder / "b.log", *guards) as guarded,
        ):
            plan = Plan(common, url, guarded, admin, app)
            _output(client, str(PROGRAM), given=json.dumps(asdict(plan)))
    return len(common)


def _secret(server: Path, file: Path, name: str, *roles: str) -> str:
    options = [*(f"--role={role}" for role in roles), f"--auth-file={file}"]
    return _output(server, "-m", "ndb_server", "auth", "add", name, *options).split()[-1]


def _output(python: Path, *arguments: str, given: str = "") -> str:
    """Return what a program prints, if it ends well."""
    try:
        return subprocess.run(
            [str(python), ISOLATED, *arguments],
            input=given, capture_output=True, text=True, check=True, timeout=2 * BOUND,
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise Failed(error.stderr) from None


@contextmanager
def _serving(python: Path, log: Path, *options: str) -> Iterator[str]:
    """Run a server; yield its URL."""
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [str(python), ISOLATED, "-m", "ndb_server", "--port=0", *options],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], BOUND)
            url = process.stdout.readline().strip() if ready else ""
            if not url:
                raise Failed(f"the server did not start: {log.read_text()}")
            yield url
            process.terminate()
            process.wait(BOUND)
        finally:
            process.kill()
    if process.returncode != 0 or "Traceback" in log.read_text():
        raise Failed(f"the server ended with status {process.returncode}: {log.read_text()}")
