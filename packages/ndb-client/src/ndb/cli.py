"""The command line ``ndb``."""

import sys
from contextlib import suppress
from typing import NoReturn

from ndb_protocol.stdio import OutputError, all_output, open_missing_descriptors

from .bench import BenchError, Unreachable
from .errors import NdbException

FAILED = 1
"""Exit status when what was asked for failed."""

USAGE_ERROR = 2
"""Exit status when it can't be done as asked: bad usage, or no server."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``ndb``; an error is one line on stderr.

    Args:
        arguments: the command line; by default that of the process.
    """
    open_missing_descriptors()
    try:
        # Here: who only needs the client has neither.
        from cyclopts import CycloptsError  # noqa: PLC0415

        from .bench_command import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"cyclopts", "rich"}:
            raise
        _fail(
            "the command line is an optional extra; run pip install 'ndb-client[cli]'", USAGE_ERROR
        )
    try:
        with all_output():
            app(arguments, exit_on_error=False, print_error=False)
    except (CycloptsError, Unreachable) as error:
        _fail(error, USAGE_ERROR)
    except (BenchError, NdbException, OutputError) as error:
        _fail(error, FAILED)


def _fail(error: object, status: int) -> NoReturn:
    # An error of cyclopts can have several lines. One that can't be said still has its status.
    with suppress(OSError):
        print("ndb:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(status)
