"""Lets ``ndb-conformance`` drive the asyncio client: ``python -m tests.conformance.python_client``.

Each line of standard input says what to do, each line of standard output what came of it.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ndb import (
    ConnectError,
    ConnectionLost,
    ConnectionPolicy,
    NdbClient,
    RequestTimeout,
    ResponseError,
)
from ndb.errors import UnreadableReply

Params = dict[str, Any]
Body = dict[str, Any]


def _token(params: Params) -> int:
    return int(params["tkn"])


def _tokens(params: Params) -> list[int]:
    return [int(token) for token in params["tkns"]]


async def _new(client: NdbClient, params: Params, limit: Any) -> Body:
    expiry = params.get("expiry", {})
    session = await client.sh_create(
        expiry.get("duration", 0),
        expiry.get("deleteSession", False),
        expiry.get("extendOnSetAdd", False),
        expiry.get("extendOnGet", False),
        **limit,
    )
    if not session.isValid:
        raise ResponseError("SH_NEW", {"st": int(session.status), "m": session.message})
    return {"tkn": str(session.tkn)}


async def _info(client: NdbClient, params: Params, limit: Any) -> Body:
    body = await client.sh_info(_token(params), **limit)
    return {**body, "tkn": str(body["tkn"])}


async def _exists(client: NdbClient, params: Params, limit: Any) -> Body:
    found = await client.sh_session_exists(_tokens(params), **limit)
    return {"exist": [str(token) for token in found]}


async def _load_keys(client: NdbClient, params: Params, limit: Any) -> Body:
    return {"keys": await client.kv_load(params["name"], **limit)}


def _on_keys(
    name: str, arguments: tuple[str, ...], member: str | None
) -> dict[str, Callable[[NdbClient, Params, Any], Awaitable[Body]]]:
    """Return how to run a command on both key spaces.

    Args:
        name: the command, without its prefix.
        arguments: the parameters that the method takes, in order.
        member: what the reply calls the result; None if there is none.
    """

    async def run(method: Any, first: tuple[int, ...], params: Params, limit: Any) -> Body:
        given = [params[argument] for argument in arguments if argument in params]
        result = await method(*first, *given, **limit)
        if name == "FIND":
            return {"paths" if params["rsp"] == "paths" else "keys": result}
        return {} if member is None else {member: result}

    def on_session(client: NdbClient, params: Params, limit: Any) -> Awaitable[Body]:
        return run(getattr(client, f"sh_{name.lower()}"), (_token(params),), params, limit)

    def independent(client: NdbClient, params: Params, limit: Any) -> Awaitable[Body]:
        return run(getattr(client, f"kv_{name.lower()}"), (), params, limit)

    return {f"SH_{name}": on_session, f"KV_{name}": independent}


async def _end(client: NdbClient, params: Params, limit: Any) -> Body:
    await client.sh_end(_token(params), **limit)
    return {}


async def _end_all(client: NdbClient, _: Params, limit: Any) -> Body:
    return {"cnt": await client.sh_end_all(**limit)}


RUN: dict[str, Callable[[NdbClient, Params, Any], Awaitable[Body]]] = {
    "SH_NEW": _new,
    "SH_END": _end,
    "SH_END_ALL": _end_all,
    "SH_EXISTS": _exists,
    "SH_INFO": _info,
    "SH_INFO_ALL": lambda client, _, limit: client.sh_info_all(**limit),
    "SH_SAVE": lambda client, p, limit: client.sh_save(
        p["name"], _tokens(p) if "tkns" in p else (), **limit
    ),
    "SH_LOAD": lambda client, p, limit: client.sh_load(p["name"], **limit),
    **_on_keys("SET", ("keys",), None),
    **_on_keys("ADD", ("keys",), None),
    **_on_keys("GET", ("keys",), "keys"),
    **_on_keys("RMV", ("keys",), None),
    **_on_keys("CONTAINS", ("keys",), "contains"),
    **_on_keys("COUNT", (), "cnt"),
    **_on_keys("KEYS", (), "keys"),
    **_on_keys("CLEAR", (), "cnt"),
    **_on_keys("CLEAR_SET", ("keys",), "cnt"),
    **_on_keys("FIND", ("path", "rsp", "keys"), "keys"),
    **_on_keys("UPDATE", ("key", "path", "value"), "cnt"),
    **_on_keys("ARR_APPEND", ("key", "items", "name"), None),
    "KV_SAVE": lambda client, p, limit: client.kv_save(p["name"], **limit),
    "KV_LOAD": _load_keys,
    "SV_INFO": lambda client, _, limit: client.sv_info(**limit),
}


def _error(error: Exception) -> Body:
    match error:
        case ResponseError():
            return {"error": "refused", "status": int(error.status)}
        case ConnectionLost() | ConnectError():
            return {"error": "lost"}
        case RequestTimeout():
            return {"error": "timeout"}
        case UnreadableReply():
            return {"error": "unreadable"}
    raise error


async def _run(client: NdbClient, line: Params) -> Body:
    call = line["call"]
    try:
        if call == "open":
            await client.close()
            await client.open(line["url"])
            result: Body = {}
        elif call == "close":
            await client.close()
            result = {}
        else:
            limit = {"timeout": line["timeout"]} if "timeout" in line else {}
            result = await RUN[call](client, line["params"], limit)
    except Exception as error:
        return {"id": line["id"], **_error(error)}
    return {"id": line["id"], "result": result}


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    # What the kit looks at is one connection: a client that makes another hides how it ended.
    client = NdbClient(policy=ConnectionPolicy(reconnect_timeout=0))
    async with asyncio.TaskGroup() as group:

        async def answer(line: bytes) -> None:
            print(json.dumps(await _run(client, json.loads(line))), flush=True)

        async for line in lines:
            group.create_task(answer(line))


if __name__ == "__main__":
    asyncio.run(main())
