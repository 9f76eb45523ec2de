"""How values compare in a filter (RFC 9535, section 2.3.5.2.2).

Python's own ``==`` can't be used, because ``True == 1``, also inside of lists and dicts.
"""

import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ..steps import Steps
from .values import ExtremeNumber

NOTHING: Any = object()
"""RFC 9535's Nothing: the result of a query without a node, or of a function without a result."""

_NUMBERS = frozenset({int, Decimal, ExtremeNumber})


def equal(left: Any, right: Any, steps: Steps) -> bool:
    """Tell whether two values, or nothing, are equal."""
    stack = [(left, right)]
    while stack:
        left, right = stack.pop()
        kind = type(left)
        if kind is list and type(right) is list:
            steps.take(1 + min(len(left), len(right)))
            if len(left) != len(right):
                return False
            stack += zip(left, right, strict=True)
        elif kind is dict and type(right) is dict:
            steps.take(1 + min(len(left), len(right)))
            if len(left) != len(right):
                return False
            # Names are compared like strings.
            steps.take(sum(map(len, left)) >> 10)
            if left.keys() != right.keys():
                return False
            stack += [(member, right[name]) for name, member in left.items()]
        elif kind is type(right) or (kind in _NUMBERS and type(right) in _NUMBERS):
            steps.take(_comparison_steps(left, right))
            if left != right:
                return False
        else:
            return False
    return True


def less(left: Any, right: Any, steps: Steps) -> bool:
    """Tell whether both are numbers, or both are strings, and the first one is less."""
    kind = type(left)
    if (kind is str and type(right) is str) or (kind in _NUMBERS and type(right) in _NUMBERS):
        steps.take(_comparison_steps(left, right))
        return bool(left < right)
    return False


def _comparison_steps(left: Any, right: Any) -> int:
    """Return how many additional steps it takes to compare two large scalars."""
    if type(left) is str:
        return min(len(left), len(right)) >> 10
    if type(left) is type(right) is not Decimal:
        return 0
    return _number_steps(left) + _number_steps(right)


def _number_steps(number: Any) -> int:
    if type(number) is int:
        # It is converted to a decimal first, which takes long.
        return number.bit_length() >> 6
    return sys.getsizeof(number.order[-1] if type(number) is ExtremeNumber else number) >> 12


OPERATORS: dict[str, Callable[[Any, Any, Steps], bool]] = {
    "==": equal,
    "!=": lambda left, right, steps: not equal(left, right, steps),
    "<": less,
    "<=": lambda left, right, steps: less(left, right, steps) or equal(left, right, steps),
    ">": lambda left, right, steps: less(right, left, steps),
    ">=": lambda left, right, steps: less(right, left, steps) or equal(left, right, steps),
}
