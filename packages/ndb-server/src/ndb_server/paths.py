"""JSONPath (RFC 9535) over stored JSON text, and changes to the nodes it selects.

A value is parsed to find nodes. It is changed in its text, so that everything but the nodes named
stays byte for byte what the client sent: numbers keep their spelling, objects their order.
"""

import json
import re
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import msgspec
from jsonpath_rfc9535 import JSONPathError, JSONPathQuery, JSONPathRecursionError
from msgspec import Raw
from ndb_protocol import Status

from .errors import RefusedError
from .queries import Environment, Steps

Location = tuple[str | int, ...]
"""Where a node is: member names and array indexes from the root."""

_parse = msgspec.json.Decoder().decode
_parse_rounding = msgspec.json.Decoder(float_hook=float).decode


LONGEST = 4096
"""Characters of the longest path; more take too long to parse."""

_environment = Environment()
_UNLIMITED = Steps()


def parse_path(path: str, steps: Steps = _UNLIMITED) -> JSONPathQuery:
    """Return the query that `path` spells.

    Raises:
        RefusedError: it does not parse, or is too long (status 4), or takes too many `steps` (201).
    """
    if len(path) > LONGEST:
        raise RefusedError(
            Status.PATH_INVALID, f"'path' has {len(path)} characters; {LONGEST} are allowed"
        )
    # Whether it was parsed before or not, a request is answered in the same way.
    steps.take(len(path))
    return _parse_path(path)


@lru_cache(maxsize=64)
def _parse_path(path: str) -> JSONPathQuery:
    try:
        return _environment.compile(path)
    except JSONPathError as error:
        reason = str(error).partition("\n")[0]
    except RecursionError:
        reason = "it nests too deeply"
    except (ValueError, OverflowError):
        # int() and float() refuse thousands of digits, and 1e400, before the library checks them.
        reason = "a number in it is out of range"
    raise RefusedError(Status.PATH_INVALID, f"'path' is not a JSONPath of RFC 9535: {reason}")


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """Refuse (status 41) what turns out to be unreadable in the value of `key`.

    That is a number beyond a double's range, a lone surrogate, or nesting that is too deep.
    """
    try:
        yield
    except (RecursionError, JSONPathRecursionError):
        why = "it nests too deeply"
    except msgspec.MsgspecError as error:
        why = str(error)
    else:
        return
    raise RefusedError(
        Status.VALUE_TYPE_INVALID,
        f"the value of key {show(key)} can only be stored and read: {why}",
    )


def show(name: str) -> str:
    """Return `name` for a message to a human: quoted, and cut if it is long."""
    return reprlib.repr(name)


def _begin(path: str, text: bytes, steps: Steps) -> JSONPathQuery:
    query = parse_path(path)
    # To begin takes a few.
    steps.take(4 + _parsing(text))
    _environment.steps = steps
    return query


def _parsing(text: bytes) -> int:
    """Return how many steps it takes to parse `text`."""
    return len(text) // 100


def select(path: str, key: str, text: bytes, steps: Steps = _UNLIMITED) -> list[Location]:
    """Return the location of each node of `text` that `path` selects.

    Raises:
        RefusedError: `path` does not parse (4), `text` can't be read exactly (41), or it takes too
            many `steps` (201).
    """
    query = _begin(path, text, steps)
    with _reading(key):
        found: list[Location] = []
        for node in query.finditer(_parse(text)):
            steps.take(len(node.location) >> 3)
            found.append(node.location)
        return found


def find(path: str, key: str, text: bytes, steps: Steps = _UNLIMITED) -> list[str]:
    """Return the normalized path of each node of `text` that `path` selects.

    A number beyond a double's range is compared as infinite.

    Raises:
        RefusedError: `path` does not parse (4), `text` nests too deeply (41), or it takes too many
            `steps` (201).
    """
    query = _begin(path, text, steps)
    with _reading(key):
        try:
            value = _parse(text)
        except msgspec.DecodeError:
            # It takes longer, and hardly any value needs it.
            value = _parse_rounding(text)
        found: list[str] = []
        for node in query.finditer(value):
            # Long ways to many nodes come to more than there is memory for.
            steps.take(sum(map(_spelled, node.location)) >> 5)
            found.append(node.path())
        return found


def _spelled(step: str | int) -> int:
    """Return about how many characters `step` has in a path."""
    return 4 + len(step) if isinstance(step, str) else 4


def replace(
    key: str,
    text: bytes,
    locations: Sequence[Location],
    value: bytes,
    steps: Steps = _UNLIMITED,
) -> bytes:
    """Return JSON `text` with `value` in place of each node of `locations`.

    Of a node and another inside it, the outer one is replaced.

    Raises:
        RefusedError: `text` nests too deeply to be changed there (status 41), or it takes too many
            `steps` (201).
    """
    steps.take(_parsing(text))
    with _reading(key):
        return _replace(text.decode(), locations, value.decode(), steps).encode()


_Wanted = dict[str | int, "_Wanted"]
"""Which nodes below a node are wanted, by the next step to them; none: the node itself."""


def _replace(text: str, locations: Sequence[Location], value: str, steps: Steps) -> str:
    if () in locations:
        return value
    wanted: _Wanted = {}
    for location in sorted(locations, key=len):
        node = wanted
        for step in location:
            if step in node and not node[step]:
                break
            node = node.setdefault(step, {})
    pieces: list[str] = []
    at = 0
    for begin, end in sorted(_spans(text, wanted, steps)):
        pieces += text[at:begin], value
        at = end
    return "".join([*pieces, text[at:]])


# What stands before a member or an element; the name of a member, in quotes, is its one group.
_LEAD = re.compile(r'\s*[{[,]\s*(?=[^\s\]}])(?:("(?:[^"\\]|\\.)*")\s*:\s*)?')
_CLOSE = re.compile(r"\s*[{[]?\s*[\]}]")
_SPACE = re.compile(r"\s*")
# Finds the end of a value; its numbers stay text, so any there is will do.
_value_at = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match
    return match.end()


def _spans(text: str, wanted: _Wanted, steps: Steps) -> list[tuple[int, int]]:
    """Return begin and end of each node of `text` that is wanted."""
    return _spans_at(text, _match_end(_SPACE, text, 0), wanted, steps)[0]


def _spans_at(
    text: str, begin: int, wanted: _Wanted | None, steps: Steps
) -> tuple[list[tuple[int, int]], int]:
    """Return the spans of the wanted nodes of the value at `begin`, and where the value ends.

    Every character is read once: a value with something wanted in it is not parsed as a whole.
    """
    if not wanted or text[begin] not in "{[":
        _, end = _value_at(text, begin)
        return [] if wanted is None or wanted else [(begin, end)], end
    # Of members with one name, the last one counts, as it does where the value is parsed.
    found: dict[str | int, list[tuple[int, int]]] = {}
    count, at = 0, begin
    while lead := _LEAD.match(text, at):
        steps.take()
        step = count if lead[1] is None else _parse(lead[1])
        found[step], at = _spans_at(text, lead.end(), wanted.get(step), steps)
        count += 1
    return [span for spans in found.values() for span in spans], _match_end(_CLOSE, text, at)


def append(
    key: str, text: bytes, items: Sequence[Raw], name: str | None, steps: Steps = _UNLIMITED
) -> bytes:
    """Return JSON `text` with `items` at the end of its array, or of its member `name`'s.

    Raises:
        RefusedError: there is no such array, or `text` can't be changed (status 41), or it takes
            too many `steps` (201).
    """
    steps.take(_parsing(text))
    with _reading(key):
        value = _parse(text)
        if name is None:
            if isinstance(value, list):
                return _append(text, items)
            what = "no array"
        else:
            if isinstance(value, dict) and isinstance(value.get(name), list):
                members = text.decode()
                [(begin, end)] = _spans(members, {name: {}}, steps)
                array = _append(members[begin:end].encode(), items).decode()
                return (members[:begin] + array + members[end:]).encode()
            what = f"no object with an array at 'name' ({show(name)})"
    raise RefusedError(Status.VALUE_TYPE_INVALID, f"the value of key {show(key)} is {what}")


def _append(array: bytes, items: Sequence[Raw]) -> bytes:
    inside = array.strip()[1:-1].strip()
    return b"[%b]" % b",".join([inside] * bool(inside) + [bytes(item) for item in items])
