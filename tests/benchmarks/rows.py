"""The rows of the table: what is measured against what.

Every row is a ratio of two things measured in turn, A B A B …, in one run on one machine: the
median of the pairs' ratios. Its target is what the project holds itself to.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.process_memory import peak_bytes, resident_bytes

from . import peers
from .filling import fill, saving
from .load import load
from .machine import on_processor
from .parts import IN_A_READ
from .peers import Peer

Figure = Callable[[], float]


@dataclass(frozen=True)
class Scale:
    """How much is done: the full table, or a short form that shows that it works."""

    seconds: float = 2
    rounds: int = 5
    sessions: int = 10_000
    many: int = 1_000_000
    few: int = 1_000
    window: int = 10
    sizes: tuple[int, ...] = (1_000, 100_000, 1_000_000)


SHORT = Scale(
    seconds=0.3, rounds=1, sessions=500, many=2_000, few=200, window=2, sizes=(1_000, 2_000)
)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: what was measured, and its unit.
        ours: our figure (median).
        against: what it is compared with.
        theirs: the other figure (median).
        ratio: the median of the pairs' ratios.
        target: the least (or, with `at_most`, the greatest) ratio wanted; None where the row only
            tells.
    """

    what: str
    ours: float
    against: str
    theirs: float
    ratio: float
    target: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


@dataclass
class Table:
    """Rows as they come, and what could not be measured here."""

    scale: Scale
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def compare(
        self,
        what: str,
        ours: Figure,
        against: str,
        theirs: Figure,
        target: float | None = None,
        *,
        at_most: bool = False,
    ) -> None:
        """Measure `ours` and `theirs` in turn and add a row."""
        pairs = [(ours(), theirs()) for _ in range(self.scale.rounds)]
        self.add(what, pairs, against, target, at_most=at_most)

    def add(
        self,
        what: str,
        pairs: Sequence[tuple[float, float]],
        against: str,
        target: float | None = None,
        *,
        at_most: bool = False,
    ) -> None:
        row = Row(
            what,
            statistics.median(ours for ours, _ in pairs),
            against,
            statistics.median(theirs for _, theirs in pairs),
            statistics.median(ours / theirs for ours, theirs in pairs),
            target,
            at_most,
        )
        self.rows.append(row)
        print(f"  {row.what}: {row.ratio:.3g} × {row.against}", file=sys.stderr)


def _program(client: str, peer: Peer, tasks: int, seconds: float, tokens: list[int]) -> Any:
    script = Path(__file__).with_name("programs.py")
    output = subprocess.run(
        [
            *on_processor(1),
            *(sys.executable, str(script), client, str(peer.port), str(tasks)),
            f"--seconds={seconds}",
        ],
        input="\n".join(map(str, tokens)),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return json.loads(output)


def python_programs(table: Table) -> None:
    """A Python program's requests, through our client and through redis-py."""
    scale = table.scale
    with peers.ndb() as ndb, peers.redis() as redis:
        ours, theirs = fill(ndb, scale.sessions), fill(redis, scale.sessions)

        def rate(client: str, tasks: int) -> Figure:
            peer, tokens = (ndb, ours) if client == "ndb" else (redis, theirs)

            def measure() -> float:
                figures = _program(client, peer, tasks, scale.seconds, tokens)
                return float(figures["requests"] / figures["seconds"])

            return measure

        what = "requests/s, 32 tasks sharing one asyncio client"
        table.compare(what, rate("ndb", 32), "redis-py, 32 tasks", rate("redis", 32), 5)
        pipelines = "redis-py, pipelines of 32"
        table.compare(what, rate("ndb", 32), pipelines, rate("redis-pipeline", 32), 2)

        def cost(client: str) -> Figure:
            peer, tokens = (ndb, ours) if client == "ndb" else (redis, theirs)

            def measure() -> float:
                figures = _program(client, peer, 1, scale.seconds, tokens)
                return float(figures["cpu"] / figures["requests"] * 1e6)

            return measure

        what = "requests/s, one task, one at a time"
        table.compare(what, rate("ndb", 1), "redis-py", rate("redis", 1), 1.1)
        what = "client CPU µs per request, the same"
        table.compare(what, cost("ndb"), "redis-py", cost("redis"), 0.6, at_most=True)


def one_core(table: Table) -> None:
    """What one core of the server carries, beside a plain ``websockets`` server and Redis."""
    scale = table.scale
    with ExitStack() as stack:
        ndb = stack.enter_context(peers.ndb())
        plain = stack.enter_context(peers.plain())
        others = [("a plain websockets server", plain, {16: 8.0, 1: 2.5})]
        try:
            redis = stack.enter_context(peers.redis())
            others.append(("redis-server", redis, {16: 0.35, 1: 0.45}))
        except peers.MissingError as error:
            table.missing.append(str(error))
        ours = fill(ndb, scale.sessions)

        def rate(peer: Peer, tokens: Sequence[int], depth: int) -> Figure:
            def measure() -> float:
                figures = load(peer, tokens, connections=50, depth=depth, seconds=scale.seconds)
                return float(figures["rps"])

            return measure

        for name, peer, targets in others:
            theirs = fill(peer, scale.sessions)
            for depth, target in targets.items():
                what = f"requests/s of one core, 50 connections × {depth}"
                table.compare(what, rate(ndb, ours, depth), name, rate(peer, theirs, depth), target)


def parts(table: Table) -> None:
    """Where the time of SH_GET goes: parts measured alone, and the whole at full load."""
    scale = table.scale
    output = subprocess.run(
        [*on_processor(0), sys.executable, "-m", "tests.benchmarks.parts", str(scale.sessions)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    inside: dict[str, float] = json.loads(output)
    with peers.ndb() as ndb:
        tokens = fill(ndb, scale.sessions)
        for depth in (16, 1):
            figures = load(ndb, tokens, connections=50, depth=depth, seconds=scale.seconds)
            whole = float(figures["server_us_per_req"])
            against = f"server CPU a request, 50 connections × {depth}"
            for name, cost in inside.items():
                if depth == IN_A_READ or name.startswith("all"):
                    table.add(f"µs for {name}", [(cost, whole)], against)


def own_commands(table: Table) -> None:
    """Our commands beside SH_GET."""
    scale = table.scale
    with peers.ndb() as ndb:
        tokens = fill(ndb, scale.sessions)
        sliding = fill(ndb, scale.sessions, lambda _: 3600, ',"extendOnGet":true')

        def rate(tokens: Sequence[int], operation: str) -> Figure:
            def measure() -> float:
                figures = load(
                    ndb,
                    tokens,
                    connections=50,
                    depth=16,
                    seconds=scale.seconds,
                    operation=operation,
                )
                return float(figures["rps"])

            return measure

        get = rate(tokens, "get")
        table.compare("requests/s, SH_SET of 2 keys", rate(tokens, "set"), "SH_GET", get, 0.8)
        table.compare(
            "requests/s, SH_GET with extendOnGet", rate(sliding, "get"), "SH_GET", get, 0.9
        )


def metrics(table: Table) -> None:
    """What it costs to count requests, beside a server that doesn't."""
    scale = table.scale
    with peers.ndb() as counting, peers.ndb("--metrics", "off") as plain:
        tokens = {peer: fill(peer, scale.sessions) for peer in (counting, plain)}

        def rate(peer: Peer, depth: int) -> Figure:
            def measure() -> float:
                figures = load(
                    peer, tokens[peer], connections=50, depth=depth, seconds=scale.seconds
                )
                return float(figures["rps"])

            return measure

        for depth in (16, 1):
            what = f"requests/s of one core with metrics, 50 connections × {depth}"
            table.compare(what, rate(counting, depth), "without", rate(plain, depth), 0.95)


def many_sessions(table: Table) -> None:
    """A server with many sessions: its speed, its memory, and its calm while they expire."""
    scale = table.scale
    with peers.ndb() as ndb, peers.ndb() as small:
        before = resident_bytes(ndb.pid)
        ours = fill(ndb, scale.many, lambda _: 100_000)
        per_session = (resident_bytes(ndb.pid) - before) / scale.many
        few = fill(small, scale.few, lambda _: 100_000)
        # The load generator asks for at most 20,000 different sessions.
        some = random.sample(ours, min(scale.many, 20_000))

        def rate(peer: Peer, tokens: Sequence[int]) -> Figure:
            return lambda: float(
                load(peer, tokens, connections=50, depth=16, seconds=scale.seconds)["rps"]
            )

        table.compare(
            f"requests/s with {scale.many:,} sessions",
            rate(ndb, some),
            f"with {scale.few:,}",
            rate(small, few),
            0.85,
        )
    try:
        with peers.redis() as redis:
            before = resident_bytes(redis.pid)
            fill(redis, scale.many, lambda _: 100_000)
            theirs = (resident_bytes(redis.pid) - before) / scale.many
        table.add(
            f"bytes a session, {scale.many:,} of 4 small keys with expiry",
            [(per_session, theirs)],
            "redis-server, hashes with EXPIRE",
            2.5,
            at_most=True,
        )
    except peers.MissingError as error:
        table.missing.append(str(error))


def durability(table: Table) -> None:
    """Changes that are on disk before they are acknowledged, beside Redis's append-only file."""
    scale = table.scale

    def rate(run: Callable[..., AbstractContextManager[Peer]], *options: str) -> Figure:
        def measure() -> float:
            with TemporaryDirectory(dir=Path.cwd()) as folder, ExitStack() as stack:
                where = ["--data-dir", folder] if run is peers.ndb and options else []
                peer = stack.enter_context(run(*where, *options))
                tokens = fill(peer, scale.sessions)
                figures = load(
                    peer, tokens, connections=50, depth=32, seconds=scale.seconds, operation="set"
                )
                return float(figures["rps"])

        return measure

    strict = rate(peers.ndb, "--durability", "strict")
    relaxed = rate(peers.ndb, "--durability", "relaxed")
    aof = ("--appendonly", "yes", "--appendfsync")
    what = "SH_SET of 2 keys/s, 50 connections × 32, "
    table.compare(f"{what}relaxed", relaxed, "no data folder", rate(peers.ndb), 0.6)
    always = rate(peers.redis, *aof, "always")
    table.compare(f"{what}strict", strict, "redis-server, appendfsync always", always, 0.4)
    everysec = rate(peers.redis, *aof, "everysec")
    table.compare(f"{what}relaxed", relaxed, "redis-server, appendfsync everysec", everysec, 0.4)


def starting(table: Table) -> None:
    """A start with many sessions on disk, and a save of them while clients go on."""
    scale = table.scale
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        where = ("--data-dir", folder)
        with peers.ndb(*where, "--durability", "relaxed") as ndb:
            tokens = fill(ndb, scale.many, lambda _: 100_000)
        begin = time.monotonic()
        with peers.ndb(*where) as ndb:
            ours = time.monotonic() - begin, peak_bytes(ndb.pid)
            some = random.sample(tokens, min(scale.many, 20_000))
            calm = _p99(ndb, some, scale.seconds)
            with saving(ndb):
                busy = _p99(ndb, some, scale.seconds)
        table.add(
            f"p99 in µs while {scale.many:,} sessions are saved",
            [(busy, calm)],
            "without",
            3,
            at_most=True,
        )
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        # A dump is what Redis reads the fastest.
        options = ("--dir", folder, "--appendonly", "yes", "--appendfsync", "no")
        with peers.redis(*options) as redis:
            fill(redis, scale.many, lambda _: 100_000)
        begin = time.monotonic()
        with peers.redis(*options) as redis:
            peers.until_loaded(redis)
            theirs = time.monotonic() - begin, peak_bytes(redis.pid)
    for what, mine, other in zip(("seconds", "peak bytes of memory"), ours, theirs, strict=True):
        table.add(
            f"{what} to start with {scale.many:,} sessions of 4 keys",
            [(mine, other)],
            "redis-server, from its append-only file",
        )


def expiring(table: Table) -> None:
    """The slowest replies while many sessions expire within a few seconds."""
    scale = table.scale
    pairs = []
    for _ in range(min(scale.rounds, 3)):
        with peers.ndb() as ndb:
            tokens = fill(ndb, scale.sessions)
            # All expire in a window that opens when the last of them has been made.
            making = scale.many / 25_000 + 2
            begin = time.monotonic()

            def duration(_: int, opens: float = begin + making) -> int:
                return round(opens - time.monotonic() + random.random() * scale.window) or 1

            fill(ndb, scale.many, duration, ',"deleteSession":true')
            left = begin + making - time.monotonic()
            if left < scale.seconds:
                table.missing.append("p99.9 while expiring: filling took too long on this machine")
                return
            calm = _p999(ndb, tokens, min(left - 1, scale.window))
            time.sleep(max(0, begin + making - time.monotonic()))
            pairs.append((_p999(ndb, tokens, scale.window), calm))
    table.add(
        f"p99.9 in µs while {scale.many:,} sessions expire within {scale.window} s",
        pairs,
        "without expiry",
        2,
        at_most=True,
    )


def _p999(peer: Peer, tokens: Sequence[int], seconds: float) -> float:
    figures = load(peer, tokens, connections=50, depth=1, seconds=seconds)
    return float(figures["p999_us"])


def _p99(peer: Peer, tokens: Sequence[int], seconds: float) -> float:
    figures = load(peer, tokens, connections=50, depth=1, seconds=seconds)
    return float(figures["p99_us"])


def by_size(table: Table) -> None:
    """Commands that must not depend on how many sessions there are, without a socket."""
    few, *more = table.scale.sizes
    rounds = [
        {size: _engine_figures(size) for size in table.scale.sizes}
        for _ in range(min(table.scale.rounds, 3))
    ]
    for name in rounds[0][few]:
        for size in more:
            table.add(
                f"µs for {name} with {size:,} sessions",
                [(figures[size][name], figures[few][name]) for figures in rounds],
                f"with {few:,}",
            )


def _engine_figures(size: int) -> dict[str, float]:
    """Return µs of each command in a process that has `size` sessions."""
    output = subprocess.run(
        [*on_processor(0), sys.executable, "-m", "tests.benchmarks.engine", str(size)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


GROUPS: tuple[Callable[[Table], None], ...] = (
    python_programs,
    one_core,
    parts,
    own_commands,
    durability,
    starting,
    metrics,
    many_sessions,
    expiring,
    by_size,
)
