"""The load of `ndb bench` when something goes wrong at the worst moment."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from ndb import SessionClient, bench, connection
from ndb.bench import BenchError, Plan, Report, Unreachable, measure
from ndb.figures import total
from websockets.asyncio.server import ServerConnection

from tests.support.misbehaving_servers import HOST, peer, reply
from tests.support.server_process import Server
from tests.support.waiting import BOUND

IN_FLIGHT = 4
CLIENTS = 3
ENOUGH_FOR_BATCHES = 1200


TIME_ENOUGH = 1.5
"""Seconds in which requests are made again after something went wrong at the beginning."""


def plan(
    url: str, sessions: int = 20, mix: bench.Mix = bench.DEFAULT_MIX, seconds: float = 0.3
) -> Plan:
    return Plan(url, CLIENTS, IN_FLIGHT, sessions, value_size=8, mix=mix, seconds=seconds)


def quiet(what: str, done: float, of: float) -> None:
    pass


def once(beginning: str, action: Callable[[], object]) -> Report:
    """Do something the first time that this is reported."""
    waiting = [action]

    def report(what: str, done: float, of: float) -> None:
        if waiting and what.startswith(beginning):
            waiting.pop()()

    return report


async def sessions_of(server: Server) -> int:
    async with SessionClient(server.url) as client:
        count: int = (await client.session_info_all())["totalSessions"]
        return count


class Proxy:
    """A TCP proxy in front of a server, which can cut all connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_connection(HOST, self._port)
        self._writers += [writer, server_writer]
        await asyncio.gather(
            self._forward(reader, server_writer), self._forward(server_reader, writer)
        )

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxied(server: Server) -> AsyncIterator[tuple[Proxy, str]]:
    proxy = Proxy(server.port)
    async with await asyncio.start_server(proxy.handle, HOST, 0) as listener:
        yield proxy, f"ws://{HOST}:{listener.sockets[0].getsockname()[1]}/"
        proxy.cut()


async def test_a_lost_connection_is_made_anew_and_what_was_in_flight_are_errors(
    server: Server,
) -> None:
    async with proxied(server) as (proxy, url):
        work = plan(url, seconds=TIME_ENOUGH)
        result = await measure(work, once("measuring", proxy.cut))
        everything = total(result.tallies.values())
        assert everything.errors == {"ConnectionLost": CLIENTS * IN_FLIGHT}
        assert len(everything.latencies) > 0
        # One to create the sessions, one to end them, and each client's two.
        assert proxy.connections == 2 + 2 * CLIENTS
    assert await sessions_of(server) == 0


async def test_what_happens_in_the_warm_up_is_not_in_the_figures(server: Server) -> None:
    async with proxied(server) as (proxy, url):

        def cut_at_the_end(turns: int = 4) -> None:
            """Cut when requests are in flight, and be held up until the warm-up is over."""
            if turns:
                asyncio.get_running_loop().call_soon(cut_at_the_end, turns - 1)
                return
            proxy.cut()
            begin = time.monotonic()
            while time.monotonic() - begin < work.warm_up:
                pass

        work = plan(url)
        result = await measure(work, once("warming up", cut_at_the_end))
    everything = total(result.tallies.values())
    assert everything.errors == {}
    assert len(everything.latencies) > 0


async def test_a_connection_that_can_not_be_made_anew_ends_the_measurement(server: Server) -> None:
    with pytest.raises(
        BenchError, match=r"^the connection was lost and could not be made again: can't connect"
    ):
        await measure(plan(server.url, seconds=60), once("measuring", server.kill))


async def test_requests_that_stay_unanswered_end_the_measurement(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.1)
    # What prepares is to have all the time it needs.
    hurry = once("warming up", lambda: monkeypatch.setattr(bench, "PATIENCE", 0.5))
    stop = once("measuring", lambda: server.process.send_signal(signal.SIGSTOP))

    def report(what: str, done: float, of: float) -> None:
        hurry(what, done, of)
        stop(what, done, of)

    try:
        with pytest.raises(BenchError, match=r"did not answer requests for 0\.5 s"):
            await measure(plan(server.url), report)
    finally:
        server.process.send_signal(signal.SIGCONT)


async def test_refused_requests_are_counted_by_status_and_operation(server: Server) -> None:
    tasks = []
    async with SessionClient(server.url) as client:

        def end_all() -> None:
            tasks.append(asyncio.create_task(client.end_all_sessions()))

        work = plan(server.url, mix={"count": 1}, seconds=TIME_ENOUGH)
        result = await measure(work, once("measuring", end_all))
        assert [await task for task in tasks] == [20]
    assert result.tallies.keys() == {"count"}
    assert result.tallies["count"].errors.keys() == {"SESSION_NOT_EXIST"}


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("moment", ["creating", "warming up", "measuring", "ending"])
async def test_cancelling_it_ends_the_sessions(server: Server, moment: str, turns: int) -> None:
    def cancel(turns: int = turns) -> None:
        """Let the event loop turn a few times first, so that requests are at every stage."""
        if turns:
            asyncio.get_running_loop().call_soon(cancel, turns - 1)
        else:
            task.cancel()

    work = measure(plan(server.url, sessions=ENOUGH_FOR_BATCHES), once(moment, cancel))
    task = asyncio.create_task(work)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sessions_of(server) == 0


async def test_sessions_that_can_not_be_ended_are_an_error_and_expire(server: Server) -> None:
    with pytest.raises(
        BenchError, match=r"^some sessions could not be ended, and expire in 60 min"
    ):
        await measure(plan(server.url), once("ending", server.kill))


async def test_sessions_expire_by_themselves(server: Server) -> None:
    infos = []

    async def look(token: int) -> None:
        async with SessionClient(server.url) as client:
            infos.append(await client.session_info(token))

    async with bench._sessions(plan(server.url), quiet) as tokens:
        await asyncio.gather(*map(look, tokens))
    assert len(infos) == 20
    for info in infos:
        assert info["keyCnt"] == 4
        assert info["expiry"]["duration"] == bench.LIFETIME + 1
        assert info["expiry"]["deleteSession"]


async def test_a_session_that_is_refused_is_an_error_with_the_server_s_reason() -> None:
    async def refuse(connection: ServerConnection) -> None:
        async for message in connection:
            [name] = msgspec.json.decode(message)
            await connection.send(reply(name, st=103, m="full"))

    async with peer(refuse) as url, asyncio.timeout(BOUND):
        with pytest.raises(BenchError, match=r"^the server refused to create a session: full$"):
            await measure(plan(url), quiet)


async def test_no_server_is_another_error_than_a_lost_one(server: Server) -> None:
    server.stop()
    with pytest.raises(Unreachable, match=r"^can't connect to"):
        await measure(plan(server.url), quiet)
