"""A Python program that uses a store: the other side of the round trip.

Usage: python programs.py CLIENT PORT TASKS (--seconds SECONDS | --requests COUNT) < TOKENS

CLIENT is `ndb`, `redis` (redis-py), or `redis-pipeline` (explicit pipelines of TASKS commands from
one task). With `--seconds` it warms up, makes requests for so long, and prints a JSON object:
requests made, seconds, and seconds of processor time. With `--requests` it makes so many, and
prints nothing.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle

Ask = Callable[[int], Awaitable[int]]
"""Asks about a session, and returns how many requests that took."""


async def _ndb(port: int) -> Ask:
    from ndb.sessionclient import SessionClient

    client = SessionClient()
    await client.open(f"ws://127.0.0.1:{port}/")

    async def ask(token: int) -> int:
        values = await client.get(("a", "b"), token)
        assert values["a"]
        return 1

    return ask


async def _redis(port: int) -> Ask:
    import redis.asyncio

    # A pool that makes each task wait for no other: one connection for each.
    client = redis.asyncio.Redis(port=port)

    async def ask(token: int) -> int:
        values = await client.hmget(f"sess:{token}", ["a", "b"])
        assert values[0]
        return 1

    return ask


async def _redis_pipeline(port: int, size: int) -> Ask:
    import redis.asyncio

    client = redis.asyncio.Redis(port=port)

    async def ask(token: int) -> int:
        pipeline = client.pipeline(transaction=False)
        for _ in range(size):
            pipeline.hmget(f"sess:{token}", ["a", "b"])
        for values in await pipeline.execute():
            assert values[0]
        return size

    return ask


async def _opened(client: str, port: int, tasks: int) -> tuple[Ask, int]:
    """Return what asks, and how many tasks are to use it."""
    if client == "redis-pipeline":
        return await _redis_pipeline(port, tasks), 1
    return await (_ndb if client == "ndb" else _redis)(port), tasks


async def _task(ask: Ask, tokens: Iterator[int], end: float) -> int:
    requests = 0
    while time.perf_counter() < end:
        requests += await ask(next(tokens))
    return requests


async def run(client: str, port: int, tasks: int, seconds: float, tokens: Sequence[int]) -> None:
    ask, tasks = await _opened(client, port, tasks)
    endless = cycle(tokens)
    await asyncio.gather(*(_task(ask, endless, time.perf_counter() + 0.3) for _ in range(tasks)))
    begin, cpu = time.perf_counter(), time.process_time()
    counts = await asyncio.gather(*(_task(ask, endless, begin + seconds) for _ in range(tasks)))
    figures = {
        "requests": sum(counts),
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
    }
    print(json.dumps(figures))


async def make(client: str, port: int, tasks: int, requests: int, tokens: Sequence[int]) -> None:
    ask, tasks = await _opened(client, port, tasks)
    endless = cycle(tokens)

    async def task() -> None:
        made = 0
        while made < requests // tasks:
            made += await ask(next(endless))

    await asyncio.gather(*(task() for _ in range(tasks)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="programs.py")
    parser.add_argument("client", choices=["ndb", "redis", "redis-pipeline"])
    parser.add_argument("port", type=int)
    parser.add_argument("tasks", type=int)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--seconds", type=float)
    amount.add_argument("--requests", type=int)
    given = parser.parse_args()
    chosen = [int(line) for line in sys.stdin]
    where = (given.client, given.port, given.tasks)
    if given.requests is None:
        asyncio.run(run(*where, given.seconds, chosen))
    else:
        asyncio.run(make(*where, given.requests, chosen))
