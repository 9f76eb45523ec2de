"""Clients that come and go, for as long as they are let."""

import asyncio
import random
from contextlib import suppress

from ndb import ResponseError, Status
from ndb.kvclient import KvClient
from ndb.sessionclient import SessionClient

from tests.support.raw_client import handshake, text

CLIENTS = 16
SESSIONS = 50
"""Sessions that a client has at once."""
ROUNDS = 20
"""How often it uses each, before it leaves them to expire."""
TIMEOUT = 120
"""How many seconds a client waits: beside CI's tests all of this gets what they leave over."""


class Load:
    """What all clients do until they are told to stop. How many sessions there are is bounded.

    Args:
        port: where the server accepts connections.
        clients: how many use sessions.

    Attributes:
        connections: how many were made.
        requests: how many were answered, of those that were waited for.
        saves: how many datasets were written.
    """

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._clients = clients
        self._uri = f"ws://127.0.0.1:{port}/"
        self._stopping = False
        self.connections = 0
        self.requests = 0
        self.saves = 0

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        """Be all the clients at once."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._come_and_go(random.Random(number)))
            group.create_task(self._break_off(random.Random(self._clients)))
            group.create_task(self._keep_saving(random.Random(self._clients + 1)))

    async def _come_and_go(self, chance: random.Random) -> None:
        while not self._stopping:
            self.connections += 1
            async with SessionClient(self._uri, timeout=TIMEOUT) as client:
                await self._use_sessions(client, chance)

    async def _use_sessions(self, client: SessionClient, chance: random.Random) -> None:
        expiring = [
            await client.create_session(1, True, extendOnGet=chance.random() < 0.5)
            for _ in range(SESSIONS // 2)
        ]
        lasting = [await client.create_session() for _ in range(SESSIONS // 2)]
        tokens = [session.token for session in (*expiring, *lasting)]
        for _ in range(ROUNDS):
            await asyncio.gather(*(self._use(client, token, chance) for token in tokens))
        for session in lasting:
            await client.end_session(session)
        while await client.session_exists(expiring):
            self.requests += 1
        self.requests += len(tokens) + len(lasting)

    async def _use(self, client: SessionClient, token: int, chance: random.Random) -> None:
        values = {"a": chance.random(), "b": "x" * chance.randrange(400)}
        try:
            await client.set(values, token)
            await client.get(("a", "b"), token)
        except ResponseError as error:
            # It has expired by now.
            assert error.status == Status.SESSION_NOT_EXIST
        self.requests += 2

    async def _break_off(self, chance: random.Random) -> None:
        """Go without a word: within the handshake, within a frame, or with replies unread."""
        asked = handshake()
        asked += text({"KV_GET": {"keys": ["large"]}}) * 200
        async with KvClient(self._uri, timeout=TIMEOUT) as keys:
            while not self._stopping:
                self.connections += 1
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                with suppress(ConnectionError):
                    writer.write(asked[: chance.randrange(len(asked) + 1)])
                    await writer.drain()
                writer.transport.abort()
                with suppress(ConnectionError):
                    await writer.wait_closed()
                # The system accepts connections before the server does: without an answer in
                # between they would fill the backlog, and others would wait.
                await keys.count()
                self.requests += 1

    async def save(self) -> None:
        """Save sessions and keys once, and load the keys again."""
        async with (
            SessionClient(self._uri, timeout=TIMEOUT) as sessions,
            KvClient(self._uri, timeout=TIMEOUT) as keys,
        ):
            await sessions.save("soak")
            await keys.save("soak")
            await keys.load("soak")
        self.saves += 2

    async def _keep_saving(self, chance: random.Random) -> None:
        async with (
            KvClient(self._uri, timeout=TIMEOUT) as keys,
            SessionClient(self._uri, timeout=TIMEOUT) as client,
        ):
            await keys.set({"large": "x" * 10_000})
            while not self._stopping:
                await self.save()
                await self._use_sessions(client, chance)
            await keys.clear()
