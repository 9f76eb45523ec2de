"""JSONPath (RFC 9535) over stored JSON text, and changes to the nodes it selects.

A value is parsed to find nodes. It is changed as text, so that everything except the changed nodes
stays byte for byte what the client sent: numbers keep their spelling, objects their order.
"""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Raw
from ndb_protocol import Status

from ..errors import RefusedError
from . import jsonpath
from .splicing import Location, location_tree, spans
from .steps import Steps

_UNLIMITED = Steps()


def check_path(path: str, steps: Steps = _UNLIMITED) -> None:
    """Check that `path` parses, and take the steps for that.

    Raises:
        RefusedError: it does not parse (status 4), is too long or nests too deeply (42), or takes
            too many `steps` (201).
    """
    # A path in the parser's cache takes the same steps, so that a request always has one answer.
    steps.take(len(path))
    jsonpath.parse_path(path)


def quoted(name: str) -> str:
    """Return `name` for a message to a human: in quotes, and shortened if it is long."""
    return reprlib.repr(name)


def _nodes(path: str, text: bytes, steps: Steps) -> list[jsonpath.Node]:
    # The steps to begin.
    steps.take(4)
    return jsonpath.parse_path(path).run(jsonpath.parse_value(text, steps), steps)


def matches(path: str, text: bytes, steps: Steps = _UNLIMITED) -> bool:
    """Tell whether `path` selects a node of `text`.

    Raises:
        RefusedError: `path` does not parse (4), or it takes too many `steps` (201).
    """
    return bool(_nodes(path, text, steps))


def find_paths(path: str, text: bytes, steps: Steps = _UNLIMITED) -> list[str]:
    """Return the normalized path of each node of `text` that `path` selects.

    Raises:
        RefusedError: `path` does not parse (4), or it takes too many `steps` (201).
    """
    found: list[str] = []
    for _, node_path in _nodes(path, text, steps):
        location = _location(node_path)
        # Long locations of many nodes may need more memory than there is.
        steps.take(sum(map(_step_length, location)) >> 5)
        found.append(_normalized(location))
    return found


def _location(node_path: jsonpath.NodePath) -> Location:
    location: list[str | int] = []
    while node_path is not None:
        node_path, step = node_path
        location.append(step)
    return tuple(reversed(location))


def _step_length(step: str | int) -> int:
    """Return about how many characters `step` has in a path."""
    return 4 + len(step) if isinstance(step, str) else 4


# The characters that a normalized path escapes (section 2.7).
_ESCAPES = {code: rf"\u{code:04x}" for code in range(0x20)}
_ESCAPES |= {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r", 39: r"\'", 92: r"\\"}


def _normalized(location: Location) -> str:
    return "$" + "".join(
        f"['{step.translate(_ESCAPES)}']" if isinstance(step, str) else f"[{step}]"
        for step in location
    )


def select(path: str, key: str, text: bytes, steps: Steps = _UNLIMITED) -> list[Location]:
    """Return the location of each node of `text` that `path` selects, to replace the nodes.

    Raises:
        RefusedError: `path` does not parse (4), `text` can't be changed (41), or it takes too many
            `steps` (201).
    """
    _parse_editable(key, text, steps)
    found: list[Location] = []
    for _, node_path in _nodes(path, text, steps):
        location = _location(node_path)
        steps.take(len(location) >> 3)
        found.append(location)
    return found


def _parse_editable(key: str, text: bytes, steps: Steps) -> Any:
    """Return the value of `key`; refuse one with a number that most servers can't write (J-12)."""
    try:
        return jsonpath.parse_with_doubles(text, steps)
    except jsonpath.BeyondDoubleError as error:
        raise RefusedError(
            Status.VALUE_TYPE_INVALID,
            f"the value of key {quoted(key)} can be stored and read but not changed: {error}",
        ) from None


def replace(
    text: bytes, locations: Iterable[Location], value: bytes, steps: Steps = _UNLIMITED
) -> bytes:
    """Return JSON `text` with `value` in place of each node of `locations`.

    Of a node and another inside it, the outer one is replaced.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    locations = list(locations)
    if () in locations:
        return value
    _charge_spans(text, steps)
    whole, new = text.decode(), value.decode()
    pieces: list[str] = []
    at = 0
    for begin, end in spans(whole, location_tree(locations), steps):
        pieces += whole[at:begin], new
        at = end
    return "".join([*pieces, whole[at:]]).encode()


def _charge_spans(text: bytes, steps: Steps) -> None:
    """Take the steps to find nodes in `text`, except those that `spans` takes.

    The text before a node is parsed too, and integers in it take long.
    """
    jsonpath.charge_parsing(text, steps)
    steps.take(text.count(b",") >> 5)


def append(
    key: str, text: bytes, items: Sequence[Raw], name: str | None, steps: Steps = _UNLIMITED
) -> bytes:
    """Return JSON `text` with `items` at the end of its array, or of its member `name`'s.

    Raises:
        RefusedError: there is no such array, or `text` can't be changed (status 41), or it takes
            too many `steps` (201).
    """
    value = _parse_editable(key, text, steps)
    if name is None:
        if isinstance(value, list):
            return _append(text, items)
        what = "not an array"
    else:
        if isinstance(value, dict) and isinstance(value.get(name), list):
            _charge_spans(text, steps)
            members = text.decode()
            [(begin, end)] = spans(members, {name: {}}, steps)
            array = _append(members[begin:end].encode(), items).decode()
            return (members[:begin] + array + members[end:]).encode()
        what = f"not an object with an array at 'name' ({quoted(name)})"
    raise RefusedError(Status.VALUE_TYPE_INVALID, f"the value of key {quoted(key)} is {what}")


def _append(array: bytes, items: Sequence[Raw]) -> bytes:
    inside = array.strip()[1:-1].strip()
    return b"[%b]" % b",".join([inside] * bool(inside) + [bytes(item) for item in items])
