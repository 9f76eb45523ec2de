"""The command line ``ndb-conformance``. What it needs beside the protocol is the extra."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ndb_protocol import __version__
from ndb_protocol.stdio import OutputError, all_output, open_missing_descriptors

FAILED = 1
"""Exit status when a scenario failed."""

USAGE_ERROR = 2
"""Exit status when nothing could be checked, or said: bad usage, no server, no client."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``ndb-conformance``; what stops it is one line on stderr.

    Args:
        arguments: the command line; by default that of the process.
    """
    open_missing_descriptors()
    try:
        import websockets  # noqa: F401, PLC0415 - it is there or it is not
    except ImportError:
        _stop("websockets is not installed; run pip install 'ndb-protocol[conformance]'")
    try:
        with all_output():
            status = _run(_parser().parse_args(arguments))
    except OutputError as error:
        _stop(str(error))
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ndb-conformance",
        description="Check a server, or a client, against the NDB protocol.",
        epilog="Use a server that nobody else uses: the check deletes all of its data.",
    )
    parser.add_argument(
        "url",
        nargs="?",
        metavar="ws://[NAME:SECRET@]HOST:PORT",
        help="the server to check; the credentials must permit every command",
    )
    parser.add_argument(
        "--ca",
        metavar="FILE",
        type=Path,
        help="PEM file with the CA certificates for a server at wss:// "
        "(default: those that the system trusts)",
    )
    parser.add_argument("--client", metavar="COMMAND", help="the client to check instead")
    parser.add_argument(
        "--profile",
        choices=("core", "full"),
        default="full",
        help="what to check: core, only what NemesisDB 0.7 also has; full (default), everything",
    )
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        default=[],
        help="run only the scenarios whose id matches this pattern ('SH_GET/*'); can be repeated",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="how long nothing may come before a step has failed (default: 5)",
    )
    parser.add_argument("--junit", metavar="FILE", type=Path, help="also write a JUnit XML report")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 3600:
        raise ValueError
    return seconds


def _run(options: argparse.Namespace) -> int:
    # Here: without the extra they can't be imported.
    from . import clients, servers, wire  # noqa: PLC0415
    from .report import Outcome, text, write_junit  # noqa: PLC0415
    from .scenarios import (  # noqa: PLC0415
        Profile,
        choose,
        load_client_scenarios,
        load_scenarios,
    )

    if (options.url is None) == (options.client is None):
        _stop("give either the URL of a server, or a client with --client")
    profile = Profile(options.profile)
    try:
        if options.client is None:
            chosen = choose(load_scenarios(), profile, options.only)
            results = asyncio.run(
                servers.check_server(
                    options.url, chosen, options.timeout, profile=profile, ca=options.ca
                )
            )
        else:
            theirs = choose(load_client_scenarios(), profile, options.only)
            results = asyncio.run(clients.check_client(options.client, theirs, options.timeout))
    except wire.Unreachable as error:
        _stop(str(error))
    if not results:
        _stop(f"no scenario of this profile matches {' or '.join(options.only)}")
    if options.junit is not None:
        try:
            write_junit(results, options.junit)
        except OSError as error:
            _stop(f"can't write {options.junit}: {error.strerror}")
    print(text(results))
    return FAILED if any(result.outcome is Outcome.FAILED for result in results) else 0


def _stop(why: str) -> NoReturn:
    # Why it is may have nowhere to go; the status says that it is so.
    with suppress(OSError):
        print(f"ndb-conformance: {why}", file=sys.stderr)
    sys.exit(USAGE_ERROR)
