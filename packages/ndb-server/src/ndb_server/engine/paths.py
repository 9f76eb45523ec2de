"""JSONPath (RFC 9535) over stored JSON text, and changes to the nodes it selects.

A value is parsed to find nodes. It is changed in its text, so that everything but the nodes named
stays byte for byte what the client sent: numbers keep their spelling, objects their order.
"""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Raw
from ndb_protocol import Status

from ..errors import RefusedError
from . import jsonpath
from .splicing import Location, spans, wanted
from .steps import Steps

_UNLIMITED = Steps()


def check_path(path: str, steps: Steps = _UNLIMITED) -> None:
    """See that `path` parses, and take the steps that this takes.

    Raises:
        RefusedError: it does not parse (status 4), is too long or nests too deeply (42), or takes
            too many `steps` (201).
    """
    # Whether it was parsed before or not, a request is answered in the same way.
    steps.take(len(path))
    jsonpath.parse_path(path)


def show(name: str) -> str:
    """Return `name` for a message to a human: quoted, and cut if it is long."""
    return reprlib.repr(name)


def _nodes(path: str, text: bytes, steps: Steps) -> list[jsonpath.Node]:
    # To begin takes a few.
    steps.take(4)
    return jsonpath.parse_path(path).run(jsonpath.read(text, steps), steps)


def matches(path: str, text: bytes, steps: Steps = _UNLIMITED) -> bool:
    """Tell whether `path` selects a node of `text`.

    Raises:
        RefusedError: `path` does not parse (4), or it takes too many `steps` (201).
    """
    return bool(_nodes(path, text, steps))


def find(path: str, text: bytes, steps: Steps = _UNLIMITED) -> list[str]:
    """Return the normalized path of each node of `text` that `path` selects.

    Raises:
        RefusedError: `path` does not parse (4), or it takes too many `steps` (201).
    """
    found: list[str] = []
    for _, trail in _nodes(path, text, steps):
        location = _location(trail)
        # Long ways to many nodes come to more than there is memory for.
        steps.take(sum(map(_spelled, location)) >> 5)
        found.append(_normalized(location))
    return found


def _location(trail: jsonpath.Trail) -> Location:
    location: list[str | int] = []
    while trail is not None:
        trail, step = trail
        location.append(step)
    return tuple(reversed(location))


def _spelled(step: str | int) -> int:
    """Return about how many characters `step` has in a path."""
    return 4 + len(step) if isinstance(step, str) else 4


# What a normalized path escapes (section 2.7).
_ESCAPES = {code: rf"\u{code:04x}" for code in range(0x20)}
_ESCAPES |= {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r", 39: r"\'", 92: r"\\"}


def _normalized(location: Location) -> str:
    return "$" + "".join(
        f"['{step.translate(_ESCAPES)}']" if isinstance(step, str) else f"[{step}]"
        for step in location
    )


def select(path: str, key: str, text: bytes, steps: Steps = _UNLIMITED) -> list[Location]:
    """Return the location of each node of `text` that `path` selects, to be replaced.

    Raises:
        RefusedError: `path` does not parse (4), `text` is not to be changed (41), or it takes too
            many `steps` (201).
    """
    _read_changeable(key, text, steps)
    found: list[Location] = []
    for _, trail in _nodes(path, text, steps):
        location = _location(trail)
        steps.take(len(location) >> 3)
        found.append(location)
    return found


def _read_changeable(key: str, text: bytes, steps: Steps) -> Any:
    """Return the value of `key`; refuse one with a number that most servers can't write (J-12)."""
    try:
        return jsonpath.read_doubles(text, steps)
    except jsonpath.BeyondDoubleError as error:
        raise RefusedError(
            Status.VALUE_TYPE_INVALID,
            f"the value of key {show(key)} can be stored and read but not changed: {error}",
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
    for begin, end in spans(whole, wanted(locations), steps):
        pieces += whole[at:begin], new
        at = end
    return "".join([*pieces, whole[at:]]).encode()


def _charge_spans(text: bytes, steps: Steps) -> None:
    """Take the steps that it takes to find nodes in `text`, beside those for what is around them.

    What is passed over is read; unlike elsewhere, an integer in it takes long too.
    """
    jsonpath.charge(text, steps)
    steps.take(text.count(b",") >> 5)


def append(
    key: str, text: bytes, items: Sequence[Raw], name: str | None, steps: Steps = _UNLIMITED
) -> bytes:
    """Return JSON `text` with `items` at the end of its array, or of its member `name`'s.

    Raises:
        RefusedError: there is no such array, or `text` is not to be changed (status 41), or it
            takes too many `steps` (201).
    """
    value = _read_changeable(key, text, steps)
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
        what = f"not an object with an array at 'name' ({show(name)})"
    raise RefusedError(Status.VALUE_TYPE_INVALID, f"the value of key {show(key)} is {what}")


def _append(array: bytes, items: Sequence[Raw]) -> bytes:
    inside = array.strip()[1:-1].strip()
    return b"[%b]" % b",".join([inside] * bool(inside) + [bytes(item) for item in items])
