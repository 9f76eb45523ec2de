"""Values are encoded exactly, or refused with the place where they are."""

import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb_protocol import decode_request, encode_request
from ndb_protocol.values import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN, encode_params


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Things(list[Any]):
    pass


class Members(dict[str, Any]):
    pass


class Pair(tuple[Any, ...]):
    __slots__ = ()


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    CART = "cart"


@dataclasses.dataclass
class Item:
    price: int = 1


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)

NOT_CARRIED = [
    (math.nan, "NaN has no JSON form"),
    (math.inf, "infinity has no JSON form"),
    (-math.inf, "infinity has no JSON form"),
    (INTEGER_MAX + 1, "an integer beyond 64 bits"),
    (INTEGER_MIN - 1, "an integer beyond 64 bits"),
    ("\ud800", "text with a lone surrogate"),
    ({"\udfff": 1}, "text with a lone surrogate"),
    ({1: "a"}, "a key is of type int"),
    ({None: "a"}, "a key is of type NoneType"),
    ({Name.CART: 1}, "a key is of type Name"),
    (Text("a"), "type Text"),
    (Whole(1), "type Whole"),
    (Real(1), "type Real"),
    (Things(), "type Things"),
    (Members(), "type Members"),
    (Pair(), "type Pair"),
    (Colour.RED, "type Colour"),
    (Level.LOW, "type Level"),
    (Name.CART, "type Name"),
    (Item(), "type Item"),
    (uuid.uuid4(), "type UUID"),
    (datetime.datetime.now(datetime.UTC), "type datetime"),
    (decimal.Decimal(1), "type Decimal"),
    (b"a", "type bytes"),
    (bytearray(b"a"), "type bytearray"),
    ({1, 2}, "type set"),
    (1j, "type complex"),
    (..., "type ellipsis"),
    (orjson.Fragment(b"NaN"), "type Fragment"),
    (object(), "type object"),
]


@pytest.mark.parametrize(
    ("value", "reason"), NOT_CARRIED, ids=[f"{type(v).__name__}: {r}" for v, r in NOT_CARRIED]
)
def test_a_value_that_is_not_carried_exactly_is_refused_with_its_place(
    value: Any, reason: str
) -> None:
    params = {"tkn": 7, "keys": {"fine": [None, 1], "cart": [0, (1, {"x": value})]}}
    with pytest.raises(ValueError, match=reason) as refusal:
        encode_params(params)
    assert str(refusal.value).startswith("keys['cart'][1][1]['x']: ")


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(ValueError, match=r"^tkn: ") as refusal:
        encode_params({"tkn": 2**64 + 12345})
    assert "18446744073709563961" not in str(refusal.value)


def test_a_parameter_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^parameters: a key is of type int"):
        encode_params({1: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [nested(DEPTH_MAX - 1), ENDLESS], ids=["too deep", "endless"])
def test_a_value_that_nests_too_deeply_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=f"nests deeper than {DEPTH_MAX} levels") as refusal:
        encode_params({"keys": {"cart": value}})
    assert str(refusal.value).startswith("keys['cart'][0][0]")
    assert len(str(refusal.value)) < 100


def test_a_value_may_nest_to_the_bound() -> None:
    # Two levels are the parameters and their member `keys`.
    params = {"keys": {"cart": nested(DEPTH_MAX - 2)}}
    assert orjson.loads(encode_params(params)) == params


@pytest.mark.parametrize(
    "value",
    [None, [None, {"a": None}], "null", INTEGER_MAX, INTEGER_MIN, 1e308, -0.0, "", {"": 0}, True],
)
def test_a_value_at_the_edge_comes_back_equal(value: Any) -> None:
    assert msgspec.json.decode(encode_params({"value": value})) == {"value": value}


_carried = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(_carried)
def test_what_is_encoded_comes_back_equal(value: Any) -> None:
    assert msgspec.json.decode(encode_params({"value": value})) == {"value": value}


_anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(st.characters()) | st.uuids() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner)
    ),
)


@given(_anything)
def test_anything_comes_back_equal_or_is_a_value_error(value: Any) -> None:
    try:
        text = encode_params({"value": value})
    except ValueError as refusal:
        assert str(refusal).startswith("value")
    else:
        assert msgspec.json.decode(text) == {"value": value}


def test_a_request_is_what_the_server_decodes() -> None:
    message = encode_request("SH_SET", {"tkn": 5, "keys": {"a": [1, "ä"]}})
    command, params = decode_request(message)
    assert command.name == "SH_SET"
    assert params.tkn == 5  # type: ignore[attr-defined]
    assert params.keys["a"] == msgspec.Raw('[1,"ä"]'.encode())  # type: ignore[attr-defined]
