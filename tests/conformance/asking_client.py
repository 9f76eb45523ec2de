"""A client that asks by itself what the server can do: ``… asking_client WHEN``.

It runs one command at a time, and knows nothing of replies but how to repeat them.
"""

import asyncio
import json
import sys
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ASK = '{"SV_INFO":{}}'


class Client:
    """The client.

    Args:
        when: when it asks.
    """

    def __init__(self, when: str) -> None:
        self._when = when
        self._url = ""
        self._connection: ClientConnection
        self._runs = 0
        self._unread = 0

    async def open(self, url: str) -> None:
        self._url = url
        self._connection = await connect(url, compression=None)
        self._runs = self._unread = 0
        if self._when in {"to-open", "to-open-twice"}:
            await self._ask()
        if self._when == "to-open-twice":
            await self._ask()
        if self._when == "and-does-not-wait":
            await self._connection.send(ASK)
            self._unread = 1
        if self._when == "something-else":
            await self._connection.send('{"KV_CLEAR":{}}')
            await self._connection.recv()

    async def _ask(self) -> None:
        await self._connection.send(ASK)
        await self._connection.recv()

    async def run(self, command: str, params: dict[str, Any]) -> dict[str, Any]:
        self._runs += 1
        if (self._when, self._runs) in {
            ("for-the-first-request", 1),
            ("for-the-second-request", 2),
        }:
            await self._ask()
        if self._when == "after-reconnecting":
            await self._connection.wait_closed()
            await self.open(self._url)
            await self._ask()
        await self._connection.send(json.dumps({command: params}))
        for _ in range(self._unread):
            await self._connection.recv()
        self._unread = 0
        [body] = json.loads(await self._connection.recv()).values()
        return {name: value for name, value in body.items() if name != "st"}

    async def close(self) -> None:
        await self._connection.close()


async def obey(client: Client, call: str, told: dict[str, Any]) -> dict[str, Any]:
    try:
        if call == "open":
            await client.open(told["url"])
        elif call == "close":
            await client.close()
        else:
            return {"result": await client.run(call, told["params"])}
    except (InvalidStatus, ConnectionClosed):
        return {"error": "lost"}
    return {"result": {}}


async def main() -> None:
    client = Client(sys.argv[1])
    while line := await asyncio.to_thread(sys.stdin.readline):
        told = json.loads(line)
        answer = await obey(client, told["call"], told)
        print(json.dumps({"id": told["id"], **answer}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
