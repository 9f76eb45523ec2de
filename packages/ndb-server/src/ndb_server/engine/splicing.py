"""Finds nodes in a JSON text, so that everything around them can be kept byte for byte."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .steps import Steps

Location = tuple[str | int, ...]
"""Where a node is: member names and array indexes from the root."""

Wanted: TypeAlias = "dict[str | int, Wanted]"
"""Which nodes below a node are wanted, by the next step to them; none: the node itself."""

_STRING = r'"(?:[^"\\]|\\.)*+"'
# What stands before a member or an element; the name of a member, in quotes, is its one group.
_LEAD = re.compile(rf"\s*+[{{\[,]\s*+(?=[^\s\]}}])(?:({_STRING})\s*+:\s*+)?")
_CLOSE = re.compile(r"\s*[{[]?\s*[\]}]")
_SPACE = re.compile(r"\s*")
_SCALAR = re.compile(rf"{_STRING}|[^\s,\]}}]+")
# Its numbers stay text, so any there is will do.
_value_at = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode
_BRACKET = re.compile(rf"(?P<open>[\[{{])|(?P<close>[\]}}])|{_STRING}")


def wanted(locations: Sequence[Location]) -> Wanted:
    """Return which nodes are at `locations`; of a node and another inside it, the outer one."""
    top: Wanted = {}
    for location in sorted(locations, key=len):
        node = top
        for step in location:
            if step in node and not node[step]:
                break
            node = node.setdefault(step, {})
    return top


@dataclass(slots=True)
class _Container:
    """An array or object that is being read."""

    wanted: Wanted
    count: int = 0
    step: str | int = 0
    found: dict[str | int, list[tuple[int, int]]] = field(default_factory=dict)


def spans(text: str, nodes: Wanted, steps: Steps) -> list[tuple[int, int]]:
    """Return begin and end of each of the wanted nodes below the root of JSON `text`, in order.

    Every character is read once. Of members with one name, the last one counts, as it does where
    the value is parsed.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    at = _end(_SPACE, text, 0)
    around: list[_Container] = []
    here = _Container(nodes)
    while True:
        lead = _LEAD.match(text, at)
        if lead:
            steps.take()
            begin = lead.end()
            here.step = here.count if lead[1] is None else json.loads(lead[1])
            here.count += 1
            here.found.pop(here.step, None)
            below = here.wanted.get(here.step)
            if below and text[begin] in "{[":
                around.append(here)
                here = _Container(below)
                at = begin
            else:
                at = _value_end(text, begin, steps)
                if below == {}:
                    here.found[here.step] = [(begin, at)]
            continue
        found = [span for inner in here.found.values() for span in inner]
        if not around:
            return sorted(found)
        at = _end(_CLOSE, text, at)
        here = around.pop()
        here.found[here.step] = found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match
    return match.end()


def _value_end(text: str, at: int, steps: Steps) -> int:
    """Return where the value ends that begins at `at`."""
    if text[at] not in "{[":
        return _end(_SCALAR, text, at)
    try:
        return _value_at(text, at)[1]
    except RecursionError:
        # It nests too deeply for this.
        depth = 1
    at += 1
    while depth:
        steps.take()
        piece = _BRACKET.search(text, at)
        assert piece
        at = piece.end()
        depth += bool(piece["open"]) - bool(piece["close"])
    return at
