"""Starts servers that have imported everything already, each to be killed at a certain call.

Reads lines of a folder and a number from stdin; for each it prints the process and the URL of
a server on that folder, and its exit status when it has ended.
"""

import asyncio
import ctypes
import os
import sys
from pathlib import Path

from ndb_server.server import Options, serve


def tell(url: str) -> None:
    print(os.getpid(), url, flush=True)


def main() -> None:
    kill_at = ctypes.CDLL(None).kill_at
    for line in sys.stdin:
        folder, _, number = line.rstrip("\n").rpartition(" ")
        pid = os.fork()
        if pid == 0:
            os.environ["FILES_BELOW"] = f"{folder}/datasets"
            kill_at(ctypes.c_long(int(number)))
            asyncio.run(serve(Options(port=0, data_dir=Path(folder)), ready=tell))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
