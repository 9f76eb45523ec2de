"""The command ``ndb bench``. What it needs beside the client is the extra ``cli``."""

import asyncio
import json as json_text
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from cyclopts import App, Parameter, Token
from cyclopts.validators import Number
from ndb_protocol import DEFAULT_PORT, __version__
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .bench import DEFAULT_MIX, Mix, Plan, Report, Result, format_mix, measure, parse_mix
from .figures import QUANTILES, total

ERRORS = 1
"""Exit status when it was measured, and requests failed."""

app = App(name="ndb", version=__version__, help="Tools for NDB, a session store.")

_SOME = Number(gte=1)


def _mix(_: Any, tokens: Sequence[Token]) -> Mix:
    return parse_mix(tokens[0].value)


@app.command
def bench(
    *,
    url: str = f"ws://127.0.0.1:{DEFAULT_PORT}/",
    clients: Annotated[int, Parameter(validator=_SOME)] = 50,
    in_flight: Annotated[int, Parameter(validator=_SOME)] = 1,
    sessions: Annotated[int, Parameter(validator=_SOME)] = 10_000,
    value_size: Annotated[int, Parameter(validator=Number(gte=0))] = 16,
    mix: Annotated[
        Mix,
        Parameter(converter=_mix, n_tokens=1, accepts_keys=False, show_default=format_mix),
    ] = DEFAULT_MIX,
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=86_400))] = 10,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Measure how many requests a server answers, and how long each takes.

    The measurement creates its own sessions and ends them afterwards. Progress is shown on stderr
    if that is a terminal, and the results are printed on stdout.

    Args:
        url: URL of the server.
        clients: Number of connections.
        in_flight: Number of requests in flight on each connection.
        sessions: Number of sessions that the requests use.
        value_size: Size of each stored value, in bytes.
        mix: Operations of the requests, with their weights.
        seconds: Duration of the measurement, after a warm-up of a tenth of it and at most a
            second.
        json: Print one JSON object instead of a table.
    """
    plan = Plan(
        url=url,
        clients=clients,
        in_flight=in_flight,
        sessions=sessions,
        value_size=value_size,
        mix=mix,
        seconds=seconds,
    )
    with _progress() as report:
        result = asyncio.run(measure(plan, report))
    summary = _summary(plan, result)
    if json:
        print(json_text.dumps(summary))
    else:
        _show(summary)
    return ERRORS if summary["total"]["errors"] else 0


@contextmanager
def _progress() -> Iterator[Report]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        console=console,
        # Drawn once there is news: a thread that draws all the time takes it from the requests.
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=None)

        def report(what: str, done: float, of: float) -> None:
            progress.update(task, description=what, completed=done, total=of, refresh=True)

        yield report


def _summary(plan: Plan, result: Result) -> dict[str, Any]:
    return {
        "clients": plan.clients,
        "inFlight": plan.in_flight,
        "sessions": plan.sessions,
        "valueSize": plan.value_size,
        "mix": dict(plan.mix),
        "seconds": round(result.seconds, 3),
        "cpu": round(result.cpu, 3),
        "operations": {
            name: tally.summary(result.seconds) for name, tally in result.tallies.items()
        },
        "total": total(result.tallies.values()).summary(result.seconds),
    }


def _show(summary: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for head in ("requests", "requests/s", *(f"{name} ms" for name in QUANTILES), "errors"):
        table.add_column(head, justify="right")
    for name, figures in {**summary["operations"], "total": summary["total"]}.items():
        table.add_row(
            name,
            f"{figures['requests']:,}",
            f"{figures['throughput']:,.0f}",
            *("-" if ms is None else f"{ms:.3f}" for ms in figures["latencyMs"].values()),
            f"{sum(figures['errors'].values()):,}",
        )
    console = Console(highlight=False)
    console.print(table)
    for kind, count in summary["total"]["errors"].items():
        console.print(f"{count:,} errors: {kind}")
    console.print(
        f"{summary['clients']:,} clients with {summary['inFlight']:,} in flight each, "
        f"{summary['sessions']:,} sessions, values of {summary['valueSize']:,} bytes, "
        f"{summary['seconds']:.1f} s; ndb bench used {summary['cpu']:.0%} of a processor"
    )
