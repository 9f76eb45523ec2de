"""The same work as SH_NEW, SH_SET and SH_GET, on a server as ``websockets``' documentation has it.

Usage: python plain_server.py PORT
"""

import asyncio
import json
import secrets
import sys
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

sessions: dict[int, dict[str, Any]] = {}


def respond(message: str | bytes) -> dict[str, Any]:
    [(command, parameters)] = json.loads(message).items()
    if command == "SH_NEW":
        token = secrets.randbits(64)
        sessions[token] = {}
        return {"SH_NEW_RSP": {"st": 1, "tkn": token}}
    values = sessions[parameters["tkn"]]
    keys = parameters["keys"]
    if command == "SH_SET":
        values.update(keys)
        return {"SH_SET_RSP": {"st": 1}}
    return {"SH_GET_RSP": {"st": 1, "keys": {key: values[key] for key in keys if key in values}}}


async def handle(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(json.dumps(respond(message)))


async def main(port: int) -> None:
    async with serve(handle, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
