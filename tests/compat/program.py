"""A program that uses a server as any version's client lets it: what each must go on doing.

Usage: python program.py < PLAN

It runs with the client of whatever Python runs it, so it keeps to what the earliest version offers.
What came later stands behind a look at the plan's commands: `if "SH_LATER" in plan.commands`.
The plan is a JSON object with the members of `Plan`.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from ndb import (
    ConnectError,
    KvClient,
    NdbClient,
    NdbException,
    ResponseError,
    Session,
    SessionClient,
    Status,
)
from websockets.asyncio.client import connect

BOUND = 60
"""The most that all of it may take, in seconds."""

VALUES: dict[str, Any] = {
    "": "",
    "null": None,
    "booleans": [True, False],
    "integers": [0, -1, 2**53 + 1, 2**64 - 1, -(2**63)],
    "floats": [0.1, -0.0, 1.0, 5e-324, 1.7976931348623157e308],
    "text": '\0\n"\\/\x7fäſ\u2028\ufeff😀',
    "😀": {"b": {}, "a": [], "": [[]]},
    "large": "ä" * 100_000,
}


@dataclass(frozen=True)
class Plan:
    """What there is to talk to.

    Attributes:
        commands: those that both sides have.
        open: where a server lets everyone in.
        guarded: where one asks for credentials; a session has 20 keys there at the most.
        admin: the secret of the entry ``admin``, which may do everything.
        app: the secret of the entry ``app``, which has this role alone.
    """

    commands: list[str]
    open: str
    guarded: str
    admin: str
    app: str


class Sent(logging.Handler):
    """The commands that clients have sent, which they log at DEBUG."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.commands.add(record.getMessage().partition(": status ")[0])


async def refused(attempt: Awaitable[object], status: Status) -> ResponseError:
    """See that a request is refused with `status`; return the refusal."""
    try:
        await attempt
    except ResponseError as refusal:
        assert refusal.status == status, f"refused with {refusal.status}, not {status}"
        return refusal
    raise AssertionError(f"it was not refused with {status}")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def first_session(url: str) -> None:
    """Do what the README shows."""
    async with SessionClient(url) as client:
        session = await client.create_session(
            durationSeconds=3600, deleteSession=True, extendOnGet=True
        )
        await client.set({"user": "ada", "cart": ["tea", "cup"]}, session)
        assert await client.get(["cart"], session) == {"cart": ["tea", "cup"]}
        await client.end_session(session)


async def sessions(client: NdbClient) -> None:
    session = await client.sh_create()
    assert isinstance(session, Session)
    assert session.tknValid
    other = await client.sh_create(
        durationSeconds=60, deleteSessionOnExpire=True, extendOnSetAdd=True, extendOnGet=True
    )
    await client.sh_set(session.tkn, {"fname": "James", "sname": "smith"})
    await client.sh_add(session.tkn, {"fname": "Jim", "roles": ["new"]})
    assert await client.sh_get(session.tkn, keys=("fname", "sname")) == {
        "fname": "James",
        "sname": "smith",
    }
    assert await client.sh_get(session.tkn, ("roles",)) == {"roles": ["new"]}
    assert await client.sh_get(session.tkn, key="fname") == "James"
    assert await client.sh_get(session.tkn, key="none") is None
    assert await client.sh_get(session.tkn) == {}
    assert await client.sh_contains(session.tkn, ("none", "sname")) == ["sname"]
    assert await client.sh_keys(session.tkn) == ["fname", "sname", "roles"]
    assert await client.sh_count(session.tkn) == 3
    await client.sh_rmv(session.tkn, ("roles",))
    assert await client.sh_clear_set(session.tkn, {"a": 1}) == 2
    assert await client.sh_clear(session.tkn) == 1
    info = await client.sh_info(other.tkn)
    assert info["expiry"]["deleteSession"] is True
    assert "st" not in info
    assert await client.sh_info_all() == {"totalSessions": 2, "totalKeys": 0}
    assert await client.sh_session_exists([session.tkn, 1]) == [session.tkn]
    await client.sh_end(session.tkn)
    refusal = await refused(client.sh_get(session.tkn, key="fname"), Status.SESSION_NOT_EXIST)
    assert isinstance(refusal, NdbException)
    assert refusal.rsp["st"] == 100
    assert await client.sh_end_all() == 1


async def independent_keys(client: NdbClient) -> None:
    await client.kv_set({"server_ip": "127.0.0.1", "users": {"admins": ["u1"], "banned": []}})
    await client.kv_add({"server_ip": "ignored", "port": 1987})
    assert await client.kv_get(key="port") == 1987
    assert await client.kv_get(key="none") is None
    assert await client.kv_get(keys=("port", "none")) == {"port": 1987}
    assert await client.kv_get(("port",)) == {"port": 1987}
    assert await client.kv_contains(("port",)) == ["port"]
    assert await client.kv_keys() == ["server_ip", "users", "port"]
    assert await client.kv_count() == 3
    await client.kv_rmv(("port",))
    assert await client.kv_clear_set({"a": 1}) == 2
    assert await client.kv_clear() == 1


async def saving_and_loading(client: NdbClient) -> None:
    await client.kv_set({"a": 1, "b": 2})
    await client.kv_save("kept")
    await client.kv_clear()
    assert await client.kv_load("kept") == 2
    session = await client.sh_create()
    await client.sh_set(session.tkn, {"a": 1})
    await client.sh_save("one", [session.tkn])
    await client.sh_save("all", tkns=[])
    await client.sh_end_all()
    loaded = await client.sh_load("all")
    assert (loaded["sessions"], loaded["keys"]) == (1, 1)


async def parts_of_values(client: NdbClient) -> None:
    session = await client.sh_create_session(30, deleteSession=True)
    assert (await client.sh_info(session))["expiry"]["deleteSession"] is True
    await client.sh_set(session, {"a": {"n": [1]}})
    await client.kv_set({"a": {"n": [1]}})
    assert await client.sh_update(session, "a", "$.n[0]", 2) == 1
    assert await client.kv_update("a", "$.n[0]", 3) == 1
    await client.sh_arr_append(session, "a", [3], "n")
    await client.kv_arr_append("a", [4], name="n")
    assert await client.sh_find(session, "$.n", "kv") == {"a": {"n": [2, 3]}}
    assert await client.kv_find("$.n", "kv") == {"a": {"n": [3, 4]}}
    assert await client.kv_find("$.n[1]", "keys") == ["a"]
    assert (await client.sv_info())["persistEnabled"] is True


async def values(client: NdbClient) -> None:
    sent = {**VALUES, "deep": nested(100)}
    session = await client.sh_create()
    await client.sh_set(session, sent)
    # Python takes 1, 1.0 and True for equal, and -0.0 for 0.0; what is printed tells them apart.
    assert repr(await client.sh_get(session, sent)) == repr(sent)
    await client.kv_clear_set(sent)
    assert repr(await client.kv_get(sent)) == repr(sent)


async def expiry(client: NdbClient) -> None:
    ended = await client.sh_create(1, deleteSession=True)
    emptied = await client.sh_create(1)
    lasting = await client.sh_create(4_294_967_295, extendOnGet=True)
    for session in (ended, emptied, lasting):
        await client.sh_set(session, {"a": 1})
    while await client.sh_session_exists([ended]) or await client.sh_keys(emptied):
        pass
    await refused(client.sh_set(ended, {"a": 2}), Status.SESSION_NOT_EXIST)
    assert await client.sh_session_exists([ended, emptied, lasting]) == [emptied.tkn, lasting.tkn]
    assert await client.sh_get(lasting, key="a") == 1


async def refusals(client: NdbClient) -> None:
    session = await client.sh_create()
    await client.kv_clear_set({"a": 1})
    for attempt, status in (
        (client.sh_info(1), Status.SESSION_NOT_EXIST),
        (client.sh_set(session, dict.fromkeys(map(str, range(21)))), Status.LIMIT_EXCEEDED),
        (client.kv_find("$[", "keys"), Status.PATH_INVALID),
        (client.kv_find("$", "all"), Status.COMMAND_SYNTAX),
        (client.kv_update("b", "$", 1), Status.KEY_NOT_EXIST),
        (client.kv_arr_append("a", [1]), Status.VALUE_TYPE_INVALID),
        (client.kv_save("../a"), Status.VALUE_SIZE),
        (client.kv_load("nothing"), Status.LOAD_ERROR),
    ):
        await refused(attempt, status)
    assert not (await client.sh_create(2**32)).isValid
    assert await client.kv_get(("a",)) == {"a": 1}


async def pipelined(client: NdbClient) -> None:
    """Send many requests at once; each gets its own reply, the refused ones too."""
    session = await client.sh_create()
    await client.sh_set(session, {"a": 1})
    await asyncio.gather(*(client.kv_set({str(n): n}) for n in range(500)))
    found = await asyncio.gather(
        *(client.kv_get(key=str(n)) for n in range(500)),
        client.sh_get(1, key="a"),
        client.sh_get(session, key="a"),
        return_exceptions=True,
    )
    assert found[:500] == [*range(500)]
    assert isinstance(found[500], ResponseError)
    assert found[500].status == Status.SESSION_NOT_EXIST
    assert found[501] == 1


async def credentials(plan: Plan) -> None:
    host = plan.guarded.removeprefix("ws://")
    for known in (
        SessionClient(plan.guarded, credentials=plan.app),
        SessionClient(plan.guarded, credentials=("app", plan.app)),
        SessionClient(f"ws://app:{plan.app}@{host}"),
    ):
        async with known as client:
            await refused(client.end_all_sessions(), Status.COMMAND_DISABLED)
            await client.end_session(await client.create_session())
    for unknown in (plan.app[:-1], None):
        try:
            async with KvClient(plan.guarded, credentials=unknown):
                raise AssertionError("it was let in")
        except ConnectError:
            pass


async def text_tokens(url: str) -> None:
    """Talk on `ndb.v1.text`, as clients do that can't hold tokens in numbers."""
    async with (
        connect(url, subprotocols=["ndb.v1.text"], proxy=None) as socket,  # type: ignore[list-item]
        NdbClient(uri=url) as client,
    ):
        assert socket.subprotocol == "ndb.v1.text"

        async def ask(command: str, **params: object) -> dict[str, Any]:
            await socket.send(json.dumps({command: params}))
            reply: dict[str, Any] = json.loads(await socket.recv())[f"{command}_RSP"]
            assert reply["st"] == Status.OK, reply
            return reply

        token = (await ask("SH_NEW"))["tkn"]
        assert token == str(int(token))
        await ask("SH_SET", tkn=token, keys={"a": 1})
        assert (await ask("SH_INFO", tkn=int(token)))["tkn"] == token
        assert (await ask("SH_EXISTS", tkns=[token, 1]))["exist"] == [token]
        # The same session, where tokens are numbers.
        assert await client.sh_get(int(token), key="a") == 1
        assert await client.sh_session_exists([int(token)]) == [int(token)]


async def run(plan: Plan) -> None:
    await first_session(plan.open)
    await text_tokens(plan.open)
    await credentials(plan)
    async with NdbClient(uri=plan.guarded, credentials=("admin", plan.admin)) as client:
        for conversation in (
            sessions,
            independent_keys,
            saving_and_loading,
            parts_of_values,
            values,
            expiry,
            refusals,
            pipelined,
        ):
            await conversation(client)


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    sent = Sent()
    logger = logging.getLogger("ndb")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(sent)
    asyncio.run(asyncio.wait_for(run(plan), BOUND))
    if left_out := sorted({*plan.commands} - sent.commands):
        sys.exit(f"never sent: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
