"""RFC 9535 in the simplest way there is: what a query selects, from its parts, without a parser.

A query is `(root, segments)`, where root is "$" or "@"; a segment is `(descends, selectors)`. A
selector, a condition and a comparable are tuples that begin with what they are;
`jsonpath_generator` makes them, and spells them. Numbers of a document are fractions.
"""

import re
from fractions import Fraction
from typing import Any

Location = tuple[str | int, ...]
Node = tuple[Location, Any]
Part = tuple[Any, ...]

NOTHING = object()


def nodes(query: Part, current: Any, root: Any) -> list[Node]:
    beginning, segments = query
    found: list[Node] = [((), root if beginning == "$" else current)]
    for descends, selectors in segments:
        visited = [below for node in found for below in visits(node)] if descends else found
        found = [one for node in visited for part in selectors for one in select(part, node, root)]
    return found


def visits(node: Node) -> list[Node]:
    return [node, *(below for child in children(node) for below in visits(child))]


def children(node: Node) -> list[Node]:
    location, value = node
    if isinstance(value, dict):
        return [((*location, name), child) for name, child in value.items()]
    if isinstance(value, list):
        return [((*location, index), child) for index, child in enumerate(value)]
    return []


def select(selector: Part, node: Node, root: Any) -> list[Node]:
    location, value = node
    match selector:
        case ("name", name) if kind(value) == "object" and name in value:
            return [((*location, name), value[name])]
        case ("wildcard",):
            return children(node)
        case ("index", index) if kind(value) == "array":
            return elements(node, [index + len(value) if index < 0 else index])
        case ("slice", start, end, step) if kind(value) == "array":
            return elements(node, sliced(len(value), start, end, step))
        case ("filter", condition):
            return [child for child in children(node) if holds(condition, child[1], root)]
    return []


def elements(node: Node, indexes: list[int]) -> list[Node]:
    location, value = node
    return [((*location, at), value[at]) for at in indexes if 0 <= at < len(value)]


def sliced(length: int, start: int | None, end: int | None, step: int | None) -> list[int]:
    """Section 2.3.4.2.2, as it stands there."""
    step = 1 if step is None else step
    if step == 0:
        return []
    if start is None:
        start = 0 if step >= 0 else length - 1
    if end is None:
        end = length if step >= 0 else -length - 1
    n_start = start if start >= 0 else length + start
    n_end = end if end >= 0 else length + end
    if step > 0:
        lower, upper = min(max(n_start, 0), length), min(max(n_end, 0), length)
        return [at for at in range(length) if lower <= at < upper and (at - lower) % step == 0]
    upper, lower = min(max(n_start, -1), length - 1), min(max(n_end, -1), length - 1)
    return [
        at for at in reversed(range(length)) if lower < at <= upper and (upper - at) % -step == 0
    ]


def holds(condition: Part, current: Any, root: Any) -> bool:
    match condition:
        case ("or", parts):
            return any(holds(part, current, root) for part in parts)
        case ("and", parts):
            return all(holds(part, current, root) for part in parts)
        case ("not", part):
            return not holds(part, current, root)
        case ("exists", query):
            return len(nodes(query, current, root)) > 0
        case ("compare", left, operator, right):
            return compare(value_of(left, current, root), operator, value_of(right, current, root))
        case ("match" | "search" as name, text, pattern):
            text, pattern = value_of(text, current, root), value_of(pattern, current, root)
            if not (isinstance(text, str) and isinstance(pattern, str)):
                return False
            if "\\" in pattern:
                # Of the texts there are, the only one that is no pattern.
                return False
            run = re.fullmatch if name == "match" else re.search
            return run(pattern.replace(".", r"[^\n\r]"), text) is not None
    raise AssertionError(condition)


def value_of(comparable: Part, current: Any, root: Any) -> Any:
    match comparable:
        case ("literal", _, value):
            return value
        case ("query", query):
            found = nodes(query, current, root)
            return found[0][1] if found else NOTHING
        case ("length", of):
            value = value_of(of, current, root)
            return Fraction(len(value)) if kind(value) in {"string", "array", "object"} else NOTHING
        case ("count", query):
            return Fraction(len(nodes(query, current, root)))
        case ("value", query):
            found = nodes(query, current, root)
            return found[0][1] if len(found) == 1 else NOTHING
    raise AssertionError(comparable)


KINDS = {bool: "boolean", str: "string", list: "array", dict: "object", Fraction: "number"}


def kind(value: Any) -> str:
    if value is None:
        return "null"
    return "nothing" if value is NOTHING else KINDS[type(value)]


def compare(left: Any, operator: str, right: Any) -> bool:
    match operator:
        case "==":
            return equal(left, right)
        case "!=":
            return not equal(left, right)
        case "<":
            return less(left, right)
        case "<=":
            return less(left, right) or equal(left, right)
        case ">":
            return less(right, left)
        case ">=":
            return less(right, left) or equal(left, right)
    raise AssertionError(operator)


def equal(left: Any, right: Any) -> bool:
    if kind(left) != kind(right):
        return False
    match kind(left):
        case "array":
            return len(left) == len(right) and all(map(equal, left, right))
        case "object":
            return set(left) == set(right) and all(equal(left[name], right[name]) for name in left)
    return bool(left == right)


def less(left: Any, right: Any) -> bool:
    if kind(left) == kind(right) == "string":
        return [*map(ord, left)] < [*map(ord, right)]
    return kind(left) == kind(right) == "number" and bool(left < right)
