"""The commands on keys."""

from typing import Any

import pytest
from msgspec import UNSET, Raw
from ndb_protocol import COMMANDS, Status
from ndb_protocol import messages as m
from ndb_server.engine.edits import Edit
from ndb_server.engine.key_commands import READS, WRITES, TooDeepError, update_value
from ndb_server.errors import RefusedError

ONE, TWO = b"1", b'{"a": [1.50]}'


def raw(values: dict[str, bytes]) -> dict[str, Raw]:
    return {key: Raw(value) for key, value in values.items()}


def read(command: str, values: dict[str, bytes], /, **params: Any) -> Any:
    return READS[command](raw(values), COMMANDS[f"KV_{command}"].params(**params))


def write(command: str, values: dict[str, bytes], /, **params: Any) -> Any:
    """Run `command` and make its edit in `values`; a reply that is not OK has nothing to make."""
    kept = raw(values)
    before = kept.copy()
    reply, edit = WRITES[command](kept, COMMANDS[f"KV_{command}"].params(**params))
    assert kept == before, "a command leaves the change to the owner of the map"
    if reply.st != Status.OK:
        assert edit == Edit()
    edit.apply(kept)
    values.clear()
    values.update((key, bytes(value)) for key, value in kept.items())
    return reply


def as_bytes(reply: m.ValuesReply) -> list[tuple[str, bytes]]:
    return [(key, bytes(value)) for key, value in reply.keys.items()]


def test_every_command_is_there_for_sessions_and_for_independent_keys() -> None:
    of_sessions = {"NEW", "END", "END_ALL", "EXISTS", "INFO", "INFO_ALL", "SAVE", "LOAD"}
    names = READS.keys() | WRITES.keys()
    assert {f"SH_{name}" for name in names | of_sessions} == {n for n in COMMANDS if n[:2] == "SH"}
    assert {f"KV_{name}" for name in names | {"SAVE", "LOAD"}} == {
        n for n in COMMANDS if n[:2] == "KV"
    }
    assert all(COMMANDS[f"KV_{name}"].changes for name in WRITES)
    assert not any(COMMANDS[f"KV_{name}"].changes for name in READS)


# Reading


def test_get_returns_the_keys_that_exist_in_the_order_asked_each_once() -> None:
    reply = read("GET", {"a": ONE, "b": TWO, "": ONE}, keys=["b", "x", "", "b"])
    assert as_bytes(reply) == [("b", TWO), ("", ONE)]


def test_contains_tells_of_those_that_exist_in_the_order_asked() -> None:
    assert read("CONTAINS", {"a": ONE, "b": TWO}, keys=["b", "x", "a"]).contains == ["b", "a"]


def test_count_and_keys_tell_of_all_in_insertion_order() -> None:
    values = {"z": ONE, "a": ONE}
    assert read("COUNT", values).cnt == 2
    assert read("KEYS", values).keys == ["z", "a"]


def test_a_key_that_is_overwritten_keeps_its_place() -> None:
    values = {"z": ONE, "a": ONE}
    write("SET", values, keys={"b": Raw(ONE), "z": Raw(TWO)})
    assert read("KEYS", values).keys == ["z", "a", "b"]


VALUES = {"list": b"[1, 2]", "object": b'{"x": {"y": 1.50}}', "number": b"1.50"}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"path": "$[0]", "rsp": "keys"}, ["list"]),
        ({"path": "$", "rsp": "keys"}, ["list", "object", "number"]),
        ({"path": "$.*", "rsp": "paths"}, ["$[0]", "$[1]", "$['x']"]),
        ({"path": "$..y", "rsp": "kv"}, [("object", VALUES["object"])]),
        (
            {"path": "$", "rsp": "keys", "keys": ["number", "x", "list", "number"]},
            ["number", "list"],
        ),
        ({"path": "$", "rsp": "kv", "keys": ["number"]}, [("number", b"1.50")]),
        ({"path": "$", "rsp": "keys", "keys": ["x"]}, []),
        ({"path": "$", "rsp": "keys", "keys": []}, []),
        ({"path": "$.nowhere", "rsp": "keys"}, []),
        ({"path": "$.nowhere", "rsp": "paths"}, []),
        ({"path": "$.nowhere", "rsp": "kv"}, []),
    ],
)
def test_find_answers_with_names_paths_or_whole_values(
    params: dict[str, Any], expected: list[Any]
) -> None:
    reply = read("FIND", VALUES, **params)
    if params["rsp"] == "kv":
        assert as_bytes(reply) == expected
    else:
        assert (reply.paths if params["rsp"] == "paths" else reply.keys) == expected


def test_find_refuses_a_path_that_does_not_parse_even_where_there_is_nothing_to_search() -> None:
    with pytest.raises(RefusedError) as caught:
        read("FIND", {}, path="$[", rsp="keys")
    assert caught.value.status is Status.PATH_INVALID


def test_find_searches_numbers_beyond_a_double_by_their_value() -> None:
    values = {"one": b"[1]", "huge": b"[1E400, -1E400]", "long": b"1%b" % (b"0" * 400)}
    assert read("FIND", values, path="$[0]", rsp="keys").keys == ["one", "huge"]
    assert read("FIND", values, path="$[?@ > 1e308]", rsp="paths").paths == ["$[0]"]
    assert read("FIND", values, path="$[?@ == 10e399]", rsp="paths").paths == ["$[0]"]
    assert read("FIND", values, path="$[?@ > 1e401]", rsp="paths").paths == []
    assert read("FIND", values, path="$[?@ < -1e308]", rsp="paths").paths == ["$[1]"]
    assert read("FIND", values, path="$[?@ < 2]", rsp="kv").keys == {
        "one": Raw(b"[1]"),
        "huge": Raw(b"[1E400, -1E400]"),
    }


ODD = {
    "digits": b"7" * 4301,
    "more digits": b"[-%b]" % (b"7" * 100_000),
    "a fraction of many digits": b"0.%b" % (b"7" * 5000),
    "a vast exponent": b"[1e1000000000, 1E%b, -1e-%b]" % (b"9" * 30, b"9" * 5000),
    "101 levels": b"[" * 101 + b"]" * 101,
    "300 levels": b'{"a":' * 300 + b"1" + b"}" * 300,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("path", ["$", "$[?@.a == 7]", "$..[?@ == $]", "$..*", "$..a", "$[?@ < 1]"])
def test_no_value_keeps_find_from_searching_the_others(odd: bytes, path: str) -> None:
    good = {"good": b'[{"a": 7}]', "number": b"7"}
    for rsp in ("keys", "paths", "kv"):
        alone = read("FIND", good, path=path, rsp=rsp)
        found = read("FIND", {"odd": odd, **good}, path=path, rsp=rsp)
        if rsp == "paths":
            assert found.paths[len(found.paths) - len(alone.paths) :] == alone.paths
        else:
            assert [key for key in found.keys if key != "odd"] == list(alone.keys)


@pytest.mark.parametrize("path", ["$", "$[0][0]", "$..a", "$..[?@ == 1e400]", "$[?@ == $[0]]"])
def test_find_searches_values_however_deep_they_nest(path: str) -> None:
    for depth in (*range(950, 1010), 5000):
        values = {"deep": b"[" * depth + b"1e400" + b"]" * depth, "good": b"[[1]]"}
        found = read("FIND", values, path=path, rsp="keys").keys
        assert ("deep" in found) == (path != "$..a")


# Writing


def test_set_stores_values_as_sent() -> None:
    values: dict[str, bytes] = {"a": ONE}
    assert write("SET", values, keys={"a": Raw(TWO), "": Raw(b"1E400")}).st == Status.OK
    assert values == {"a": TWO, "": b"1E400"}


def test_add_leaves_existing_keys_as_they_are() -> None:
    values = {"a": ONE}
    write("ADD", values, keys={"a": Raw(TWO), "b": Raw(TWO)})
    assert values == {"a": ONE, "b": TWO}


def test_rmv_ignores_keys_that_do_not_exist_and_those_asked_for_twice() -> None:
    values = {"a": ONE, "b": ONE}
    assert write("RMV", values, keys=["a", "x", "a"]).st == Status.OK
    assert values == {"b": ONE}


def test_clear_and_clear_set_count_what_they_removed() -> None:
    values = {"a": ONE, "b": ONE}
    assert write("CLEAR_SET", values, keys={"b": Raw(TWO)}).cnt == 2
    assert values == {"b": TWO}
    assert write("CLEAR", values).cnt == 1
    assert write("CLEAR", values).cnt == 0
    assert values == {}


@pytest.mark.parametrize("command", ["SET", "ADD", "CLEAR_SET"])
def test_no_keys_may_be_stored(command: str) -> None:
    values = {"a": ONE}
    assert write(command, values, keys={}).st == Status.OK
    assert values == ({} if command == "CLEAR_SET" else {"a": ONE})


@pytest.mark.parametrize(
    ("path", "count", "expected"),
    [
        ("$", 1, b"true"),
        ("$.x.y", 1, b'{"x": {"y": true}}'),
        ("$['x','x']", 1, b'{"x": true}'),
        ("$..*", 2, b'{"x": true}'),
        ("$.z", 0, b'{"x": {"y": 1.50}}'),
    ],
)
def test_update_counts_the_nodes_selected_each_once(path: str, count: int, expected: bytes) -> None:
    values = dict(VALUES)
    assert write("UPDATE", values, key="object", path=path, value=Raw(b"true")).cnt == count
    assert values == {**VALUES, "object": expected}


def test_update_of_a_key_that_is_not_there_is_answered_with_22_and_a_count_of_0() -> None:
    values = {"a": ONE}
    reply = write("UPDATE", values, key="b", path="$", value=Raw(TWO))
    assert (reply.st, reply.cnt) == (Status.KEY_NOT_EXIST, 0)
    assert "'b'" in reply.m
    assert values == {"a": ONE}


def test_arr_append_to_a_key_that_is_not_there_is_answered_with_22() -> None:
    reply = write("ARR_APPEND", {}, key="b" * 1000, items=[Raw(ONE)])
    assert reply.st == Status.KEY_NOT_EXIST
    assert "'bbb" in reply.m
    assert len(reply.m) < 100


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("list", UNSET, b"[1, 2,1,[ ]]"),
        ("object", "x", None),
        ("object", "nowhere", None),
        ("object", UNSET, None),
        ("list", "x", None),
        ("number", UNSET, None),
    ],
)
def test_arr_append_takes_an_array_and_refuses_everything_else_with_41(
    key: str, name: Any, expected: bytes | None
) -> None:
    values = dict(VALUES)
    params = {"key": key, "items": [Raw(b"1"), Raw(b"[ ]")], "name": name}
    if expected is None:
        with pytest.raises(RefusedError) as caught:
            write("ARR_APPEND", values, **params)
        assert caught.value.status is Status.VALUE_TYPE_INVALID
        assert values == VALUES
    else:
        assert write("ARR_APPEND", values, **params).st == Status.OK
        assert values == {**VALUES, key: expected}


def test_arr_append_finds_the_array_at_a_member_the_empty_name_included() -> None:
    values = {"a": b'{"": [1], "b": 1.50}'}
    write("ARR_APPEND", values, key="a", items=[Raw(b"2")], name="")
    assert values["a"] == b'{"": [1,2], "b": 1.50}'


@pytest.mark.parametrize(
    ("path", "value", "deep_enough"),
    [
        ("$.a[0]", b"[[]]", True),
        ("$.a[0]", b"[[[]]]", False),
        ("$.a[0]", b"7", True),
        ("$.a[0]", b'"[[[[[["', True),
        ("$", b"[[[[]]]]", True),
        ("$", b"[[[[[]]]]]", False),
        # Of nested nodes, the outer one is replaced.
        ("$..*", b'{"b":[{}]}', True),
        ("$..*", b'{"b":[{"c":{}}]}', False),
        ("$.nothing", b"[[[[[]]]]]", True),
    ],
)
def test_update_refuses_to_make_a_value_deeper_than_the_limit(
    path: str, value: bytes, deep_enough: bool
) -> None:
    values = raw({"k": b'{"a":[[[1]],"x"]}'})
    params = m.Update(key="k", path=path, value=Raw(value))
    if deep_enough:
        update_value(values, params, depth=4)
    else:
        with pytest.raises(TooDeepError) as caught:
            update_value(values, params, depth=4)
        assert caught.value.status is Status.LIMIT_EXCEEDED
        assert "'k'" in caught.value.message
