"""What dispatch makes of handlers that answer late, refuse or fail."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable
from typing import Any

import pytest
from ndb_protocol import COMMANDS, Status
from ndb_protocol.messages import CountReply, Reply, TokenReply
from ndb_server.dispatch.dispatcher import MAX_STEPS, NOT_TEXT, Dispatcher
from ndb_server.engine.engine import Engine
from ndb_server.errors import RefusedError
from ndb_server.interfaces import Handler
from ndb_server.limits import Limits

from tests.support.valid_params import PARAMS

TOKEN = 1234567890123456789
SECRET = "a value that is nobody's business"
MESSAGE = json.dumps({"SH_SET": {"tkn": TOKEN, "keys": {"a": SECRET}}}).encode()


async def answer(handler: Handler, message: bytes = MESSAGE, *, text: bool = False) -> str:
    """Return the reply to a message, when it has the command run by `handler`."""
    dispatcher = Dispatcher({"SH_SET": handler, "SH_NEW": handler})
    [reply], _ = dispatcher.dispatch([message], 0, text_tokens=text)
    return (await reply if isinstance(reply, Awaitable) else reply).decode()


def test_a_request_that_there_is_no_memory_for_is_refused_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def needs_too_much(_: Any, __: int) -> Reply:
        raise MemoryError

    dispatcher = Dispatcher({"SH_SET": needs_too_much})
    for _ in range(2):
        [reply], _ = dispatcher.dispatch([MESSAGE], 0)
        assert reply == b'{"SH_SET_RSP":{"st":1000,"m":"the server ran out of memory"}}'
    assert dispatcher.out_of_memory == 2
    assert caplog.messages == []


def fails_at_once(params: Any, _: int) -> Reply:
    raise KeyError(params.tkn, params.keys)


async def fails_later(params: Any, _: int) -> Reply:
    await asyncio.sleep(0)
    raise ValueError(params.tkn, params.keys)


def fails_for_a_reason(params: Any, _: int) -> Reply:
    try:
        raise KeyError(params.tkn)
    except KeyError as error:
        raise RuntimeError(SECRET) from error


def cannot_be_encoded(params: Any, _: int) -> Reply:
    no_count: Any = {params.tkn: SECRET, "": object()}
    return CountReply(cnt=no_count)


async def cannot_be_encoded_later(params: Any, now: int) -> Reply:
    return cannot_be_encoded(params, now)


FAILING = [
    fails_at_once,
    fails_later,
    fails_for_a_reason,
    cannot_be_encoded,
    cannot_be_encoded_later,
]


@pytest.mark.parametrize("handler", FAILING)
async def test_an_internal_error_has_an_id_that_the_log_has_too(
    caplog: pytest.LogCaptureFixture, handler: Handler
) -> None:
    body = json.loads(await answer(handler))["SH_SET_RSP"]
    assert body["st"] == Status.UNKNOWN
    found = re.search(r"\b[0-9a-f]{8}\b", body["m"])
    assert found
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert found[0] in record.getMessage()
    assert "SH_SET" in record.getMessage()


@pytest.mark.parametrize("handler", FAILING)
async def test_an_internal_error_tells_no_token_and_no_value(
    caplog: pytest.LogCaptureFixture, handler: Handler
) -> None:
    reply = await answer(handler)
    for said in (reply, caplog.text):
        assert str(TOKEN) not in said
        assert SECRET not in said


async def test_the_log_says_where_an_internal_error_was_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await answer(fails_for_a_reason)
    assert "Traceback" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "in fails_for_a_reason" in caplog.text
    assert "KeyError" in caplog.text


async def test_internal_errors_have_ids_of_their_own() -> None:
    assert await answer(fails_at_once) != await answer(fails_at_once)


async def test_an_internal_error_does_not_end_what_follows() -> None:
    assert "1000" in await answer(fails_at_once)
    assert await answer(lambda params, now: Reply()) == '{"SH_SET_RSP":{"st":1}}'


def refuses_at_once(_: Any, __: int) -> Reply:
    raise RefusedError(Status.SESSION_NOT_EXIST, "no such session")


async def refuses_later(_: Any, __: int) -> Reply:
    raise RefusedError(Status.SESSION_NOT_EXIST, "no such session")


@pytest.mark.parametrize("handler", [refuses_at_once, refuses_later])
async def test_a_refusal_is_answered_and_not_logged(
    caplog: pytest.LogCaptureFixture, handler: Handler
) -> None:
    assert await answer(handler) == '{"SH_SET_RSP":{"st":100,"m":"no such session"}}'
    assert caplog.records == []


def answers_at_once(_: Any, now: int) -> Reply:
    return TokenReply(tkn=TOKEN)


async def answers_later(_: Any, now: int) -> Reply:
    return TokenReply(tkn=TOKEN)


@pytest.mark.parametrize("handler", [answers_at_once, answers_later])
async def test_tokens_are_written_in_the_form_asked_for(handler: Handler) -> None:
    new = b'{"SH_NEW":{}}'
    assert await answer(handler, new) == f'{{"SH_NEW_RSP":{{"st":1,"tkn":{TOKEN}}}}}'
    assert await answer(handler, new, text=True) == f'{{"SH_NEW_RSP":{{"st":1,"tkn":"{TOKEN}"}}}}'


async def test_a_message_that_is_no_request_never_reaches_a_handler() -> None:
    for message in (b"", b"[", b"[]", b"{}", b'{"SH_SET":1}', b'{"SH_SET":{"tkn":1}}'):
        assert '"m":' in await answer(fails_at_once, message)
        assert '"st":1000' not in await answer(fails_at_once, message)


def test_the_answer_to_a_binary_message_is_of_no_command() -> None:
    assert json.loads(NOT_TEXT)["ERR"]["st"] == Status.OP_CODE_INVALID


OF_TOKENS = {
    name: "tkn" if "tkn" in COMMANDS[name].params.__struct_fields__ else "tkns"
    for name in Engine().handlers
    if {"tkn", "tkns"} & {*COMMANDS[name].params.__struct_fields__}
}
"""The engine's commands that ask for a token, or for several, and the name of that parameter."""


@pytest.mark.parametrize(("name", "parameter"), OF_TOKENS.items())
def test_nothing_is_run_at_once_behind_a_request_for_an_unknown_token(
    name: str, parameter: str
) -> None:
    # Whoever asks for many has to wait for the reply to the last request that was run.
    engine = Engine(make_token=lambda: 7)
    dispatcher = Dispatcher(engine.handlers, counting=engine)
    dispatcher.dispatch([b'{"SH_NEW":{}}'], 0)

    def run_with(token: int) -> int:
        asked = {parameter: token if parameter == "tkn" else [token]}
        message = json.dumps({name: PARAMS.get(name, {}) | asked}).encode()
        count = b'{"KV_COUNT":{}}'
        return len(dispatcher.dispatch([count, message, count, count], 0)[0])

    assert (run_with(7), run_with(5)) == (4, 2)


def test_requests_that_go_through_much_are_not_all_run_at_once() -> None:
    engine = Engine(limits=Limits())
    dispatcher = Dispatcher(engine.handlers, steps=engine.steps)
    filling, find = (
        json.dumps(message).encode()
        for message in (
            {"KV_SET": {"keys": {"a": [0] * (MAX_STEPS // 10)}}},
            {"KV_FIND": {"path": "$[*]", "rsp": "keys"}},
        )
    )
    dispatcher.dispatch([filling], 0)
    replies, _ = dispatcher.dispatch([find] * 100, 0)
    assert 1 < len(replies) < 20
    # What is cheap is not affected, nor is what comes next.
    assert len(dispatcher.dispatch([b'{"KV_COUNT":{}}'] * 100, 0)[0]) == 100
    assert len(dispatcher.dispatch([find] * 100, 0)[0]) == len(replies)
