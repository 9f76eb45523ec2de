"""The client lives through faults of the network, and the server's restart."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ndb import (
    ConnectError,
    ConnectionLost,
    ConnectionPolicy,
    InvalidState,
    KvClient,
    NdbClient,
    NdbException,
    RequestTimeout,
    ResponseError,
    Session,
    SessionClient,
    Status,
)
from ndb.baseclient import BaseClient
from ndb.core import Request
from ndb_protocol import COMMANDS

from tests.support.event_loop_turns import until
from tests.support.rounds import SEED, TORTURE, rounds
from tests.support.server_process import Server, StartServer
from tests.support.tcp_proxy import Fault, Proxy, Way, proxied
from tests.support.waiting import BOUND

QUICK = ConnectionPolicy(
    request_timeout=BOUND,
    reconnect_timeout=BOUND,
    initial_backoff=0.001,
    max_backoff=0.01,
    # The end of a server is seen. A busy one is not to be taken for dead.
    ping_interval=BOUND,
    ping_timeout=BOUND,
)

# Every method of every client under each fault.

KEYS = {"a": 1, "b": [1, 2], "c": {"d": "e"}}
ARGUMENTS: dict[str, Any] = {
    "keys": ["a", "b"],
    "key": "b",
    "path": "$[0]",
    "rsp": "keys",
    "value": 5,
    "items": [3],
    "name": "saved",
}
WITH_VALUES = ("set", "add", "clear_set")
VARYING = {"duration", "stats", "tkn"}
"""Members of a result that differ from call to call."""


def methods(cls: type[BaseClient]) -> list[str]:
    return [
        name
        for name, _ in inspect.getmembers(cls, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in vars(BaseClient)
    ]


def arguments(method: Callable[..., Any], session: Session) -> dict[str, Any]:
    """Return what to call `method` with: all that it needs, and nothing it does not."""
    given = {**ARGUMENTS, "tkn": session, "tkns": [session]}
    if method.__name__.removeprefix("sh_").removeprefix("kv_") in WITH_VALUES:
        given["keys"] = {"a": 7}
    return {
        name: given[name]
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }


def told(result: Any) -> Any:
    """Return what of a result does not differ from call to call."""
    if isinstance(result, Session):
        return result.isValid
    if isinstance(result, dict):
        told = {name: value for name, value in result.items() if name not in VARYING}
        if "expiry" in told:
            # A fault may take a second.
            told["expiry"] = {**told["expiry"], "remaining": None}
        return told
    return result


async def prepare(client: NdbClient) -> Session:
    """Make the sessions and keys what they are before each call; return the session."""
    _, session = await asyncio.gather(client.sh_end_all(), client.sh_create(60))
    await asyncio.gather(client.sh_set(session, KEYS), client.kv_clear_set(KEYS))
    return session


def expected(result: Any, session: Session) -> Any:
    """Return `told` of a result, with the token of the session known by its place."""
    return ["the session"] if result == [session.tkn] else told(result)


def commands_of(cls: type[BaseClient], session: Session) -> dict[str, str]:
    """Return the command behind each method."""
    asked: list[str] = []

    async def ask(self: BaseClient, request: Request[Any], timeout: float | None) -> None:
        asked.append(request.command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_run", ask)
        for name in methods(cls):
            method = getattr(cls(), name)
            with pytest.raises(StopIteration):
                method(**arguments(method, session)).send(None)
    return dict(zip(methods(cls), asked, strict=True))


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize(
    "cls",
    # The others have the same methods under other names.
    [NdbClient, *(pytest.param(cls, marks=TORTURE) for cls in (SessionClient, KvClient))],
)
async def test_every_method_gives_the_right_answer_or_says_what_happened(
    cls: type[SessionClient | KvClient | NdbClient],
    fault: Fault,
    start_server: StartServer,
    tmp_path: Path,
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    # Whose end is seen, or what is but split, needs no ping, however long a busy machine takes.
    silence = BOUND if fault in (Fault.CUT, Fault.SPLIT) else 0.04
    policy = ConnectionPolicy(
        request_timeout=0.3 if fault.corrupts else BOUND,
        initial_backoff=0.001,
        max_backoff=0.01,
        ping_interval=silence,
        ping_timeout=silence,
    )
    async with (
        NdbClient(uri=server.url) as setting,
        cls(uri=server.url) as undisturbed,
        proxied(server.port, Random(SEED)) as (proxy, url),
        cls(uri=url, policy=policy) as client,
    ):
        await prepare(setting)
        await asyncio.gather(setting.sh_save("saved"), setting.kv_save("saved"))
        commands = commands_of(cls, Session(1))
        assert len(commands) > 10
        for (name, command), way in product(commands.items(), Way):
            session = await prepare(setting)
            method = getattr(undisturbed, name)
            right = expected(await method(**arguments(method, session)), session)
            session = await prepare(setting)
            method = getattr(client, name)
            connections = proxy.connections
            proxy.inject(fault, way)
            outcome = await attempt(method(**arguments(method, session)))
            await proxy.happened()
            proxy.go_on()
            if isinstance(outcome, NdbException):
                assert fault is not Fault.SPLIT, (name, way, outcome)
                if not fault.corrupts:
                    assert isinstance(outcome, ConnectionLost), (name, way, outcome)
                    assert outcome.maybe_executed, (name, way)
                    if COMMANDS[command].repeatable:
                        # It was sent again: a busy machine seems to stall too.
                        assert fault is Fault.STALL, (name, way, outcome)
                        assert proxy.connections > connections, (name, way, outcome)
            else:
                assert expected(outcome, session) == right, (name, way)
            await usable(client)


async def attempt(call: Awaitable[Any]) -> Any:
    """Return the result of a call, or the exception of the client's that it raises."""
    async with asyncio.timeout(BOUND):
        try:
            return await call
        except NdbException as error:
            return error


async def usable(client: SessionClient | KvClient | NdbClient) -> None:
    """See that `client` answers, after what an earlier fault has left over."""
    ask = client.sv_info if isinstance(client, NdbClient) else client.server_info
    async with asyncio.timeout(BOUND):
        while isinstance(await attempt(ask()), NdbException):
            await reopen(client)


async def reopen(client: BaseClient) -> None:
    """Open `client` again if it reconnects no more: a handshake that was corrupted is refused."""
    # Neither a request nor this may have to wait for anything, and who does must come to its turn.
    await asyncio.sleep(0)
    with suppress(InvalidState, ConnectError):
        await client.open()


# Random faults.


class Worker:
    """Stores and reads keys of its own, and knows what may be in them.

    Attributes:
        answered: how many requests were.
        acknowledged: how many of them were writes.
        errors: how many requests of which kind failed.
    """

    def __init__(self, client: KvClient, name: str, random: Random) -> None:
        self._client = client
        self._random = random
        self._written = 0
        self.keys: dict[str, set[int | None]] = {f"{name}-{n}": {None} for n in range(3)}
        self.answered = self.acknowledged = 0
        self.errors: dict[str, int] = {}

    async def work(self) -> None:
        while True:
            await self.step(self._random.choice(list(self.keys)))

    async def step(self, key: str) -> None:
        try:
            if self._random.random() < 0.5:
                await self._store(key)
            else:
                await self.read(self._client, key)
            self.answered += 1
        except NdbException as error:
            kind = type(error).__name__
            self.errors[kind] = self.errors.get(kind, 0) + 1
            await reopen(self._client)

    async def _store(self, key: str) -> None:
        self._written += 1
        value = self._written
        before = self.keys[key]
        # Unless it is known to have been stored, or not to have been, both may be there.
        self.keys[key] = before | {value}
        try:
            await self._client.set({key: value})
        except (ConnectionLost, RequestTimeout) as error:
            if not error.maybe_executed:
                self.keys[key] = before
            raise
        self.keys[key] = {value}
        self.acknowledged += 1

    async def read(self, client: KvClient, key: str) -> None:
        found = (await client.get([key])).get(key)
        assert found in self.keys[key], (key, found, self.keys[key])


async def disturb(proxy: Proxy, workers: Sequence[Worker], faults: int, random: Random) -> None:
    """Let so many faults happen, one after the other, with up to 20 answers in between."""
    for _ in range(faults):
        fault = random.choice(list(Fault))
        proxy.inject(fault, random.choice(list(Way)))
        await proxy.happened()
        if random.random() < 0.5:
            # Else a stalled connection stays so, until the client leaves it.
            proxy.go_on()
        answers = sum(worker.answered for worker in workers) + random.randrange(20)
        await until(lambda: sum(worker.answered for worker in workers) >= answers)  # noqa: B023


@rounds(few=200, many=4000)
async def test_no_acknowledged_write_is_lost_whatever_happens(server: Server, rounds: int) -> None:
    lanes = 4
    policy = ConnectionPolicy(
        request_timeout=0.5,
        connect_timeout=0.5,
        initial_backoff=0.001,
        max_backoff=0.01,
        ping_interval=0.1,
        ping_timeout=0.1,
    )

    async def lane(number: int) -> list[Worker]:
        random = Random(f"{SEED}-{number}")
        async with (
            proxied(server.port, random) as (proxy, url),
            KvClient(url, policy=policy) as client,
        ):
            workers = [Worker(client, f"{number}-{n}", random) for n in range(4)]
            tasks = [asyncio.create_task(worker.work()) for worker in workers]
            disturbing = asyncio.create_task(disturb(proxy, workers, rounds // lanes, random))
            done, _ = await asyncio.wait([*tasks, disturbing], return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, disturbing):
                task.cancel()
            await asyncio.wait([*tasks, disturbing])
            for task in done:
                task.result()
            assert done == {disturbing}
            return workers

    workers = [worker for lane in await asyncio.gather(*map(lane, range(lanes))) for worker in lane]
    async with KvClient(server.url) as direct:
        for worker in workers:
            for key in worker.keys:
                await worker.read(direct, key)
    acknowledged = sum(worker.acknowledged for worker in workers)
    errors: dict[str, int] = {}
    for worker in workers:
        for kind, count in worker.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    print(f"{rounds} faults, {acknowledged} acknowledged writes, errors: {errors}")
    assert acknowledged > rounds
    assert set(errors) <= {"ConnectionLost", "RequestTimeout", "StrayReply", "StrayRefusal"}


# A server that is started anew.


async def test_a_client_lives_through_a_restart_of_its_server(start_server: StartServer) -> None:
    first = start_server()
    async with (
        proxied(first.port, Random(SEED)) as (proxy, url),
        KvClient(url, policy=QUICK) as kv,
        SessionClient(url, policy=QUICK) as sessions,
    ):
        await kv.set({"k": 1})
        session = await sessions.create_session()
        await sessions.set({"k": 1}, session)
        await asyncio.to_thread(first.stop)
        # Made while there is no server, each waits for one.
        waiting = [asyncio.create_task(kv.get(["k"])), asyncio.create_task(kv.set({"l": 2}))]
        creating = asyncio.create_task(sessions.create_session())
        await asyncio.sleep(0)
        proxy.port = start_server().port
        assert await asyncio.gather(*waiting) == [{}, None]
        assert await kv.get(["l"]) == {"l": 2}
        # Without a data directory the sessions are gone, and the server says so.
        with pytest.raises(ResponseError) as gone:
            await sessions.get(["k"], session)
        assert gone.value.status is Status.SESSION_NOT_EXIST
        assert (await creating).isValid


async def test_a_killed_server_is_followed_by_the_next(start_server: StartServer) -> None:
    first, second = start_server(), start_server()
    async with KvClient([first.url, second.url], policy=QUICK) as client:
        await client.set({"k": 1})
        asking = [asyncio.create_task(client.get(["k"])) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(first.kill)
        for outcome in await asyncio.gather(*asking):
            assert outcome in ({"k": 1}, {})
        assert await client.get(["k"]) == {}


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_a_server_that_is_restarted_again_and_again_under_load_is_but_a_pause(
    start_server: StartServer, tmp_path: Path, durability: str
) -> None:
    options = (f"--data-dir={tmp_path}", f"--durability={durability}")
    server = start_server(*options)
    acknowledged: dict[int, int] = {}
    stopping = asyncio.Event()

    def goes_on(enough: int) -> bool:
        return sum(acknowledged.values()) > enough

    async def write(number: int) -> None:
        """Count up in a session of its own, with nothing but what is safe to repeat."""
        async with SessionClient(url, policy=QUICK) as client:
            session = await client.create_session()
            count = 0
            while not stopping.is_set():
                await client.set({"count": count + 1}, session)
                count += 1
                acknowledged[number] = count
                assert await client.get(["count"], session) == {"count": count}
            sessions.append((session, count))

    sessions: list[tuple[Session, int]] = []
    async with proxied(server.port, Random(SEED)) as (proxy, url):
        writing = [asyncio.create_task(write(number)) for number in range(8)]
        await until(lambda: len(acknowledged) == len(writing))
        for _ in range(3):
            enough = sum(acknowledged.values()) + 100
            await asyncio.to_thread(server.stop)
            server = await asyncio.to_thread(start_server, *options)
            proxy.port = server.port
            await until(partial(goes_on, enough))
        stopping.set()
        await asyncio.gather(*writing)
        async with SessionClient(url, policy=QUICK) as client:
            for session, count in sessions:
                assert await client.get(["count"], session) == {"count": count}
