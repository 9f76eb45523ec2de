"""How values compare in filters (RFC 9535, section 2.3.5.2.2): every kind with every other."""

import json
from collections.abc import Callable
from itertools import product

import pytest
from msgspec import Raw
from ndb_protocol import messages as m
from ndb_server.engine import paths
from ndb_server.engine.key_commands import WRITES
from ndb_server.engine.steps import Steps

NUMBERS = [
    ["-1e1000000000000000000000"],
    ["-" + "7" * 4301],
    ["-1E400", "-10e399"],
    ["-1", "-1.0", "-10e-1"],
    ["-1e-400"],
    ["-1e-1000000000000000000000"],
    ["0", "-0", "0.0", "-0.0e9", "0e1000000000000000000000"],
    ["1e-1000000000000000000000", "10e-1000000000000000000001"],
    ["1e-1000000000"],
    ["0.1", "0.10", "1e-1", "1E-01"],
    ["0.1000000000000000055511151231257827"],
    ["1", "1.0", "1e0", "10e-1", "1E+0", "0.01e2"],
    ["9007199254740992", "9007199254740992.0"],
    ["9007199254740993", "9007199254740993.00", "9.007199254740993e15"],
    ["100000000000000000000000", "1e23"],
    ["7" * 4301, "7" * 4301 + ".0"],
    ["7" * 4300 + "8"],
    ["1e4400", "1" + "0" * 4400],
    ["1e1000000000", "10e999999999"],
    ["1e1000000000000000000000", "10e999999999999999999999"],
    ["2e1000000000000000000000"],
    ["1e1000000000000000000001", "1e+01000000000000000000001"],
]
"""In ascending order, and equal in a row."""

TEXTS = [
    ['""'],
    ['"1"'],
    ['"B"'],
    ['"a"', r'"\u0061"'],
    ['"aa"'],
    ['"é"'],
    ['"\ue000"'],
    ['"🙂"', r'"\ud83d\ude42"'],
]
"""In ascending order of code points, which is not that of UTF-16."""

OTHERS = [
    *(["null"], ["true"], ["false"], ["[]"], ["[1]", "[1.0]"], ["[true]"], ["[[1]]"], ["[[true]]"]),
    *(["[1,2]"], ["[2,1]"], ["[null]"], ["[0]"], ["[false]"], ['["1"]'], ["{}"]),
    *(['{"a":1}', '{"a":1.0}'], ['{"a":true}'], ['{"a":0}'], ['{"a":null}'], ['{"b":1}']),
    *(['{"a":1,"b":2}', '{"b":2.0,"a":1}', '{"b":0,"a":1,"b":2}'], ['{"a":[true]}'], ['{"a":[1]}']),
]
"""Equal in a row, and in no order."""

VALUES = [
    (kind, rank, text)
    for kind, rows in (
        ("number", NUMBERS),
        ("text", TEXTS),
        *((f"other {row}", [row]) for row in OTHERS),
    )
    for rank, row in enumerate(rows)
    for text in row
]
"""Of each spelling, its kind and its place in the order of its kind."""

OPERATORS: dict[str, Callable[[bool, bool, bool], bool]] = {
    "==": lambda less, equal, greater: equal,
    "!=": lambda less, equal, greater: not equal,
    "<": lambda less, equal, greater: less,
    "<=": lambda less, equal, greater: less or equal,
    ">": lambda less, equal, greater: greater,
    ">=": lambda less, equal, greater: greater or equal,
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_any_value_compares_with_any_other_as_the_tables_say(operator: str) -> None:
    expected: list[str] = []
    for at, ((left_kind, left, _), (right_kind, right, _)) in enumerate(product(VALUES, VALUES)):
        same = left_kind == right_kind
        verdict = (same and left < right, same and left == right, same and left > right)
        if OPERATORS[operator](*verdict):
            expected.append(f"$[{at}]")
    pairs = ",".join(
        f'{{"l":{left},"r":{right}}}' for (*_, left), (*_, right) in product(VALUES, VALUES)
    )
    assert paths.find_paths(f"$[?@.l {operator} @.r]", f"[{pairs}]".encode()) == expected


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_literal_compares_as_the_same_value_in_the_document(operator: str) -> None:
    document = f"[{','.join(text for *_, text in VALUES)}]".encode()
    for kind, rank, literal in VALUES:
        if len(literal) > 1000 or literal[0] in "[{":
            continue
        expected = [
            f"$[{at}]"
            for at, (other, place, _) in enumerate(VALUES)
            if OPERATORS[operator](
                *(kind == other and one for one in (place < rank, place == rank, place > rank))
            )
        ]
        assert paths.find_paths(f"$[?@ {operator} {literal}]", document) == expected


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("nothing", ["@.x", "$[99]", "length(1)", "value(@.*)", "@.x.y[0]"])
def test_nothing_equals_nothing_and_no_value(operator: str, nothing: str) -> None:
    equals = operator in {"==", "<=", ">="}
    assert bool(paths.find_paths(f"$[?@.none {operator} {nothing}]", b"[[1,2]]")) == equals
    for _, _, text in VALUES:
        found = paths.find_paths(f"$.v[?@ {operator} {nothing}]", f'{{"v":[{text}]}}'.encode())
        # `value` of one child is that child.
        if nothing != "value(@.*)":
            assert bool(found) == (operator == "!=")


@pytest.mark.parametrize("literal", ["null", "true", "false", "0", '""'])
def test_update_changes_what_equals_and_not_its_like(literal: str) -> None:
    like = [None, True, False, 0, 1, "", "0", [], {}, [True], [1], {"a": True}, {"a": 1}]
    values = {"k": Raw(json.dumps(like).encode())}
    reply, edit = WRITES["UPDATE"](
        values, m.Update(key="k", path=f"$[?@ == {literal}]", value=Raw(b"9"))
    )
    assert isinstance(reply, m.CountReply)
    assert reply.cnt == 1
    at = like.index(None) if literal == "null" else [json.dumps(one) for one in like].index(literal)
    like[at] = 9
    assert json.loads(bytes(edit.put["k"])) == like


@pytest.mark.parametrize(
    ("path", "expected"),
    [("$[?@ == $[7]]", 1), ("$[?@ == $[8]]", 1), ("$[?@ == $[9]]", 1), ("$[?@.a == $[10].a]", 1)],
)
def test_true_in_an_array_or_object_is_not_one(path: str, expected: int) -> None:
    text = b'[0,0,0,0,0,0,0,[1],[true],{"a":1},{"a":[true]},{"a":[1]}]'
    assert len(paths.find_paths(path, text)) == expected


def test_a_bare_at_is_there_whatever_its_value() -> None:
    text = b'[null,0,"",[],{},false]'
    every = [f"$[{at}]" for at in range(6)]
    assert paths.find_paths("$[?@]", text) == every
    assert paths.find_paths("$[?!@]", text) == []
    assert paths.find_paths("$[?@ && !(!@)]", text) == every
    assert paths.find_paths("$[?!@ || @]", text) == every
    assert paths.find_paths("$[?$]", text) == every
    assert paths.find_paths("$[?@.a || @[0]]", b'[{"a":null},[false],{"b":1},[],0]') == [
        "$[0]",
        "$[1]",
    ]


@pytest.mark.parametrize("value", ['"xyz"', "5", "null", "true", "[1,2]", '{"a":1}', "1.5"])
def test_count_counts_nodes_and_not_what_is_in_them(value: str) -> None:
    text = f"[{value}]".encode()
    assert paths.find_paths("$[?count(@) == 1]", text) == ["$[0]"]
    assert paths.find_paths("$[?count(@.x) == 0]", text) == ["$[0]"]
    children = 2 if value == "[1,2]" else int(value[0] == "{")
    assert paths.find_paths(f"$[?count(@.*) == {children}]", text) == ["$[0]"]
    assert paths.find_paths("$[?value(@) == @]", text) == ["$[0]"]


@pytest.mark.parametrize(
    ("value", "length"),
    [('""', 0), ('"é🙂"', 2), ("[]", 0), ("[[1,2],3]", 2), ('{"a":1,"b":2,"a":3}', 2)]
    + [(scalar, None) for scalar in ("null", "true", "false", "0", "12", "1.5", "1e400")],
)
def test_length_is_of_text_arrays_and_objects(value: str, length: int | None) -> None:
    text = f"[{value}]".encode()
    expected = "@.none" if length is None else str(length)
    assert paths.find_paths(f"$[?length(@) == {expected}]", text) == ["$[0]"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[[1]]", True), ("[[1,1]]", False), ("[[]]", False), ("[[null]]", False)],
)
def test_value_is_of_one_node_alone(text: str, expected: bool) -> None:
    assert bool(paths.find_paths("$[?value(@..*) == 1]", text.encode())) == expected


def test_numbers_of_many_digits_take_steps_to_compare() -> None:
    long = "7" * 4300
    for left, right in [(long, "1.5"), ("1." + "7" * 400_000, "1." + "7" * 400_000 + "0")]:
        steps = Steps(100_000)
        text = f"[{left},{right}]".encode()
        paths.find_paths("$[?" + "||".join(["$[0]<$[1]&&$[0]>$[1]"] * 100) + "]", text, steps)
        steps.end_request()
        # An ordinary comparison takes three.
        assert steps.total > 4 * 3 * 400
