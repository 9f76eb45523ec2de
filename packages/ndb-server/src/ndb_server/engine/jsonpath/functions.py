"""The functions of RFC 9535 (sections 2.4.4 to 2.4.8)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import iregexp
from ..steps import Steps
from .compare import NOTHING
from .query import Node

_COMPILE_STEPS = 250
"""Steps to compile a pattern, in addition to one for each two instructions."""

_MATCH_STEPS = 3
"""Steps to run a pattern, however short the text is."""


def _length(value: Any, _: Steps) -> Any:
    return len(value) if type(value) in {str, list, dict} else NOTHING


def _matches(text: Any, pattern: Any, steps: Steps, *, whole: bool) -> bool:
    if type(text) is not str or type(pattern) is not str:
        return False
    before = iregexp.compilations()
    try:
        compiled = iregexp.compile_pattern(pattern)
    except iregexp.PatternTooLargeError:
        raise steps.refusal() from None
    steps.take(_MATCH_STEPS)
    if iregexp.compilations() > before:
        steps.take(_COMPILE_STEPS + (compiled.size // 2 if compiled else 0))
    if compiled is None:
        return False
    # RE2 does about 250 characters times instructions in a microsecond.
    steps.take(len(text) * compiled.size // 256)
    run = compiled.program.fullmatch if whole else compiled.program.search
    return run(text.encode()) is not None


def _match(text: Any, pattern: Any, steps: Steps) -> bool:
    return _matches(text, pattern, steps, whole=True)


def _search(text: Any, pattern: Any, steps: Steps) -> bool:
    return _matches(text, pattern, steps, whole=False)


def _count(nodes: Sequence[Node]) -> int:
    return len(nodes)


def _value(nodes: Sequence[Node]) -> Any:
    return nodes[0][0] if len(nodes) == 1 else NOTHING


class Function(NamedTuple):
    """A function, and its types (2.4.1).

    Attributes:
        run: executes the function.
        arity: how many parameters it has.
        takes_nodes: whether its one parameter is of NodesType; otherwise all are of ValueType.
        is_logical: whether its result is of LogicalType; otherwise it is of ValueType.
    """

    run: Callable[..., Any]
    arity: int
    takes_nodes: bool = False
    is_logical: bool = False


FUNCTIONS = {
    "length": Function(_length, 1),
    "count": Function(_count, 1, takes_nodes=True),
    "match": Function(_match, 2, is_logical=True),
    "search": Function(_search, 2, is_logical=True),
    "value": Function(_value, 1, takes_nodes=True),
}
