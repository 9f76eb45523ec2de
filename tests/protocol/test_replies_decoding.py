"""A client decodes replies exactly, or says what it can't hold."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb_protocol import ReplyError, Status, decode_reply, encode_reply
from ndb_protocol.messages import CountReply


@pytest.mark.parametrize("as_text", [True, False])
def test_a_reply_is_its_name_and_body(as_text: bool) -> None:
    message = encode_reply("KV_COUNT_RSP", CountReply(cnt=3))
    decoded = decode_reply(message.decode() if as_text else message)
    assert decoded == ("KV_COUNT_RSP", {"st": Status.OK, "cnt": 3})


@given(st.integers())
def test_integers_of_any_size_are_exact(number: int) -> None:
    assert decode_reply('{"X_RSP":{"st":1,"n":%d}}' % number)[1]["n"] == number


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "1",
        "{}",
        '{"X":1}',
        '{"X":{}}',
        '{"X":{"st":"1"}}',
        '{"X":{"st":true}}',
        '{"X":{"st":1.5}}',
        '{"X":{"st":1},"Y":{"st":1}}',
        '{"X":{"st":1,"a":NaN}}',
    ],
)
def test_what_is_no_reply_is_an_error(message: str) -> None:
    with pytest.raises(ReplyError):
        decode_reply(message)


def test_a_number_out_of_range_is_an_error_that_names_the_key() -> None:
    with pytest.raises(ReplyError, match=r"^keys\['big'\]: Number out of range"):
        decode_reply('{"X_RSP":{"st":1,"keys":{"a":1,"big":[1E400]}}}')


@pytest.mark.parametrize("body", ['"n":1E400', '"keys":[1E400]', '"keys":1E400'])
def test_a_number_out_of_range_elsewhere_is_an_error(body: str) -> None:
    with pytest.raises(ReplyError, match=r"^Number out of range"):
        decode_reply('{"X_RSP":{"st":1,%s}}' % body)


def test_a_value_that_nests_too_deeply_is_an_error() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    with pytest.raises(ReplyError, match="nests too deeply"):
        decode_reply('{"X_RSP":{"st":1,"keys":{"a":%s}}}' % deep)


def test_a_value_that_nests_almost_too_deeply_is_an_error_or_is_read() -> None:
    # Around the bound, reading a part may succeed where reading the whole did not.
    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit()):
        message = '{"X_RSP":{"st":1,"keys":{"a":%s}}}' % ("[" * depth + "]" * depth)
        try:
            assert decode_reply(message)[0] == "X_RSP"
        except ReplyError as error:
            assert "nests too deeply" in str(error)


@given(st.text())
def test_any_text_is_a_reply_or_an_error(message: str) -> None:
    try:
        decode_reply(message)
    except ReplyError as error:
        assert str(error)
