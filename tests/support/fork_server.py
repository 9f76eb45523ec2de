"""Starts servers that have imported everything already, each to be killed at a certain call.

Reads from stdin what to start, a line of JSON for each. It prints the process and the URL of the
server, and its exit status when it has ended.
"""

import asyncio
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

from ndb_server.server.server import Options, serve
from ndb_server.storage import log as records


def run(wanted: dict[str, Any]) -> None:
    """Be a server that is killed where it is `wanted`."""
    kill_at, number = ctypes.CDLL(None).kill_at, ctypes.c_long(wanted["number"])

    def ready(url: str) -> None:
        print(os.getpid(), url, flush=True)
        # The loop answers nobody before this is over.
        if options.load is None:
            kill_at(number)

    os.environ["FILES_BELOW"] = f"{wanted['folder']}/{wanted['below']}"
    records.RECORD_SIZE = wanted["record_size"]
    options = Options(port=0, data_dir=Path(wanted["folder"]), load=wanted["load"])
    if options.load is not None:
        kill_at(number)
    asyncio.run(serve(options, ready=ready))


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
