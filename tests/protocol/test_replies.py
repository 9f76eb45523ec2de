"""Replies: what is encoded is what a client decodes."""

from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from ndb_protocol import (
    COMMANDS,
    NDB_V1_TEXT,
    TOKEN_MAX,
    Status,
    encode_reply,
    with_text_tokens,
)
from ndb_protocol import messages as m

REPLY_TYPES = sorted(
    {reply for command in COMMANDS.values() for reply in command.replies}, key=lambda t: t.__name__
)

_tokens = st.integers(1, TOKEN_MAX)
_counts = st.integers(0, 2**63)
_texts = st.text()
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_spellings = st.sampled_from(["1.50", "1E400", "-0", "1" + "0" * 400, '{"b":1,"a":2}', '"\\u0041"'])
_values = (_json.map(msgspec.json.encode) | _spellings.map(str.encode)).map(Raw)
_by_type: dict[Any, st.SearchStrategy[Any]] = {
    int: _counts,
    bool: st.booleans(),
    float: st.floats(0, 1e6),
    str: _texts,
    int | str: _tokens,
    list[str]: st.lists(_texts),
    list[int | str]: st.lists(_tokens),
    dict[str, Raw]: st.dictionaries(_texts, _values),
    str | msgspec.UnsetType: st.just(UNSET) | _texts,
    int | msgspec.UnsetType: st.just(UNSET) | _counts,
    float | msgspec.UnsetType: st.just(UNSET) | st.floats(0, 1e6),
}


def _struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, **{field.name: _annotated(field.type) for field in fields})


def _annotated(note: Any) -> st.SearchStrategy[Any]:
    if get_origin(note) is Annotated:
        note, *_ = get_args(note)
    if note in _by_type:
        return _by_type[note]
    for kind in (m.ExpiryInfo, m.Stats):
        if note == kind | msgspec.UnsetType:
            return st.just(UNSET) | _struct(kind)
    return _struct(note)


_replies = st.sampled_from(REPLY_TYPES).flatmap(_struct)


def _decode(message: bytes, kind: Any) -> Any:
    decoded = msgspec.json.decode(message, type=GenericAlias(dict, (str, kind)))
    assert list(decoded) == ["X_RSP"]
    return decoded["X_RSP"]


def _comparable(reply: Any) -> Any:
    """Raw values compare by identity; their bytes are what counts."""
    members = msgspec.structs.asdict(reply)
    if isinstance(reply, m.ValuesReply):
        members["keys"] = {key: bytes(value) for key, value in reply.keys.items()}
    return type(reply), members


@given(_replies)
def test_a_reply_decodes_to_what_was_encoded(reply: m.Reply) -> None:
    assert _comparable(_decode(encode_reply("X_RSP", reply), type(reply))) == _comparable(reply)


@given(_replies)
def test_st_is_the_first_member_of_every_reply(reply: m.Reply) -> None:
    body = _decode(encode_reply("X_RSP", reply), Raw)
    assert bytes(body).startswith(b'{"st":%d' % reply.st)


@given(_replies)
def test_a_message_to_the_user_is_left_out_unless_there_is_one(reply: m.Reply) -> None:
    body = msgspec.json.decode(encode_reply("X_RSP", reply), type=dict[str, dict[str, Raw]])[
        "X_RSP"
    ]
    assert ("m" in body) == (reply.m is not UNSET)


@pytest.mark.parametrize("status", list(Status), ids=lambda status: status.name)
def test_a_status_is_encoded_as_its_number(status: Status) -> None:
    assert encode_reply("ERR", m.Reply(st=status, m="x")) == b'{"ERR":{"st":%d,"m":"x"}}' % status


@given(_replies)
def test_text_tokens_are_decimal_strings_and_nothing_else_changes(reply: m.Reply) -> None:
    changed = with_text_tokens(reply)
    assert type(changed) is type(reply)
    before, after = msgspec.structs.asdict(reply), msgspec.structs.asdict(changed)
    if "tkn" in before:
        assert after.pop("tkn") == str(before.pop("tkn"))
    if "exist" in before:
        assert after.pop("exist") == [str(token) for token in before.pop("exist")]
    assert after == before


@given(_replies)
def test_a_reply_with_text_tokens_decodes_to_what_was_encoded(reply: m.Reply) -> None:
    changed = with_text_tokens(reply)
    decoded = _decode(encode_reply("X_RSP", changed), type(changed))
    assert _comparable(decoded) == _comparable(changed)


def test_the_tokens_of_the_text_subprotocol_survive_a_reader_with_doubles() -> None:
    token = TOKEN_MAX - 1
    reply = with_text_tokens(m.TokenReply(tkn=token))
    assert NDB_V1_TEXT.endswith(".text")
    assert encode_reply("SH_NEW_RSP", reply) == b'{"SH_NEW_RSP":{"st":1,"tkn":"%d"}}' % token
