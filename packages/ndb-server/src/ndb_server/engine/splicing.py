"""Finds the spans of nodes in a JSON text, so that the text around them can be kept unchanged."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .steps import Steps

Location = tuple[str | int, ...]
"""Where a node is: member names and array indexes from the root."""

LocationTree: TypeAlias = "dict[str | int, LocationTree]"
"""Locations as a tree, by their next step. An empty tree is a location's end."""

_STRING = r'"(?:[^"\\]|\\.)*+"'
# The text before a member or an element. The one group is the name of a member, in quotes.
_ITEM_START = re.compile(rf"\s*+[{{\[,]\s*+(?=[^\s\]}}])(?:({_STRING})\s*+:\s*+)?")
_CONTAINER_END = re.compile(r"\s*[{[]?\s*[\]}]")
_SPACE = re.compile(r"\s*")
_SCALAR = re.compile(rf"{_STRING}|[^\s,\]}}]+")
# Numbers stay text, so that it can decode any number.
_value_at = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode
_BRACKET = re.compile(rf"(?P<open>[\[{{])|(?P<close>[\]}}])|{_STRING}")


def location_tree(locations: Sequence[Location]) -> LocationTree:
    """Return the tree of `locations`; of a node and another inside it, only the outer one."""
    top: LocationTree = {}
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

    targets: LocationTree
    count: int = 0
    step: str | int = 0
    found: dict[str | int, list[tuple[int, int]]] = field(default_factory=dict)


def spans(text: str, locations: LocationTree, steps: Steps) -> list[tuple[int, int]]:
    """Return begin and end of the nodes at `locations` below the root of JSON `text`, in order.

    Every character is read once. Of members with the same name, the last one counts, as it does
    when the value is parsed.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    at = _end(_SPACE, text, 0)
    stack: list[_Container] = []
    container = _Container(locations)
    while True:
        item_start = _ITEM_START.match(text, at)
        if item_start:
            steps.take()
            begin = item_start.end()
            container.step = container.count if item_start[1] is None else json.loads(item_start[1])
            container.count += 1
            container.found.pop(container.step, None)
            below = container.targets.get(container.step)
            if below and text[begin] in "{[":
                stack.append(container)
                container = _Container(below)
                at = begin
            else:
                at = _value_end(text, begin, steps)
                if below == {}:
                    container.found[container.step] = [(begin, at)]
            continue
        found = [span for inner in container.found.values() for span in inner]
        if not stack:
            return sorted(found)
        at = _end(_CONTAINER_END, text, at)
        container = stack.pop()
        container.found[container.step] = found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match
    return match.end()


def _value_end(text: str, at: int, steps: Steps) -> int:
    """Return the end of the value that begins at `at`."""
    if text[at] not in "{[":
        return _end(_SCALAR, text, at)
    try:
        return _value_at(text, at)[1]
    except RecursionError:
        # It nests too deeply for the decoder.
        depth = 1
    at += 1
    while depth:
        steps.take()
        bracket = _BRACKET.search(text, at)
        assert bracket
        at = bracket.end()
        depth += bool(bracket["open"]) - bool(bracket["close"])
    return at
