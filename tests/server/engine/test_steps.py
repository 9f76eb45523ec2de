"""What following a JSONPath may cost: steps are counted, not time."""

import json
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
from msgspec import Raw
from ndb_protocol import Status
from ndb_protocol.messages import ArrAppend, Find, KeyValues, Params, Update
from ndb_server.engine import key_commands, paths
from ndb_server.engine.engine import Engine
from ndb_server.engine.steps import Steps
from ndb_server.errors import RefusedError
from ndb_server.limits import Limits

MOST = 100_000


def value(data: object) -> bytes:
    return json.dumps(data).encode()


NUMBERS = value(list(range(2000)))
TREE = value([[[[0] * 8] * 8] * 8] * 8)
OBJECTS = value([{"a": number, "s": "a" * 50} for number in range(500)])
DEEP = b'{"a":' * 30 + b"1" + b"}" * 30
DEEPER = b'{"a":' * 90 + b"1" + b"}" * 90
EMPTY = value([{}] * 2000)
LONG_NAME = value({"n" * 100_000: list(range(1000))})
EMPTY_ARRAYS = b"[%b]" % b",".join([b"[]"] * 1_350_000)
FRACTIONS = b"[%b]" % b",".join([b"1.5"] * 1_000_000)
EXPONENTS = b"[%b]" % b",".join([b"1E9"] * 1_000_000)

COSTLY = {
    "descendants of descendants": ("$..*..*..*..*", TREE),
    "the same again and again": ("$" + "['a','a']" * 20, DEEP),
    "selectors of everything": ("$[" + ",".join(["*"] * 200) + "]", NUMBERS),
    "a filter for each of each": ("$[?count($[*]) > 5]", NUMBERS),
    "filters that select nothing": ("$[?!$[?!$[?!@]]]", NUMBERS),
    "descendants that are not there": ("$[?$..nothing]", OBJECTS),
    "the root compared with itself": ("$[?$ == $]", NUMBERS),
    "comparisons of literals": ("$[?" + "&&".join(["1==1"] * 100) + "]", NUMBERS),
    "functions of functions": ("$[?" + "length(" * 90 + "@" + ")" * 90 + "==1]", NUMBERS),
    "negations of negations": ("$[?" + "!(" * 90 + "@" + ")" * 90 + "]", NUMBERS),
    "long ways that lead nowhere": ("$[?@" + ".a" * 300 + "]", EMPTY),
    "ways through depths": ("$..a..a..a", DEEPER),
    "tests of existence": ("$[?" + "&&".join(["@"] * 100) + "]", NUMBERS),
    "a long text searched for each": (
        "$.many[?search($.text, 'b')]",
        value({"many": [0] * 500, "text": "a" * 100_000}),
    ),
    "long texts compared for each": (
        "$.many[?$.one == $.two]",
        value({"many": [0] * 2000, "one": "a" * 100_000, "two": "a" * 100_000}),
    ),
    "a pattern of many instructions": (
        "$[?match(@.s, '(a{1,900}){1,5}b')]",
        value([{"s": "a" * 2000}] * 5),
    ),
    "a pattern that counts too far": ("$[?search(@.s, 'a{1001}')]", OBJECTS),
    "a pattern that is too long": ("$[?search('a', $[0])]", value(["(" * 20_000])),
    "a pattern for each": (
        "$[?match('a', @.p)]",
        value([{"p": f"a{{{number}}}"} for number in range(1, 999)] * 10),
    ),
    "a pattern of thousands of ranges for each": (
        "$[?match('a', @)]",
        value([rf"\p{{L}}{{8}}{number}" for number in range(100)]),
    ),
    "paths with long names": ("$.*[*]", LONG_NAME),
    "a large value": ("$", value(["x" * 1000] * 50_000)),
    "a value of empty arrays": ("$[0]", EMPTY_ARRAYS),
    "a value of fractions": ("$[0]", FRACTIONS),
    "a value of exponents": ("$[0]", EXPONENTS),
    "objects with long names compared for each": (
        "$.many[?$.one == $.two]",
        value({"many": [0] * 2000, "one": {"n" * 1_000_000: 1}, "two": {"n" * 1_000_000: 1}}),
    ),
}


@pytest.mark.parametrize(("path", "text"), COSTLY.values(), ids=COSTLY)
def test_a_query_that_takes_too_many_steps_is_refused_with_status_201(
    path: str, text: bytes
) -> None:
    steps = Steps(MOST)
    with pytest.raises(RefusedError) as caught:
        paths.find_paths(path, text, steps)
    assert caught.value.status is Status.LIMIT_EXCEEDED
    assert "steps; select less with 'path' or 'keys'" in caught.value.message
    assert steps.exceeded == 1


CALLS = 40
"""The most calls that one step may be; an ordinary one is some ten."""


def calls(run: Callable[[], object]) -> int:
    """Return how many calls it takes to run something that is refused."""
    count = 0

    def profile(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    except RefusedError:
        pass
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(("path", "text"), COSTLY.values(), ids=COSTLY)
def test_a_step_is_a_few_calls_whatever_the_query(path: str, text: bytes) -> None:
    # What it takes to parse a path is counted by its length.
    paths.check_path(path)
    most = 10_000
    assert calls(partial(paths.find_paths, path, text, Steps(most))) < CALLS * most


MEMBERS = value({"list": [], **{f"m{number}": 0 for number in range(1000)}})


COSTLY_CHANGES = {
    "update beside empty arrays": partial(
        key_commands.update_value,
        {"k": Raw(b'{"a":%b],"l":0}' % EMPTY_ARRAYS[:2_400_000])},
        Update(key="k", path="$.l", value=Raw(b"1")),
    ),
    "update beside fractions": partial(
        key_commands.update_value,
        {"k": Raw(b'{"a":%b],"l":0}' % FRACTIONS[:2_400_000])},
        Update(key="k", path="$.l", value=Raw(b"1")),
    ),
    "append beside empty arrays": partial(
        key_commands.append_to_array,
        {"k": Raw(b'{"a":%b,"l":[]}' % EMPTY_ARRAYS)},
        ArrAppend(key="k", items=[Raw(b"1")], name="l"),
    ),
}


@pytest.mark.parametrize("change", COSTLY_CHANGES.values(), ids=COSTLY_CHANGES)
def test_a_change_that_takes_too_many_steps_is_refused_with_status_201(
    change: Callable[[Steps], object],
) -> None:
    with pytest.raises(RefusedError) as caught:
        change(Steps(MOST))
    assert caught.value.status is Status.LIMIT_EXCEEDED
    assert calls(partial(change, Steps(MOST))) < CALLS * MOST


VALUES = 8
"""The most values that one step of reading may make, but for those that are made in no time."""

HOLDING = {
    "empty arrays": b"[]",
    "empty objects": b"{}",
    "arrays of a number": b"[1]",
    "arrays of a fraction": b"[1.5]",
    "arrays in objects": b'{"":[]}',
    "objects in objects": b'{"":{}}',
    "fractions": b"1.5",
    "exponents": b"1e9",
    "exponents in capitals": b"1E9",
}


def steps_of(run: Callable[[Steps], object]) -> int:
    """Return how many steps it takes to run something."""
    steps = Steps()
    run(steps)
    steps.end_request()
    return steps.total


@pytest.mark.parametrize("item", HOLDING.values(), ids=HOLDING)
def test_a_step_makes_a_few_values_whatever_is_read(item: bytes) -> None:
    many = 10_000
    items = b"[%b]" % b",".join([item] * many)
    assert VALUES * steps_of(partial(paths.find_paths, "$[0]", items)) > many
    # To add an item, the value is read, and its text is gone through.
    member = b'{"l":[],"a":%b}' % items
    added = partial(paths.append, "k", member, [Raw(b"1")], "l")
    assert VALUES * steps_of(added) > 2 * many
    # To replace one, it is read once more, to find where that is.
    replaced = partial(
        key_commands.update_value, {"k": Raw(member)}, Update(key="k", path="$.l", value=Raw(b"1"))
    )
    assert VALUES * steps_of(replaced) > 3 * many


def test_a_step_makes_a_few_members_of_an_object() -> None:
    many = 10_000
    members = b"{%b}" % b",".join(b'"%d":1' % number for number in range(many))
    assert VALUES * steps_of(partial(paths.find_paths, "$", members)) > many


def test_a_step_goes_past_a_few_tens_of_numbers_in_a_change() -> None:
    many = 10_000
    member = b'{"a":[%b],"l":[]}' % b",".join([b"1"] * many)
    assert 16 * steps_of(partial(paths.append, "k", member, [Raw(b"1")], "l")) > many


@pytest.mark.parametrize(
    "run",
    [
        partial(paths.replace, NUMBERS, [(0,)], b"1"),
        partial(paths.replace, MEMBERS, [("list",)], b"1"),
        partial(paths.append, "k", MEMBERS, [Raw(b"1")], "list"),
        partial(paths.append, "k", value(["x" * 60_000]), [Raw(b"1")], None),
    ],
    ids=["element", "member", "append to a member", "append"],
)
def test_a_change_inside_a_large_value_takes_steps_too(run: Callable[..., bytes]) -> None:
    steps = Steps(500)
    with pytest.raises(RefusedError) as caught:
        run(steps=steps)
    assert caught.value.status is Status.LIMIT_EXCEEDED
    assert "store smaller values" in caught.value.message
    assert run(steps=Steps(MOST))


def test_a_long_path_takes_steps_to_parse_known_or_not() -> None:
    path = "$[" + ",".join(["1"] * 500) + "]"
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            paths.check_path(path, Steps(500))
        assert caught.value.status is Status.LIMIT_EXCEEDED
        paths.check_path(path, Steps(2000))


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("$[*]", NUMBERS, 2000),
        ("$[?@ > 1000]", NUMBERS, 999),
        ("$..*", TREE, 8 + 64 + 512 + 4096),
        ("$[?@.a == 7]", OBJECTS, 1),
        ("$[?match(@.s, 'a+')]", OBJECTS, 500),
        ("$[?@.a == $[3].a]", OBJECTS, 1),
        ("$[?match(@.s, '(a|aa)+b')]", OBJECTS, 0),
        ("$[?match(@.s, '[')]", OBJECTS, 0),
        ("$[?match(@.a, 'a')]", OBJECTS, 0),
        ("$[?@.nothing == @.a]", OBJECTS, 0),
        ("$[?length(@.s) == length($[0].s)]", OBJECTS, 500),
    ],
)
def test_an_ordinary_query_takes_few_steps(path: str, text: bytes, found: int) -> None:
    assert len(paths.find_paths(path, text, Steps(MOST))) == found


def test_what_a_backtracking_engine_never_ends_with_takes_steps_in_proportion() -> None:
    def taken(length: int) -> int:
        text = value(["a" * length])
        # How few are enough says how many it takes.
        low, high = 0, MOST
        while high - low > 1:
            most = (low + high) // 2
            try:
                paths.find_paths("$[?match(@, '(a|aa)+b')]", text, Steps(most))
                high = most
            except RefusedError:
                low = most
        return high

    assert taken(20_000) < 2.2 * taken(10_000)


def test_each_request_has_all_the_steps() -> None:
    steps = Steps(MOST)
    for _ in range(100):
        paths.find_paths("$[*]", NUMBERS, steps)
        steps.end_request()
    assert steps.exceeded == 0
    assert steps.total > MOST


def test_a_query_that_was_refused_leaves_others_as_they_are() -> None:
    with pytest.raises(RefusedError):
        paths.find_paths("$..*", TREE, Steps(10))
    assert paths.find_paths("$..*", b"[1]") == ["$[0]"]
    assert paths.find_paths("$..*", b"[1]", Steps(10)) == ["$[0]"]


SMALL = Raw(b'{"a":1,"b":"x"}')
ROWS = [{"id": number, "a": number % 10, "s": "x" * 50} for number in range(1000)]


@pytest.mark.parametrize(
    ("stored", "params", "thousands"),
    [
        ({"k": SMALL}, Find(path="$.a", rsp="keys"), 0),
        ({"k": Raw(value(ROWS))}, Find(path="$[?@.a == 7]", rsp="keys"), 4),
        ({"k": Raw(TREE)}, Find(path="$..*", rsp="keys"), 7),
        ({f"k{number}": SMALL for number in range(4000)}, Find(path="$.a", rsp="keys"), 24),
        ({"k": Raw(value([0] * 10_000))}, Update(key="k", path="$[0]", value=Raw(b"1")), 11),
        ({"k": Raw(value(["x" * 1000] * 1000))}, Find(path="$", rsp="keys"), 10),
        ({"k": Raw(b"[%b]" % b",".join([SMALL] * 62_500))}, Find(path="$", rsp="keys"), 26),
        ({"k": Raw(value([[1.5, 2.5]] * 10_000))}, Find(path="$", rsp="keys"), 9),
    ],
    ids=[
        "a member",
        "a filter",
        "a tree",
        "many keys",
        "an update",
        "a megabyte",
        "of objects",
        "points",
    ],
)
def test_what_an_honest_request_takes_is_as_the_page_on_security_says(
    stored: dict[str, Raw], params: Params, thousands: int
) -> None:
    engine = Engine(limits=Limits())
    engine.handlers["KV_SET"](KeyValues(keys=stored), 0)
    engine.handlers["KV_UPDATE" if isinstance(params, Update) else "KV_FIND"](params, 0)
    assert round(engine.steps.total / 1000) == thousands
