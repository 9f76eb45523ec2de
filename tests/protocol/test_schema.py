"""The JSON Schemas say of every message what the codec says."""

import json
from collections import Counter

import pytest
import regress
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ndb_protocol import (
    COMMANDS,
    NO_TOKEN,
    TOKEN_MAX,
    Status,
    parse_token,
)
from ndb_protocol.schema import json_schema

from tests.support.message_strategies import requests
from tests.support.schema_validators import DEFINITIONS, is_valid, parse, parts, validator
from tests.support.vector_messages import EXPECTED, SENT, refusal


def test_the_schema_is_one_by_its_own_dialect() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    schema = json_schema()
    referred = {part["$ref"] for part in parts(schema) if "$ref" in part}
    assert referred == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_every_pattern_is_one_of_ecma_262() -> None:
    patterns = [part["pattern"] for part in parts(DEFINITIONS) if "pattern" in part]
    assert patterns
    for pattern in patterns:
        regress.Regex(pattern, "u")
        # What the simpler engines of other validators, such as RE2, do not have.
        assert "(?" not in pattern


def test_there_is_a_request_and_a_reply_for_every_command() -> None:
    for command in COMMANDS.values():
        for name in (command.name, command.reply_name):
            assert DEFINITIONS[name]["required"] == [name]


def test_every_request_of_the_vectors_is_valid_if_the_codec_takes_it() -> None:
    verdicts: Counter[Status | None] = Counter()
    for message in SENT:
        refused = refusal(message)
        verdicts[refused] += 1
        if refused is not Status.JSON_INVALID:
            assert is_valid("AnyRequest", message) == (refused is None), message
    assert verdicts.keys() == {
        None,
        Status.JSON_INVALID,
        Status.COMMAND_NOT_EXIST,
        Status.COMMAND_TYPE,
        Status.COMMAND_SYNTAX,
        Status.PARAM_MISSING,
        Status.VALUE_TYPE_INVALID,
        Status.VALUE_SIZE,
        Status.SESSION_NOT_EXIST,
    }
    assert min(verdicts.values()) > 10


@given(requests())
def test_any_request_is_valid_if_the_codec_takes_it(message: str) -> None:
    refused = refusal(message)
    if refused is not Status.JSON_INVALID:
        assert is_valid("AnyRequest", message) == (refused is None)


_NEAR_THE_LAST = [TOKEN_MAX + sign * 10**place for place in range(20) for sign in (-1, 1)]
TOKENS = st.integers(-1, 2**66) | st.sampled_from([TOKEN_MAX, *_NEAR_THE_LAST])


@settings(max_examples=500)
@given(TOKENS | TOKENS.map(str) | TOKENS.map(lambda token: f"0{token}") | st.text(max_size=3))
def test_a_token_is_valid_if_the_codec_takes_it(value: int | str) -> None:
    is_token = parse_token(value) != NO_TOKEN
    assert is_valid("Token", json.dumps(value)) == is_token


def test_every_reply_of_the_vectors_is_valid() -> None:
    for text in EXPECTED:
        reply = parse(text)
        [name] = reply
        validator(name if name in DEFINITIONS else "NoSuchCommand").validate(reply)
        validator("AnyReply").validate(reply)


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":1},"KV_GET_RSP":{"st":1,"keys":{}}}'),
        ("KV_SET_RSP", '{"KV_ADD_RSP":{"st":1}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":121}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":"1"}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":1.5,"m":"why"}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":26}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":26,"m":""}}'),
        ("KV_SAVE_RSP", '{"KV_SAVE_RSP":{"st":141,"name":"a","keys":1,"duration":0}}'),
        ("KV_GET_RSP", '{"KV_GET_RSP":{"st":1}}'),
        ("KV_GET_RSP", '{"KV_GET_RSP":{"st":1,"m":"why"}}'),
        ("KV_COUNT_RSP", '{"KV_COUNT_RSP":{"st":1,"cnt":-1}}'),
        ("SH_NEW_RSP", '{"SH_NEW_RSP":{"st":1,"tkn":0}}'),
        ("SH_NEW_RSP", '{"SH_NEW_RSP":{"st":1,"tkn":18446744073709551616}}'),
        ("SH_NEW_RSP", '{"SH_NEW_RSP":{"st":1,"tkn":"01"}}'),
        ("SH_EXISTS_RSP", '{"SH_EXISTS_RSP":{"st":1,"exist":[null]}}'),
        ("AnyReply", '{"ERR":{"st":1}}'),
        ("AnyReply", '{"NO_SUCH_RSP":{"st":26,"m":"why"}}'),
        ("AnyReply", '{"no such_RSP":{"st":10,"m":"why"}}'),
    ],
)
def test_a_reply_that_the_protocol_forbids_is_not_valid(name: str, reply: str) -> None:
    assert not is_valid(name, reply)


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":1,"new":[]}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"st":777,"m":"why"}}'),
        ("KV_SET_RSP", '{"KV_SET_RSP":{"m":"why","st":14}}'),
        ("SH_NEW_RSP", '{"SH_NEW_RSP":{"st":1,"tkn":"18446744073709551615"}}'),
        ("KV_FIND_RSP", '{"KV_FIND_RSP":{"st":1,"paths":["$"]}}'),
    ],
)
def test_what_a_later_server_may_add_is_valid(name: str, reply: str) -> None:
    assert is_valid(name, reply)
