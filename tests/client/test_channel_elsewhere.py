"""A client belongs to the event loop, the thread and the process in which it was opened."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ndb import InvalidState, KvClient

from tests.support.event_loops import BOTH_LOOPS, FACTORIES, Factory, run
from tests.support.server_process import StartServer

Use = Callable[[KvClient], Any]
USES: dict[str, Use] = {
    "a request": lambda client: client.set({"k": "elsewhere"}),
    "a request with a timeout": lambda client: client.set({"k": "elsewhere"}, timeout=1),
}


def refused_by(client: KvClient, use: Use, factory: Factory) -> str:
    """Return what it says to whoever uses it from an event loop of its own."""

    async def main() -> str:
        with pytest.raises(InvalidState) as refusal:
            await use(client)
        return str(refusal.value)

    return run(factory, main())


@BOTH_LOOPS
@pytest.mark.parametrize("use", [*USES.values(), KvClient.close, KvClient.open])
def test_another_thread_is_told_before_anything_is_sent(
    start_server: StartServer, factory: Factory, use: Use
) -> None:
    async def main() -> None:
        async with KvClient(start_server().url) as client:
            await client.set({"k": "here"})
            said = await asyncio.to_thread(refused_by, client, use, factory)
            assert "another event loop, or thread" in said or "already open" in said
            # It goes on here, and nothing was sent.
            assert await client.get(["k"]) == {"k": "here"}

    run(factory, main())


# Who ends an event loop before the client is closed leaves the connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@BOTH_LOOPS
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_event_loop_after_another_has_to_open_it_again(
    start_server: StartServer, factory: Factory, use: Use
) -> None:
    client = KvClient(start_server().url)
    run(factory, client.open())
    assert "has ended; open() the client" in refused_by(client, use, factory)

    async def again() -> None:
        await client.close()
        await client.open()
        assert await client.get(["k"]) == {}
        await client.close()

    run(factory, again())
    gc.collect()


FORKED = """
import asyncio, os, sys, uvloop
from ndb import InvalidState, KvClient

def in_child(client, url):
    # The loop of the parent goes on here, as far as Python knows.
    try:
        client.set({"k": "forked"}).send(None)
    except InvalidState as error:
        print(error, flush=True)

    async def own():
        try:
            await client.set({"k": "forked"})
        except InvalidState as error:
            print(error, flush=True)
        await client.close()
        await client.open(url)
        await client.set({"child": os.getpid()})
        await client.close()

    asyncio.set_event_loop(None)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(own())

async def main(url):
    async with KvClient(url, timeout=10) as client:
        await client.set({"k": "here"})
        child = os.fork()
        if child == 0:
            status = 1
            try:
                in_child(client, url)
                status = 0
            finally:
                sys.stdout.flush()
                os._exit(status)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(await client.get(["k", "child"]) == {"k": "here", "child": child})

factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[2]]
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("loop", FACTORIES)
def test_a_forked_process_is_told_and_leaves_the_connection_of_its_parent_alone(
    start_server: StartServer, loop: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKED, start_server().url, loop]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    refusal = (
        "the client was opened in another process, before a fork; open() a client in this process"
    )
    assert done.stdout.splitlines() == [refusal, refusal, "child 0", "True"]
