"""A Python program that uses a store: the other side of the round trip.

Usage: python programs.py CLIENT PORT TASKS SECONDS < TOKENS

CLIENT is `ndb`, `redis` (redis-py), or `redis-pipeline` (explicit pipelines of TASKS commands from
one task). Prints a JSON object: requests made, seconds, and seconds of processor time.
"""

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


async def _task(ask: Ask, tokens: Iterator[int], end: float) -> int:
    requests = 0
    while time.perf_counter() < end:
        requests += await ask(next(tokens))
    return requests


async def run(client: str, port: int, tasks: int, seconds: float, tokens: Sequence[int]) -> None:
    if client == "redis-pipeline":
        ask, tasks = await _redis_pipeline(port, tasks), 1
    else:
        ask = await (_ndb if client == "ndb" else _redis)(port)
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


if __name__ == "__main__":
    name, port, tasks, seconds = sys.argv[1:]
    chosen = [int(line) for line in sys.stdin]
    asyncio.run(run(name, int(port), int(tasks), float(seconds), chosen))
