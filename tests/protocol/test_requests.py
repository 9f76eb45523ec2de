"""Requests: whatever arrives is a request or a named error, whichever way it is read."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from ndb_protocol import (
    COMMANDS,
    NO_TOKEN,
    TOKEN_MAX,
    Command,
    RequestError,
    Status,
    decode_request,
    encode_reply,
)
from ndb_protocol import messages as m
from ndb_protocol import requests as codec
from ndb_protocol.vectors import Exchange, load_vectors

from tests.support.message_strategies import plain_params, requests

SENT = sorted({step.send for v in load_vectors() for step in v.steps if isinstance(step, Exchange)})


def _read_the_long_way(message: bytes) -> tuple[Command, m.Params]:
    return codec._read_request(message)


def _token(value: Any) -> int:
    # The short way leaves integers that are no tokens as they are: no session has them.
    return value if NO_TOKEN < value <= TOKEN_MAX else NO_TOKEN


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, m.Expiry):
        return msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return [(key, _plain("", member)) for key, member in value.items()]
    if name == "tkn":
        return _token(value)
    if name == "tkns" and value is not UNSET:
        return [token for token in map(_token, value) if token != NO_TOKEN]
    if isinstance(value, list):
        return [_plain("", element) for element in value]
    return value


def outcome(decode: Any, message: bytes) -> tuple[Any, ...]:
    """Return what became of `message`, for comparison; any other exception passes."""
    try:
        command, params = decode(message)
    except RequestError as error:
        return error.reply_name, error.status, error.message
    assert type(params) is command.params
    members = msgspec.structs.asdict(params)
    return command.name, {name: _plain(name, value) for name, value in members.items()}


REFUSALS = {
    Status.JSON_INVALID,
    Status.COMMAND_NOT_EXIST,
    Status.COMMAND_TYPE,
    Status.COMMAND_SYNTAX,
    Status.PARAM_MISSING,
    Status.VALUE_TYPE_INVALID,
    Status.VALUE_SIZE,
}


def check(message: bytes) -> None:
    """Decode `message`: the outcome must be a request or a complete refusal."""
    result = outcome(decode_request, message)
    if len(result) == 2:
        event("request")
        return
    reply_name, status, sentence = result
    event(f"status {status.value}")
    assert status in REFUSALS
    assert sentence
    assert reply_name == "ERR" or reply_name.endswith("_RSP")
    assert msgspec.json.decode(encode_reply(reply_name, m.Reply(st=status, m=sentence)))


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (r"\ud800", 24),
        (r"\uD800x", 24),
        (r"\udfff", 24),
        (r"\ud83d\ude00\ud800\u0041", 36),
        (r"\udc00\ud800", 24),
        (r"\\\n\ud8ff\n", 28),
    ],
)
def test_half_a_surrogate_pair_is_named_and_where_it_stands(value: str, at: int) -> None:
    message = f'{{"KV_SET":{{"keys":{{"a":"{value}"}}}}}}'.encode()
    assert outcome(decode_request, message) == (
        "ERR",
        Status.JSON_INVALID,
        f"the message is not JSON: the escape at byte {at} is half of a surrogate pair",
    )


@pytest.mark.parametrize("value", [r"\\ud800", r"\ud83d\ude00", r"\u0041", ""])
def test_a_message_with_whole_pairs_that_is_truncated_is_called_so(value: str) -> None:
    _, _, sentence = outcome(decode_request, f'{{"KV_SET":{{"keys":{{"a":"{value}'.encode())
    assert sentence == "the message is not JSON: Input data was truncated"


@given(st.binary())
def test_any_bytes_are_a_request_or_a_named_error(message: bytes) -> None:
    check(message)


@given(st.text())
def test_any_text_is_a_request_or_a_named_error(message: str) -> None:
    check(message.encode())


@given(requests())
def test_anything_like_a_request_is_one_or_a_named_error(message: str) -> None:
    check(message.encode())


@settings(max_examples=300)
@given(st.data())
def test_a_broken_request_is_a_request_or_a_named_error(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(SENT) | requests()).encode()[:5000]
    at = data.draw(st.integers(0, len(message)))
    end = min(len(message), at + data.draw(st.integers(0, 4)))
    pieces = st.binary(max_size=4) | st.sampled_from(
        [b'"', b"{", b"}", b"[", b",", b":", b"\\", b"0"]
    )
    check(message[:at] + data.draw(pieces) + message[end:])


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b'{"\xff":{}}',
        b'{"KV_GET":{"\xff":1}}',
        b'{"KV_GET":{"keys":["\xff"]}}',
        b'{"KV_SET":{"keys":{"\xff":1}}}',
        b'{"SH_GET":{"tkn":"\xff","keys":[]}}',
        b' {"KV_SET":{"keys":{"a":"\xff"}}}',
    ],
)
def test_a_message_that_is_not_utf_8_is_not_json(message: bytes) -> None:
    with pytest.raises(RequestError) as refusal:
        decode_request(message)
    assert (refusal.value.reply_name, refusal.value.status) == ("ERR", Status.JSON_INVALID)


@settings(max_examples=600)
@given(requests())
def test_both_ways_of_reading_agree(message: str) -> None:
    text = message.encode()
    assert outcome(decode_request, text) == outcome(_read_the_long_way, text)


def test_both_ways_of_reading_agree_on_the_vectors() -> None:
    for message in SENT:
        text = message.replace("{{tkn1}}", "18446744073709551615").encode()
        assert outcome(decode_request, text) == outcome(_read_the_long_way, text)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_a_plain_request_takes_the_short_way(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_read_request", pytest.fail)
    for separators in ((",", ":"), (", ", ": ")):
        message = json.dumps({command.name: plain_params(command)}, separators=separators)
        assert decode_request(message.encode())[0] is command


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_the_parameters_of_a_plain_request_are_those_sent(command: Command) -> None:
    sent = plain_params(command)
    name, params = outcome(decode_request, json.dumps({command.name: sent}).encode())
    assert name == command.name
    assert params.keys() == sent.keys()
    for parameter, value in sent.items():
        got = params[parameter]
        if isinstance(got, bytes):
            got = json.loads(got)
        elif isinstance(value, dict) and not isinstance(got, dict):
            got = {key: json.loads(text) for key, text in got}
        elif parameter == "items":
            got = [json.loads(text) for text in got]
        assert got == value


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_without_parameters_the_first_one_required_is_missed(command: Command) -> None:
    required = [
        field.name
        for field in msgspec.structs.fields(command.params)
        if field.required and field.name != "tkn"
    ]
    result = outcome(decode_request, b'{"%b":{}}' % command.name.encode())
    if required:
        assert result[:2] == (command.reply_name, Status.PARAM_MISSING)
        assert f"'{required[0]}'" in result[2]
    else:
        assert result[0] == command.name


@pytest.mark.parametrize(
    ("tokens", "read"),
    [
        ("[1,2]", [1, 2]),
        ("[9223372036854775807,9223372036854775808]", [2**63 - 1, 2**63]),
        ('["18446744073709551615"]', [2**64 - 1]),
    ],
)
def test_tokens_beyond_64_bit_signed_integers_can_be_saved(tokens: str, read: list[int]) -> None:
    message = f'{{"SH_SAVE":{{"name":"a","tkns":{tokens}}}}}'.encode()
    assert outcome(decode_request, message) == ("SH_SAVE", {"name": "a", "tkns": read})


@given(st.text(min_size=1, max_size=70).filter(lambda name: name not in COMMANDS))
def test_a_reply_is_named_after_an_unknown_command_only_if_the_name_is_fit(name: str) -> None:
    message = json.dumps({name: {}}).encode()
    reply_name, status, _ = outcome(decode_request, message)
    fit = (
        name.isascii() and name[0].isalpha() and name.replace("_", "").isalnum() and len(name) <= 64
    )
    assert status == Status.COMMAND_NOT_EXIST
    assert reply_name == (f"{name}_RSP" if fit else "ERR")


@pytest.mark.parametrize("depth", [1, 100, 500])
def test_a_value_keeps_its_text_however_it_nests(depth: int) -> None:
    value = "[" * depth + " 1.50 " + "]" * depth
    command, params = decode_request(f'{{"KV_SET":{{"keys":{{"a": {value} }}}}}}'.encode())
    assert command.name == "KV_SET"
    assert isinstance(params, m.KeyValues)
    assert bytes(params.keys["a"]) == value.encode()


@pytest.mark.parametrize("opening", ["", '{"KV_COUNT":', '{"KV_SET":{"keys":{"a":'])
def test_a_message_that_nests_too_deeply_is_refused(opening: str) -> None:
    message = (opening + "[" * 100_000).encode()
    reply_name, status, sentence = outcome(decode_request, message)
    assert (reply_name, status) == ("ERR", Status.JSON_INVALID)
    assert "too deeply" in sentence


def test_the_beginning_of_a_message_tells_every_command_from_the_others() -> None:
    assert {command for command, _ in codec.SHORT_WAY.values()} == set(COMMANDS.values())
