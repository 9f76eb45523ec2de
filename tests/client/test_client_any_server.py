"""Whatever a server is, does and becomes, nobody gets what another has asked for."""

import asyncio
import random
from typing import Any

from ndb import ConnectionPolicy, NdbException, SessionClient

from tests.support.event_loops import BOTH_LOOPS, Factory, run
from tests.support.misbehaving_servers import NDB, NEMESISDB, RawPeer, raw_peer, reply, text
from tests.support.waiting import BOUND

WORKERS = 30
CALLS = 30
CHANCE = random.Random(1987)

# Nothing in this reply says whose it is.
ANSWERS = {
    "SH_GET": lambda params: reply("SH_GET", keys={"k": params["tkn"]}),
    "SH_SET": lambda params: reply("SH_SET"),
    "SH_COUNT": lambda params: reply("SH_COUNT", cnt=params["tkn"] % 1000),
}


def answer(name: str, params: dict[str, Any], *, promised: bool) -> bytes:
    """Return what a server sends for a request; who has promised no reply does as it likes."""
    message = text(ANSWERS[name](params))
    if promised:
        return message
    refusal = text('{"KV_SET_RSP":{"st":10,"m":""}}')
    [sent] = CHANCE.choices([message, message * 2, refusal, b""], [90, 4, 4, 2])
    return sent


async def serve(server: RawPeer) -> None:
    """Be one kind of server or the other, with one limit or another, for some requests."""
    await server.send(await server.handshake())
    promised = CHANCE.random() < 0.5
    limits = {"limits": {"messageSize": CHANCE.choice([60, 1000])}}
    try:
        await server.greet({**(NDB if promised else NEMESISDB), **limits})
        for _ in range(CHANCE.randrange(1, 100)):
            name, params = await server.request()
            await server.send(answer(name, params, promised=promised))
    except (AssertionError, ConnectionError):
        pass  # The client has left.


async def ask(client: SessionClient) -> str:
    """Ask something, for some time, and return what became of it."""
    tkn = CHANCE.randrange(1, 2**63)
    timeout = CHANCE.choice([None, 0.1, 0.01])
    try:
        match CHANCE.randrange(3):
            case 0:
                assert await client.get(["k"], tkn, timeout=timeout) == {"k": tkn}
            case 1:
                assert await client.count(tkn, timeout=timeout) == tkn % 1000
            case _:
                await client.set({"k": "x" * CHANCE.randrange(50)}, tkn, timeout=timeout)
    except (NdbException, ValueError) as error:
        return type(error).__name__
    return "answered"


async def work(client: SessionClient) -> set[str]:
    seen: set[str] = set()
    for _ in range(CALLS):
        asking = asyncio.ensure_future(ask(client))
        if CHANCE.random() < 0.1:
            for _ in range(CHANCE.randrange(3)):
                await asyncio.sleep(0)
            asking.cancel()
        await asyncio.wait([asking])
        seen.add("cancelled" if asking.cancelled() else asking.result())
    return seen


@BOTH_LOOPS
def test_nobody_gets_what_another_has_asked_for_and_nobody_waits_for_ever(
    factory: Factory,
) -> None:
    async def main() -> None:
        async with raw_peer(serve) as url, asyncio.timeout(6 * BOUND):
            policy = ConnectionPolicy(initial_backoff=0.001, max_backoff=0.001)
            async with SessionClient(url, policy=policy, timeout=0.5) as client:
                seen = await asyncio.gather(*(work(client) for _ in range(WORKERS)))
        assert {"answered", "cancelled"} <= set().union(*seen)

    run(factory, main())
