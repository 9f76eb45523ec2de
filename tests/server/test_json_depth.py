"""How deep JSON text nests."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb_server.json_depth import nests_deeper

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.text('[]{}"\\a'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\'), inner, max_size=3)
    ),
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = [*value.values()]
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(values, st.integers(0, 6))
def test_it_tells_how_deep_a_text_nests(value: Any, limit: int) -> None:
    assert nests_deeper(json.dumps(value).encode(), limit) == (depth(value) > limit)


@pytest.mark.parametrize("text", [b'"' + b"[" * 9, b'"\\', b"]]]][[[[", b'"\\"[[[[[['])
def test_what_is_no_json_is_no_trouble(text: bytes) -> None:
    assert nests_deeper(text, 5) in (True, False)
