"""A session's keys in memory: small ones packed, others in a dict, and nobody can tell."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from ndb_protocol import COMMANDS, decode_request
from ndb_protocol.messages import SessionKeyValues
from ndb_server.engine.edits import Edit
from ndb_server.engine.engine import Engine
from ndb_server.engine.keymap import (
    COMPILE_AFTER,
    EMPTY,
    MAX_PACKED_SIZE,
    MAX_PROJECTIONS,
    apply_edit,
    copy_keymap,
    pack,
    project,
    projections,
    unpack,
)

BIG = Raw(b'"%b"' % (b"x" * MAX_PACKED_SIZE))
SMALL = Raw(b"1.50")
START = 1_700_000_000_000

values = st.dictionaries(st.text(max_size=3), st.sampled_from([SMALL, BIG]), max_size=4)


@given(values)
def test_what_is_unpacked_is_what_was_packed(keys: dict[str, Raw]) -> None:
    assert list(unpack(pack(keys)).items()) == list(keys.items())


def test_small_keys_are_packed_and_big_ones_are_not() -> None:
    assert pack({}) == EMPTY
    assert pack({"a": SMALL}) == b'{"a":1.50}'
    fits = Raw(b'"%b"' % (b"x" * (MAX_PACKED_SIZE - len('{"a":""}'))))
    assert type(pack({"a": fits})) is bytes
    assert type(pack({"a": fits, "b": SMALL})) is dict


@given(values, st.lists(st.tuples(values, st.booleans()), max_size=4))
def test_edits_mean_the_same_packed_or_not(
    first: dict[str, Raw], edits: list[tuple[dict[str, Raw], bool]]
) -> None:
    packed, plain = pack(first), dict(first)
    for put, clear in edits:
        remove = () if clear else tuple(key for key in plain if key not in put)[:1]
        edit = Edit(put, remove, clear)
        edit.apply(plain)
        packed = apply_edit(packed, unpack(packed), edit)
        assert list(unpack(packed).items()) == list(plain.items())


@given(
    values,
    st.lists(st.text(max_size=3), max_size=4),
    st.sampled_from([1, COMPILE_AFTER, COMPILE_AFTER + 1]),
)
def test_picking_takes_what_is_there_in_the_order_asked_however_often(
    keys: dict[str, Raw], names: list[str], times: int
) -> None:
    expected = {name: keys[name] for name in names if name in keys}
    *_, last = [msgspec.json.encode(project(pack(keys), names)) for _ in range(times)]
    found = msgspec.json.decode(last, type=dict[str, Raw])
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize(
    "names", [["b", "none", "a"], ["a", "b", "a"], ['"', "a"], ["\n"], ["\\"], [], ["é", "a"]]
)
def test_picking_often_is_picking_all_the_same(names: list[str]) -> None:
    packed = pack(dict.fromkeys(["a", "b", '"', "\n", "\\", "é"], SMALL))
    texts = {bytes(msgspec.json.encode(project(packed, names))) for _ in range(2 * COMPILE_AFTER)}
    assert texts == {
        msgspec.json.encode({name: SMALL for name in names if name != "none"}),
    }


def test_a_selection_that_is_asked_for_often_is_no_dict_any_more() -> None:
    packed = pack({"a": SMALL})
    kinds = [type(project(packed, ["a", "often"])) for _ in range(COMPILE_AFTER + 2)]
    assert kinds[COMPILE_AFTER] is dict
    assert kinds[-1] is not dict


def test_few_and_small_selections_are_remembered() -> None:
    packed = pack({"a": SMALL})
    project(packed, ["x" * MAX_PACKED_SIZE])
    project(packed, [""] * MAX_PACKED_SIZE)
    project(packed, ["remembered"])
    assert max(sum(map(len, names)) + len(names) for names in projections) <= MAX_PACKED_SIZE
    for number in range(2 * MAX_PROJECTIONS):
        project(packed, [str(number)])
        assert len(projections) <= MAX_PROJECTIONS


def test_clearing_packs_again() -> None:
    packed = pack({"a": BIG})
    assert apply_edit(packed, unpack(packed), Edit(clear=True)) == EMPTY
    packed = pack({"a": BIG})
    assert apply_edit(packed, unpack(packed), Edit({"b": SMALL}, clear=True)) == b'{"b":1.50}'


def test_a_copy_of_a_big_session_does_not_change_with_it() -> None:
    packed = pack({"a": BIG})
    copy = copy_keymap(packed)
    apply_edit(packed, unpack(packed), Edit({"b": SMALL}))
    assert list(unpack(copy)) == ["a"]
    small = pack({"a": SMALL})
    assert copy_keymap(small) is small


@pytest.mark.parametrize("size", [1, 2 * MAX_PACKED_SIZE])
def test_a_kept_value_does_not_keep_its_message_alive(size: int) -> None:
    ballast = b"y" * 10_000_000
    message = b'{"KV_SET":{"keys":{"a":"%b"},"ignored":"%b"}}' % (b"x" * size, ballast)
    engine = Engine()
    token = engine.handlers["SH_NEW"](COMMANDS["SH_NEW"].params(), START).tkn  # type: ignore[attr-defined]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        _, params = decode_request(message + b" ")
        engine.handlers["KV_SET"](params, START)
        of_session = SessionKeyValues(tkn=token, keys=params.keys)  # type: ignore[attr-defined]
        engine.handlers["SH_SET"](of_session, START)
        del params, of_session
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < len(ballast) / 10
