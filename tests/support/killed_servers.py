"""Servers that are killed at a certain system call: see fork_server.py."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ndb_server.storage.log import RECORD_SIZE

from tests.support.raw_client import opened


class Forking:
    """The process that starts servers."""

    def __init__(self, library: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(library)},
        )

    def ask(
        self,
        folder: Path,
        below: str,
        number: int,
        command: str,
        record_size: int = RECORD_SIZE,
        **params: Any,
    ) -> tuple[dict[str, Any] | None, bool]:
        """Send a request to a server that is killed at a call.

        Args:
            folder: its data folder.
            below: how the paths begin, in that folder, to which calls are counted.
            number: at which call, once it has said that it is ready, it is killed.
            command: the request.
            record_size: how large its records may be, in bytes.
            params: the parameters of the request.

        Returns:
            The body of the reply, None if there was none; and whether it was killed at last.
        """
        self._start(folder, below, number, record_size, None)
        pid, url = self._line().split()
        reply = None
        try:
            with opened(int(url.rstrip("/").rpartition(":")[2])) as wire:
                reply = wire.request(command, **params)
        except (ConnectionError, AssertionError):
            return None, self._is_killed()
        os.kill(int(pid), signal.SIGTERM)
        return reply, self._is_killed()

    def load(
        self, folder: Path, below: str, number: int, record_size: int, name: str
    ) -> tuple[bool, bool]:
        """Start a server that loads a dataset first, and is killed at a call from its start on.

        Returns:
            Whether it was ready, and whether it was killed at last.
        """
        self._start(folder, below, number, record_size, name)
        line = self._line()
        if line == str(-signal.SIGKILL):
            return False, True
        os.kill(int(line.split()[0]), signal.SIGTERM)
        return True, self._is_killed()

    def _start(
        self, folder: Path, below: str, number: int, record_size: int, load: str | None
    ) -> None:
        assert self.process.stdin is not None
        wanted = {
            "folder": str(folder),
            "below": below,
            "number": number,
            "record_size": record_size,
            "load": load,
        }
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()

    def _is_killed(self) -> bool:
        status = self._line()
        assert status in {"0", str(-signal.SIGKILL)}
        return status != "0"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()
