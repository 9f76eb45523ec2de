"""JSONPath over JSON text: what is selected, and that nothing else of a value ever changes."""

import json
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from ndb_protocol import Status
from ndb_server.engine import paths, splicing
from ndb_server.engine.steps import Steps
from ndb_server.errors import RefusedError

from tests.support import reference_model as model
from tests.support.reference_model import Location, Tree

T = TypeVar("T")

numbers = st.one_of(
    st.sampled_from(["1.50", "1e5", "1E+2", "-0", "0.0", "-0.0e-0", "1e-400", "0.1000"]),
    st.integers(-(2**100), 2**100).map(str),
)
strings = st.builds(json.dumps, st.text(max_size=5), ensure_ascii=st.booleans())
scalars = st.one_of(st.sampled_from(["null", "true", "false", '"\\/\\u0041"']), numbers, strings)
member_names = st.one_of(st.sampled_from(["a", "", "it's", 'quo"te']), st.text(max_size=3))
trees: st.SearchStrategy[Tree] = st.recursive(
    scalars,
    lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(member_names, below, max_size=4)
    ),
    max_leaves=12,
)
spaces = st.text(" \t\r\n", max_size=2)


@st.composite
def spaced(draw: st.DrawFn, tree: Tree) -> str:
    """Spell `tree` as JSON text with white space, and its members' names with escapes."""

    def spell(tree: Tree) -> str:
        if isinstance(tree, str):
            return tree
        if isinstance(tree, list):
            inner = ",".join(draw(spaces) + spell(child) + draw(spaces) for child in tree)
            return f"[{inner or draw(spaces)}]"
        inner = ",".join(
            draw(spaces)
            + json.dumps(name, ensure_ascii=draw(st.booleans()))
            + f"{draw(spaces)}:{draw(spaces)}{spell(child)}{draw(spaces)}"
            for name, child in tree.items()
        )
        return f"{{{inner or draw(spaces)}}}"

    return draw(spaces) + spell(tree) + draw(spaces)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


def locations(path: str, text: bytes) -> list[Location]:
    return paths.select(path, "k", text)


def update(path: str, text: bytes, value: bytes) -> bytes:
    return paths.replace(text, locations(path, text), value)


def refusal(path: str, text: bytes = b"{}") -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        paths.select(path, "k", text)
    return caught.value


def outcome(call: Callable[[], T]) -> T | Status:
    """Return what `call` returns, or the status with which it is refused."""
    try:
        return call()
    except RefusedError as refused:
        return refused.status


# Selecting


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", ["$"]),
        ("$.a", ["$['a']"]),
        ("$.a[0]", ["$['a'][0]"]),
        ("$.a[-1]", ["$['a'][2]"]),
        ("$.a[9]", []),
        ("$.a[0:2]", ["$['a'][0]", "$['a'][1]"]),
        ("$.a[?@ > 1]", ["$['a'][1]", "$['a'][2]"]),
        ("$['a','a'][0]", ["$['a'][0]", "$['a'][0]"]),
        ("$..x", ["$['b']['x']"]),
        ("$.*", ["$['a']", "$['b']", "$['it\\'s']"]),
        ("$['it\\'s']", ["$['it\\'s']"]),
        ("$.nowhere", []),
        ("$[?search(@.x, 'y')]", ["$['b']"]),
        ("$[?length(@) == 3]", ["$['a']"]),
    ],
)
def test_the_normalized_paths_of_the_selected_nodes_are_returned(
    path: str, expected: list[str]
) -> None:
    text = b'{"a": [1, 2, 3], "b": {"x": "xyz"}, "it\'s": null}'
    assert paths.find_paths(path, text) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "$.",
        "$[",
        "$]",
        "$ ",
        " $",
        "$[01]",
        "$[1.0]",
        "$['a'",
        "$['\\x']",
        "$['\\ud800']",
        "$\0",
        "$[?]",
        "$[?@.a ==]",
        "$[?unknown(@)]",
        "$[?length(@)]",
        "$[?@.* == 1]",
        "$..",
        "$[9007199254740992]",
        "$[0:9007199254740992]",
    ],
)
def test_what_is_no_jsonpath_is_refused_with_status_4(path: str) -> None:
    refused = refusal(path)
    assert refused.status is Status.PATH_INVALID
    assert refused.message.startswith("'path' is not a JSONPath of RFC 9535: ")
    assert "\n" not in refused.message


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("$[" + "9" * 4000 + "]", Status.PATH_INVALID),
        ("$[:" + "9" * 4000 + "]", Status.PATH_INVALID),
        ("$[::-" + "9" * 4000 + "]", Status.PATH_INVALID),
        ("$[" * 50, Status.PATH_INVALID),
        ("$" + "[" * 101, Status.VALUE_SIZE),
        ("$[?" + "(" * 100 + "@" + ")" * 100 + "]", Status.VALUE_SIZE),
        ("$[?" + "!" * 4000 + "@]", Status.PATH_INVALID),
        ("$[?" + "!(" * 1000 + "@" + ")" * 1000 + "]", Status.VALUE_SIZE),
        ("$[?" + "@[?" * 1000 + "@" + "]" * 1000 + "]", Status.VALUE_SIZE),
        ("$[?" + "length(" * 100 + "@" + ")" * 100 + "==1]", Status.VALUE_SIZE),
        ("$" + ".a" * 2048, Status.VALUE_SIZE),
        ("$[?@.a || " + " || ".join(["@.b"] * 3000) + "]", Status.VALUE_SIZE),
        ("a" * 1_000_000, Status.VALUE_SIZE),
        ("$[" * 100_000, Status.VALUE_SIZE),
        ("$['" + "a" * 1_000_000, Status.VALUE_SIZE),
        ("$[" + '"' * 4000, Status.PATH_INVALID),
        ("$['" + "\\" * 4000, Status.PATH_INVALID),
    ],
    ids=lambda value: f"{value[:12]}… of {len(value)}" if isinstance(value, str) else None,
)
def test_a_hostile_path_is_refused_with_a_short_message(path: str, status: Status) -> None:
    refused = refusal(path)
    assert refused.status is status
    assert len(refused.message) < 300
    # What is wrong with the path, not with the interpreter.
    assert "recursion" not in refused.message
    assert "sys." not in refused.message


@pytest.mark.parametrize(
    "path",
    [
        "$" + ".a" * 2047 + "a",
        "$" + "..a" * 1365,
        "$[?@ == 1e400]",
        "$[?@ == " + "9" * 4000 + "]",
        "$[?@ == 1e" + "9" * 4000 + "]",
        "$[?@ == 0." + "9" * 4000 + "]",
        "$[?" + "(" * 99 + "@" + ")" * 99 + "]",
        "$[?" + "!(" * 99 + "@" + ")" * 99 + "]",
        "$[?" + "@[?" * 99 + "@" + "]" * 99 + "]",
        "$[?" + "!@[?" * 99 + "@" + "]" * 99 + "]",
        "$[?" + "1==1&&@[?" * 99 + "@" + "]" * 99 + "]",
        "$[?" + "1==1||count(@[?" * 49 + "@" + "])==1" * 49 + "]",
        "$[?" + "length(" * 99 + "@" + ")" * 99 + "==1]",
        "$['" + "[(" * 2000 + "']",
        '$["' + "[(" * 2000 + '"]',
        "$" + "[0]" * 1365,
        "$[?@.a" + "||@.a" * 800 + "]",
    ],
    ids=lambda path: f"{path[:12]}… of {len(path)}",
)
def test_a_valid_path_is_followed_as_long_and_as_deep_as_a_path_may_be(path: str) -> None:
    for text in (b"[]", b"[[[1]]]", b'{"a": [1e400, {"a": 2}]}', nested(2000)):
        paths.find_paths(path, text)


@settings(max_examples=300)
@given(
    st.text("$.[]'\"?@*:,()!&|=<>~0123456789eE-+ab\\u \0é", max_size=40).map("$".__add__),
    trees,
)
def test_any_text_is_a_path_or_refused(path: str, tree: Tree) -> None:
    found = outcome(lambda: paths.select(path, "k", model.text(tree)))
    assert isinstance(found, list) or found is Status.PATH_INVALID


@pytest.mark.parametrize(
    "text", [b"1E400", b'{"a":[1,-1e999]}', b"[-1e1000000000000000000000]", b"1%b.0" % (b"0" * 309)]
)
def test_a_value_with_a_number_beyond_a_double_is_not_changed(text: bytes) -> None:
    refused = refusal("$.a", text)
    assert refused.status is Status.VALUE_TYPE_INVALID
    assert refused.message.startswith(
        "the value of key 'k' can be stored and read but not changed: "
    )
    with pytest.raises(RefusedError) as caught:
        paths.append("k", text, [Raw(b"1")], None)
    assert caught.value.message == refused.message


def test_long_key_names_are_cut_in_messages() -> None:
    with pytest.raises(RefusedError) as caught:
        paths.select("$", "k" * 10_000, b"1E400")
    assert len(caught.value.message) < 200


@given(trees, st.data())
def test_it_selects_what_the_model_selects(tree: Tree, data: st.DataObject) -> None:
    names = sorted({str(n) for at, _ in model.descendants((), tree) for n in at}) or ["a"]
    selectors = st.one_of(st.none(), st.sampled_from(names), st.integers(-4, 4))
    segments = st.tuples(st.booleans(), st.lists(selectors, min_size=1, max_size=2))
    path = data.draw(st.lists(segments, max_size=3))
    text = data.draw(spaced(tree)).encode()
    # Control characters in names are the library's to spell; the model spells few.
    selected = locations("$" + model.spelled(path)[1:].translate(CONTROLS), text)
    assert selected == [location for location, _ in model.select(tree, path)]


CONTROLS = {code: f"\\u{code:04x}" for code in range(0x20)}


# Replacing


@given(trees, scalars, st.data())
def test_replacing_nodes_changes_no_other_byte(tree: Tree, value: str, data: st.DataObject) -> None:
    nodes = [location for location, _ in model.descendants((), tree)]
    wanted = data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
    replaced = paths.replace(model.text(tree), wanted, value.encode())
    assert replaced == model.text(model.replaced(tree, set(wanted), value))


@given(trees, st.data())
def test_replacing_a_node_by_itself_changes_nothing_not_even_white_space(
    tree: Tree, data: st.DataObject
) -> None:
    text = data.draw(spaced(tree)).encode()
    below = [(at, node) for at, node in model.descendants((), tree) if isinstance(node, str)]
    for location, node in below:
        if location:
            assert paths.replace(text, [location], node.encode()) == text


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", b"0"),
        ("$.a", b'{"a":0,"b":{"c":1E2,"d":"\\u0041"}}'),
        ("$.b.c", b'{"a":[1.50,-0,123456789012345678901234567890],"b":{"c":0,"d":"\\u0041"}}'),
        ("$.a[1]", b'{"a":[1.50,0,123456789012345678901234567890],"b":{"c":1E2,"d":"\\u0041"}}'),
        ("$.a[0,-1]", b'{"a":[0,-0,0],"b":{"c":1E2,"d":"\\u0041"}}'),
        ("$.a[0,0]", b'{"a":[0,-0,123456789012345678901234567890],"b":{"c":1E2,"d":"\\u0041"}}'),
        ("$.*", b'{"a":0,"b":0}'),
        ("$..*", b'{"a":0,"b":0}'),
        (
            "$['b','a']['c','d',1]",
            b'{"a":[1.50,0,123456789012345678901234567890],"b":{"c":0,"d":0}}',
        ),
    ],
)
def test_update_sets_what_the_path_selects_and_of_nested_nodes_the_outer(
    path: str, expected: bytes
) -> None:
    text = b'{"a":[1.50,-0,123456789012345678901234567890],"b":{"c":1E2,"d":"\\u0041"}}'
    assert update(path, text, b"0") == expected


def test_an_empty_array_or_object_is_replaced_as_any_node() -> None:
    assert update("$[*]", b'[[], {}, ""]', b"7") == b"[7, 7, 7]"


def test_the_new_value_is_put_in_as_it_is_spelled() -> None:
    assert update("$.a", b'{"a":1}', b'{"x": 1.50, "y":1E400}') == b'{"a":{"x": 1.50, "y":1E400}}'


def test_names_that_are_spelled_with_escapes_are_found_and_kept() -> None:
    assert update("$.ab", b'{"\\u0061b":1,"\\u00e9":2}', b"3") == b'{"\\u0061b":3,"\\u00e9":2}'


def test_of_members_with_one_name_the_last_is_selected_and_replaced() -> None:
    text = b'{"a":1,"a":2}'
    assert paths.select("$.a", "k", text) == [("a",)]
    assert json.loads(update("$.a", text, b"3")) == {"a": 3}


@pytest.mark.parametrize("earlier", ["1", "[]", "{}", '{ "b": 0, "b": [ ] }', "[7]", '"{"'])
def test_members_before_the_last_of_their_name_are_left_alone(earlier: str) -> None:
    text = '{"a":%s,"c":1,"a":{"b":2}}'
    changed = update("$['a','c']['b',0]", (text % earlier).encode(), b"3")
    assert changed == (text % earlier).replace("2", "3").encode()


def test_a_node_is_found_without_reading_anything_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    value_end = splicing._value_end

    def counting(text: str, begin: int, steps: Steps) -> int:
        end = value_end(text, begin, steps)
        read.append(end - begin)
        return end

    monkeypatch.setattr(splicing, "_value_end", counting)
    for depth in (10, 100):
        text = b'{"pad":["long"],"in":' * depth + b"1" + b"}" * depth
        read.clear()
        assert update("$" + ".in" * depth, text, b"2") == text.replace(b"1", b"2")
        assert sum(read) == depth * len('["long"]') + len("1")


def test_strings_that_look_like_json_are_left_alone() -> None:
    text = rb'{"a":"{\"a\":1}","b":"]},\\","c":["[\"",1]}'
    assert update("$.c[1]", text, b"2") == rb'{"a":"{\"a\":1}","b":"]},\\","c":["[\"",2]}'


DEPTHS = [10, 100, 101, 512, *range(950, 1010), 5000]
"""How deep values nest; Python's own limit is among them, wherever a test begins."""


def test_a_value_is_changed_at_any_depth() -> None:
    for depth in DEPTHS:
        text = nested(depth)
        changed = paths.replace(text, [(0,) * depth], b"2")
        assert changed == text.replace(b"1", b"2")
        assert update("$..[?@ == 1]", text, b"2") == changed
        assert update("$[0]", b"[%b, 1]" % text, b"2") == b"[2, 1]"
        assert update("$[1]", b"[%b, 1]" % text, b"2") == b"[%b, 2]" % text


# Appending


@given(st.lists(trees, max_size=4), st.lists(trees, max_size=3))
def test_appending_keeps_every_element_byte_for_byte(array: list[Tree], items: list[Tree]) -> None:
    raw = [Raw(model.text(item)) for item in items]
    assert paths.append("k", model.text(array), raw, None) == model.text([*array, *items])


@given(st.dictionaries(member_names, trees, max_size=4), member_names, st.lists(trees, max_size=3))
def test_appending_to_a_member_keeps_the_others_byte_for_byte(
    others: dict[str, Tree], name: str, items: list[Tree]
) -> None:
    before: Tree = {**others, name: ["1.50"]}
    raw = [Raw(model.text(item)) for item in items]
    after: Tree = {**others, name: ["1.50", *items]}
    assert paths.append("k", model.text(before), raw, name) == model.text(after)


def test_appending_a_number_that_cannot_be_read_keeps_it_as_sent() -> None:
    assert paths.append("k", b"[]", [Raw(b"1E400")], None) == b"[1E400]"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b'{"a":[]}', None),
        (b'"[]"', None),
        (b"null", None),
        (b"[]", "a"),
        (b'{"a":{}}', "a"),
        (b'{"a":[]}', "b"),
        (b'{"a":{"b":[]}}', "b"),
        (b"[1E400]", None),
        (b'{"a":[],"b":1E400}', "a"),
    ],
)
def test_what_is_no_array_is_refused_with_status_41(text: bytes, name: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        paths.append("k", text, [Raw(b"1")], name)
    assert caught.value.status is Status.VALUE_TYPE_INVALID
    assert "'k'" in caught.value.message


def test_a_value_is_appended_to_at_any_depth() -> None:
    for depth in DEPTHS:
        text = nested(depth)
        member = b'{"a":%b}' % text
        assert paths.append("k", text, [Raw(b"2")], None) == text[:-1] + b",2]"
        assert paths.append("k", member, [Raw(b"2")], "a") == member[:-2] + b",2]}"
