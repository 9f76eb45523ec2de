"""Many requests at once on one client, and what happens when the server goes away."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from ndb import ConnectionLost, ConnectionPolicy, KvClient, RequestTimeout, SessionClient

from tests.support.server_process import Server, StartServer

REQUESTS = 1000


async def test_a_thousand_pipelined_requests_are_answered_in_order(server: Server) -> None:
    async with SessionClient(server.url) as client:
        session = await client.create_session()
        await asyncio.gather(*(client.set({f"k{n}": n}, session) for n in range(REQUESTS)))
        assert await client.keys(session) == [f"k{n}" for n in range(REQUESTS)]
        values = await asyncio.gather(
            *(client.get([f"k{n}"], session) for n in reversed(range(REQUESTS)))
        )
        assert values == [{f"k{n}": n} for n in reversed(range(REQUESTS))]


async def test_cancelled_requests_disturb_no_other(server: Server) -> None:
    async with KvClient(server.url) as client:
        await client.set({f"k{n}": n for n in range(REQUESTS)})
        tasks = [asyncio.create_task(client.get([f"k{n}"])) for n in range(REQUESTS)]
        # Each third is cancelled before it runs, another third when it waits for its reply.
        for task in tasks[::3]:
            task.cancel()
        await asyncio.sleep(0)
        for task in tasks[1::3]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert done[2::3] == [{f"k{n}": n} for n in range(2, REQUESTS, 3)]
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done[::3])
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done[1::3])
        assert await client.get(["k5"]) == {"k5": 5}


async def test_timed_out_requests_disturb_no_other(server: Server) -> None:
    async with KvClient(server.url) as client:
        await client.set({f"k{n}": n for n in range(REQUESTS)})
        os.kill(server.pid, signal.SIGSTOP)
        try:
            asking = [
                asyncio.ensure_future(client.get([f"k{n}"], timeout=0 if n % 2 else 30))
                for n in range(REQUESTS)
            ]
            for hasty in asking[1::2]:
                with pytest.raises(RequestTimeout):
                    await hasty
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await asyncio.gather(*asking[::2]) == [{f"k{n}": n} for n in range(0, REQUESTS, 2)]
        assert await client.get(["k5"]) == {"k5": 5}


async def test_large_values_go_both_ways_at_once(server: Server) -> None:
    async with KvClient(server.url) as client:
        value = "ö" * 400_000
        await asyncio.gather(*(client.set({f"k{n}": value}) for n in range(20)))
        many = await asyncio.gather(
            client.get([f"k{n}" for n in range(20)]),
            *(client.set({f"l{n}": value}) for n in range(20)),
        )
        assert many[0] == {f"k{n}": value for n in range(20)}


async def test_a_killed_server_fails_every_request_in_flight(start_server: StartServer) -> None:
    server = start_server()
    async with KvClient(server.url, policy=ConnectionPolicy(reconnect_timeout=0)) as client:
        await client.set({"k": 1})
        # A stopped process answers nothing any more.
        server.process.send_signal(signal.SIGSTOP)
        in_flight = asyncio.gather(*(client.get(["k"]) for _ in range(10)), return_exceptions=True)
        # One turn of the event loop for the requests, one for their write.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        server.kill()
        for outcome in await in_flight:
            assert isinstance(outcome, ConnectionLost)
            assert outcome.maybe_executed is True
        with pytest.raises(ConnectionLost) as later:
            await client.get(["k"])
        assert later.value.maybe_executed is False


async def test_a_server_that_stops_says_goodbye(start_server: StartServer) -> None:
    server = start_server()
    async with KvClient(server.url, policy=ConnectionPolicy(reconnect_timeout=0)) as client:
        await client.set({"k": 1})
        await asyncio.to_thread(server.stop)
        with pytest.raises(ConnectionLost, match=r"closed the connection: 1001 \(going away\)"):
            await client.count()


async def test_a_client_follows_to_another_server(start_server: StartServer) -> None:
    first, second = start_server(), start_server()
    client = KvClient()
    await client.open(first.url)
    await client.set({"k": 1})
    await client.close()
    await client.open(second.url)
    assert await client.count() == 0
    await client.close()


FORGETFUL = """
import asyncio, sys
from ndb.client import NdbClient

kept = NdbClient()

async def main():
    await kept.open(sys.argv[1])
    dropped = NdbClient()
    await dropped.open(sys.argv[1])
    await dropped.kv_count()
    asyncio.ensure_future(kept.kv_count())

asyncio.run(main())
asyncio.run(main())
print("done")
"""


def test_a_program_that_never_closes_its_client_ends_without_a_word(server: Server) -> None:
    program = subprocess.run(
        [sys.executable, "-c", FORGETFUL, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (program.returncode, program.stdout, program.stderr) == (0, "done\n", "")
