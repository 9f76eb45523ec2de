"""A server in a process of its own."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SECONDS_TO_START = 60
SECONDS_TO_STOP = 60


@dataclass
class Server:
    """A server in a process of its own.

    Attributes:
        process: the process.
        url: where it accepts connections.
        stderr_file: what it writes to stderr.
        killed: the test ended it by other means than `stop`: how it exits is the test's concern.
    """

    process: subprocess.Popen[str]
    url: str
    stderr_file: Path
    killed: bool = False

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    def stop(self) -> None:
        """Ask the server to stop, as an operator would, and see that it does so in order."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(SECONDS_TO_STOP)
        assert "Traceback" not in self.stderr, self.stderr
        assert status == 0, self.stderr

    def kill(self) -> None:
        """End the server at once, as the out-of-memory killer would."""
        self.killed = True
        self.process.kill()
        self.process.wait(SECONDS_TO_STOP)


class StartServer(Protocol):
    """Starts a server on any free port, with more arguments and environment variables.

    `through` is a program that becomes the server, and `pass_fds` are descriptors it has.
    """

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> Server: ...
