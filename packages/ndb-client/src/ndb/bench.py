"""A load of requests on a server, and its results."""

import asyncio
import math
import random
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ndb_protocol import Status

from .errors import ConnectError, ConnectionLost, NdbException, ResponseError, SessionNotFound
from .figures import Tally, total
from .policy import ConnectionPolicy
from .sessionclient import SessionClient

T = TypeVar("T")

PATIENCE = 10.0
"""How long a reply may be overdue, in seconds: to what prepares and clears up, and at the end."""

LIFETIME = 3600
"""How long the sessions live on if they can't be ended, in seconds."""

_BATCH = 500
_TICK = 1.0

# What reads asks for keys that nothing changes, so that it costs the same in every mix.
_READ: tuple[str, ...] = ("a", "b")
_CHANGED: tuple[str, ...] = ("c", "d")

Values = Mapping[str, str]
Operation = Callable[[SessionClient, int, Values], Awaitable[object]]

OPERATIONS: dict[str, Operation] = {
    "get": lambda client, tkn, _: client.get(_READ, tkn),
    "set": lambda client, tkn, values: client.set(values, tkn),
    "add": lambda client, tkn, values: client.add(values, tkn),
    "rmv": lambda client, tkn, _: client.rmv(_CHANGED, tkn),
    "contains": lambda client, tkn, _: client.contains(_READ, tkn),
    "count": lambda client, tkn, _: client.count(tkn),
    "keys": lambda client, tkn, _: client.keys(tkn),
}
"""What a mix is made of: one request each, named as its command is without ``SH_``."""

Mix = Mapping[str, int]
"""Operations and their weights."""

DEFAULT_MIX: Mix = {"get": 80, "set": 20}

Report = Callable[[str, float, float], None]
"""Reports progress: the current task, the amount done and the total."""


class BenchError(Exception):
    """There are no figures; says why."""


class Unreachable(BenchError):
    """There is no server where one should be."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        url: where the server is.
        clients: how many connections to make.
        in_flight: how many requests are under way on each at any time.
        sessions: how many sessions the requests are spread over.
        value_size: of each value stored, in bytes.
        mix: what the requests do.
        seconds: how long to measure.
    """

    url: str
    clients: int
    in_flight: int
    sessions: int
    value_size: int
    mix: Mix
    seconds: float

    @property
    def warm_up(self) -> float:
        """How long the same is done before it counts, in seconds."""
        return min(1.0, self.seconds / 10)


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured.

    Attributes:
        seconds: from the first request to the last reply.
        cpu: how much of one processor the measuring program had; near 1 it is what set the pace.
        tallies: what became of the requests, by operation.
    """

    seconds: float
    cpu: float
    tallies: dict[str, Tally]


def parse_mix(text: str) -> Mix:
    """Return the mix that `text` describes, such as ``get=80,set=20``.

    Raises:
        ValueError: it describes none; says why.
    """
    mix: dict[str, int] = {}
    for part in text.split(","):
        name, _, weight = (word.strip() for word in part.partition("="))
        if name not in OPERATIONS:
            raise ValueError(
                f"'{name}' is not an operation; the operations are {', '.join(OPERATIONS)}"
            )
        if name in mix:
            raise ValueError(f"{name} is given twice")
        if not (weight.isascii() and weight.isdigit() and int(weight) > 0):
            raise ValueError(f"the weight of {name} is '{weight}', not a positive integer")
        mix[name] = int(weight)
    return mix


def format_mix(mix: Mix) -> str:
    """Return what `parse_mix` makes `mix` of."""
    return ",".join(f"{name}={weight}" for name, weight in mix.items())


async def measure(plan: Plan, report: Report) -> Result:
    """Create sessions, measure, and end the sessions again.

    They are ended also when this fails or is cancelled, if the server can still be reached.

    Raises:
        Unreachable: there is no server at `plan.url`.
        BenchError: a session could not be created or ended, or the connection was lost for good.
        NdbException: the server failed before the requests began.
    """
    async with _sessions(plan, report) as tokens, _clients(plan) as clients:
        load = _Load(plan, clients, tokens, report)
        await load.run("warming up", plan.warm_up)
        begin, cpu = time.perf_counter(), time.process_time()
        tallies = await load.run("measuring", plan.seconds)
        seconds = time.perf_counter() - begin
        return Result(seconds, (time.process_time() - cpu) / seconds, tallies)


# The sessions.


@asynccontextmanager
async def _sessions(plan: Plan, report: Report) -> AsyncIterator[list[int]]:
    tokens: list[int] = []
    try:
        await _create(plan, tokens, report)
        yield tokens
    except BaseException:  # Interrupted, too, sessions are ended.
        # What went wrong is to be told, not that the sessions are left to expire.
        with suppress(NdbException):
            await _end(plan, tokens, report)
        raise
    try:
        await _to_its_end(_end(plan, tokens, report))
    except NdbException as error:
        raise BenchError(
            f"some sessions could not be ended, and expire in {LIFETIME / 60:g} minutes: {error}"
        ) from error


async def _create(plan: Plan, tokens: list[int], report: Report) -> None:
    lifetime = LIFETIME + math.ceil(plan.seconds)
    values = dict.fromkeys(_READ + _CHANGED, "x" * plan.value_size)

    async def create() -> None:
        session = await client.create_session(lifetime, deleteSession=True)
        if not session.isValid:
            raise BenchError(f"the server refused to create a session: {session.message}")
        tokens.append(session.tkn)
        try:
            await client.set(values, session)
        except ValueError as error:
            raise BenchError(str(error)) from error

    client = SessionClient(plan.url, timeout=PATIENCE)
    try:
        await client.open()
    except (ConnectError, ValueError) as error:
        raise Unreachable(str(error)) from error
    try:
        while len(tokens) < plan.sessions:
            count = min(_BATCH, plan.sessions - len(tokens))
            # To its end: the tokens of sessions whose replies nobody awaits would be lost.
            await _to_its_end(_all([create() for _ in range(count)]))
            report("creating sessions", len(tokens), plan.sessions)
    finally:
        await client.close()


async def _end(plan: Plan, tokens: list[int], report: Report) -> None:
    async def end(client: SessionClient, token: int) -> None:
        with suppress(SessionNotFound):
            await client.end_session(token)

    if not tokens:
        return
    async with SessionClient(plan.url, timeout=PATIENCE) as client:
        for done in range(0, len(tokens), _BATCH):
            report("ending sessions", done, len(tokens))
            await _all([end(client, token) for token in tokens[done : done + _BATCH]])


async def _all(work: list[Coroutine[Any, Any, None]]) -> None:
    """Do all of `work` at once, and raise the first error once all of it is done."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and let it come to its end even when this is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


# The load.


@asynccontextmanager
async def _clients(plan: Plan) -> AsyncIterator[list[SessionClient]]:
    # What is measured is each request as it is: none is sent again, none is given up.
    policy = ConnectionPolicy(reconnect_timeout=0, request_timeout=math.inf)
    clients = [SessionClient(plan.url, policy=policy) for _ in range(plan.clients)]
    try:
        for client in clients:
            await client.open()
        yield clients
    finally:
        await asyncio.gather(*(client.close() for client in clients))


class _Load:
    """Requests on all clients at once, as `plan` says."""

    def __init__(
        self, plan: Plan, clients: Sequence[SessionClient], tokens: Sequence[int], report: Report
    ) -> None:
        self._plan = plan
        self._clients = clients
        self._requests = _requests(plan.mix, tokens)
        self._values = dict.fromkeys(_CHANGED, "x" * plan.value_size)
        self._report = report
        self._lost: ConnectError | None = None

    async def run(self, what: str, seconds: float) -> dict[str, Tally]:
        """Make requests for so long, and return what became of them, all replies awaited."""
        self._tallies = {name: Tally() for name in self._plan.mix}
        self._stop_at = time.perf_counter_ns() + int(seconds * 1e9)
        try:
            async with asyncio.timeout(seconds + PATIENCE), asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(self._keep_busy(client))
                group.create_task(self._tell(what, seconds))
        except TimeoutError:
            raise BenchError(f"the server did not answer requests for {PATIENCE:g} s") from None
        if self._lost is not None:
            raise BenchError(
                f"the connection was lost and could not be made again: {self._lost}"
            ) from self._lost
        return self._tallies

    def _left(self) -> float:
        """Return how long to go on, in seconds."""
        return (self._stop_at - time.perf_counter_ns()) / 1e9

    async def _tell(self, what: str, seconds: float) -> None:
        while (left := self._left()) > 0:
            done = total(self._tallies.values())
            rate = len(done.latencies) / max(seconds - left, 1e-9)
            errors = f", {done.errors.total():,} errors" if done.errors else ""
            self._report(f"{what}: {rate:,.0f} requests/s{errors}", seconds - left, seconds)
            await asyncio.sleep(min(left, _TICK))

    async def _keep_busy(self, client: SessionClient) -> None:
        try:
            while True:
                async with asyncio.TaskGroup() as group:
                    count = range(self._plan.in_flight)
                    asking = [group.create_task(self._ask(client)) for _ in count]
                if all(task.result() for task in asking):
                    return
                # The connection was lost, and each request on it is counted as an error. What comes
                # next is to have one, even if this has no time left.
                await client.close()
                await client.open()
        except ConnectError as error:
            self._lost = error
            self._stop_at = 0

    async def _ask(self, client: SessionClient) -> bool:
        """Make one request after the other while there is time and a connection.

        Returns:
            Whether there is a connection still.
        """
        tallies, values, clock = self._tallies, self._values, time.perf_counter_ns
        for name, token in self._requests:
            begin = clock()
            if begin >= self._stop_at:
                break
            try:
                await OPERATIONS[name](client, token, values)
            except NdbException as error:
                tallies[name].errors[_kind(error)] += 1
                if isinstance(error, ConnectionLost):
                    return False
            else:
                tallies[name].latencies.record(clock() - begin)
        return True


def _requests(mix: Mix, tokens: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield operations and sessions at random, without end."""
    names, weights = list(mix), list(mix.values())
    while True:
        # No secrets: which of its own sessions the load asks for.
        yield from zip(
            random.choices(names, weights, k=1000),  # noqa: S311
            random.choices(tokens, k=1000),  # noqa: S311
            strict=True,
        )


def _kind(error: NdbException) -> str:
    if isinstance(error, ResponseError):
        status = error.status
        return status.name if isinstance(status, Status) else f"status {status}"
    return type(error).__name__
