"""Strategies for request messages: right, nearly right and wrong, in every spelling."""

import json
from typing import Any

import msgspec
from hypothesis import strategies as st
from ndb_protocol import COMMANDS, Command
from ndb_protocol import messages as m
from ndb_protocol.messages import Params

white_space = st.sampled_from(["", "", "", "", " ", "\t", "\n", "\r", " \r\n\t "])

_EDGES = [
    0,
    1,
    m.DURATION_MAX,
    m.DURATION_MAX + 1,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**63 + 1,
    2**64 - 1,
    2**64,
    2**64 + 1,
    10**30,
]
_integers = st.sampled_from(_EDGES) | st.integers(0, 2**66)
integers = (_integers | _integers.map(lambda number: -number)).map(str)
numbers = integers | st.sampled_from(
    ["1.0", "1.50", "1e3", "1E400", "-1E400", "-0", "-0.0", "0.5", "1" * 5000]
)
words = st.sampled_from(["", "a", "b", "keys", "tkn", "$", "$.a", "é", "😀", '"', "\\", "\n", "."])


texts = words | st.text(max_size=8)


@st.composite
def strings(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> str:
    """The JSON text of a string: plain, or with escapes that need not be."""
    text = draw(texts)
    spelling = draw(st.sampled_from(["plain", "plain", "ascii", "escaped"]))
    if spelling == "escaped":
        units = text.encode("utf-16-be")
        return '"%s"' % "".join(
            rf"\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)
        )
    return json.dumps(text, ensure_ascii=spelling == "ascii")


def _join(draw: st.DrawFn, opening: str, parts: list[str], closing: str) -> str:
    def spaced(part: str) -> str:
        return f"{draw(white_space)}{part}{draw(white_space)}"

    return (
        opening + ",".join(map(spaced, parts)) + closing
        if parts
        else opening + spaced("") + closing
    )


@st.composite
def arrays(draw: st.DrawFn, elements: st.SearchStrategy[str], max_size: int = 4) -> str:
    return _join(draw, "[", draw(st.lists(elements, max_size=max_size)), "]")


@st.composite
def objects(draw: st.DrawFn, members: st.SearchStrategy[list[tuple[str, str]]]) -> str:
    """The JSON text of an object; `members` are texts of names and values, duplicates and all."""
    parts = [
        f"{name}{draw(white_space)}:{draw(white_space)}{value}" for name, value in draw(members)
    ]
    return _join(draw, "{", parts, "}")


anything = st.recursive(
    st.sampled_from(["null", "true", "false"]) | numbers | strings(),
    lambda inner: arrays(inner) | objects(st.lists(st.tuples(strings(), inner), max_size=3)),
    max_leaves=5,
)

_tokens = integers | integers.map(lambda digits: f'"{digits}"') | st.just('"01"')
_names = arrays(strings()) | arrays(anything)
_booleans = st.sampled_from(["true", "false"])
_RIGHT: dict[str, st.SearchStrategy[str]] = {
    "tkn": _tokens,
    "tkns": arrays(_tokens) | arrays(anything),
    "key": strings(),
    "path": strings(),
    "rsp": strings(st.sampled_from([*m.FIND_RESPONSES, "keys\n", "KV", ""])),
    "items": arrays(anything),
    "value": anything,
    "duration": integers,
    "deleteSession": _booleans,
    "extendOnSetAdd": _booleans,
    "extendOnGet": _booleans,
}
_DATASET_NAMES = ["a", "a.b", ".a", "../a", "a\n", "", "x" * 64, "x" * 65]


def _right(params: type[Params], name: str) -> st.SearchStrategy[str]:
    if name == "name":
        return strings(st.sampled_from(_DATASET_NAMES)) | strings()
    if name == "keys":
        if issubclass(params, m.KeyValues):
            return objects(st.lists(st.tuples(strings(), anything), max_size=3))
        return _names
    if name == "expiry":
        return objects(_members(m.Expiry))
    return _RIGHT[name]


@st.composite
def _members(draw: st.DrawFn, params: type[Params]) -> list[tuple[str, str]]:
    """Names and values of parameters: mostly right, some left out, wrong, unknown or twice."""
    members: list[tuple[str, str]] = []
    for field in msgspec.structs.fields(params):
        fate = draw(st.sampled_from(["right"] * 16 + ["missing", "wrong", "twice"]))
        right = _right(params, field.name)
        values = {
            "right": [right],
            "missing": [],
            "wrong": [anything],
            "twice": [anything | right, right],
        }[fate]
        members += [(draw(strings(st.just(field.name))), draw(value)) for value in values]
    if draw(st.booleans()):
        members.append((draw(strings()), draw(anything)))
    return draw(st.permutations(members))


_BODY = {command.name: objects(_members(command.params)) for command in COMMANDS.values()}


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A message that is a request, or nearly so."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    tidy = draw(st.booleans())
    spelling = f'"{name}"' if tidy else draw(strings(st.just(name)))
    members = [(spelling, draw(_BODY[name]))]
    match draw(st.integers(0, 19)):
        case 0:
            members.insert(0, (draw(strings(st.just(name))), draw(anything)))
        case 1:
            members.append((draw(strings()), draw(anything)))
        case 2:
            members = [(members[0][0], draw(anything))]
        case 3:
            members = [(draw(strings()), members[0][1])]
        case _:
            pass
    text = draw(objects(st.just(members)))
    # A tidy message begins as those do that the codec expects.
    opening = "{" + text[1:].lstrip(" \t\r\n") if tidy else draw(white_space) + text
    return opening + draw(white_space)


def plain_params(command: Command) -> dict[str, Any]:
    """Parameters of `command` that are right, every one given in its plainest form."""
    by_name: dict[str, Any] = {
        "tkn": 2**64 - 1,
        "tkns": [1, 2**63 - 1],
        "key": "a",
        "path": "$",
        "rsp": "kv",
        "value": {"a": [1.5]},
        "items": [1],
        "name": "a",
        "expiry": {
            "duration": m.DURATION_MAX,
            "deleteSession": True,
            "extendOnSetAdd": False,
            "extendOnGet": True,
        },
    }
    pairs = issubclass(command.params, m.KeyValues)
    by_name["keys"] = {"a": 1, "": None} if pairs else ["a", ""]
    return {field.name: by_name[field.name] for field in msgspec.structs.fields(command.params)}
