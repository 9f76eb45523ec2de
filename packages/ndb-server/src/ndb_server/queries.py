"""JSONPath queries (RFC 9535) whose work is counted, so that none can keep the server to itself.

A short query can ask for more than there is time or memory for: ``$..*..*..*``, or a filter that
looks at everything for each of everything. So each thing done for a query is a step or more of
those that a request has. A step takes a microsecond as a rule, and two at the most.

What counts are the classes of jsonpath-rfc9535 that do the work, with the counting added; a query
that was compiled is made of these instead.
"""

from collections.abc import Iterable
from typing import Any

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathNode, JSONPathNodeList, JSONPathQuery
from jsonpath_rfc9535.filter_expressions import (
    ComparisonExpression,
    Expression,
    FilterContext,
    FilterExpression,
    FilterExpressionLiteral,
    FilterQuery,
    FunctionExtension,
    LogicalExpression,
    PrefixExpression,
    RelativeFilterQuery,
    RootFilterQuery,
)
from jsonpath_rfc9535.function_extensions import ExpressionType, FilterFunction
from jsonpath_rfc9535.segments import (
    JSONPathChildSegment,
    JSONPathRecursiveDescentSegment,
    JSONPathSegment,
)
from jsonpath_rfc9535.selectors import FilterSelector
from ndb_protocol import Status

from . import iregexp
from .errors import RefusedError

_COMPILING = 250
"""Steps that it takes to compile a pattern, beside one for each two instructions."""

_MATCHING = 3
"""Steps that it takes to run a pattern, however short the text is."""


class Steps:
    """The steps that one request after the other may take.

    Args:
        most: how many each may take; 0 for any number.

    Attributes:
        exceeded: how many requests would have taken more.
        spent: how many were taken by the requests that have ended.
    """

    __slots__ = ("_left", "_most", "exceeded", "spent")

    def __init__(self, most: int = 0) -> None:
        self._most = most or 2**62
        self._left = self._most
        self.exceeded = 0
        self.spent = 0

    def end(self) -> None:
        """End a request: the next one has all of them again."""
        self.spent += self._most - self._left
        self._left = self._most

    def take(self, count: int = 1) -> None:
        """Take `count` steps.

        Raises:
            RefusedError: there are no more (status 201).
        """
        self._left -= count
        if self._left < 0:
            raise self.refusal()

    def refusal(self) -> RefusedError:
        """Return the refusal of what would take too many."""
        self.exceeded += 1
        return RefusedError(
            Status.LIMIT_EXCEEDED,
            f"it takes more than {self._most} steps; let 'path' or 'keys' name less, or keep "
            "smaller values",
        )


class Environment(JSONPathEnvironment):
    """Compiles queries that count.

    Attributes:
        steps: what the query that runs may take.
    """

    def __init__(self) -> None:
        self.steps = Steps()
        super().__init__()

    def setup_function_extensions(self) -> None:
        """Put functions that take linear time in place of those that don't."""
        super().setup_function_extensions()
        self.function_extensions["match"] = _Regexp(self, whole=True)
        self.function_extensions["search"] = _Regexp(self, whole=False)

    def compile(self, query: str) -> JSONPathQuery:
        """Return the query that `query` spells."""
        return _counting(super().compile(query))


class _Regexp(FilterFunction):
    """`match` (RFC 9535, section 2.4.6), or `search` (2.4.7)."""

    def __init__(self, environment: Environment, *, whole: bool) -> None:
        self._environment = environment
        self._whole = whole

    @property
    def arg_types(self) -> list[ExpressionType]:
        return [ExpressionType.VALUE, ExpressionType.VALUE]

    @property
    def return_type(self) -> ExpressionType:
        return ExpressionType.LOGICAL

    def __call__(self, text: object, pattern: object) -> bool:
        if not isinstance(text, str) or not isinstance(pattern, str):
            return False
        steps = self._environment.steps
        before = iregexp.compiled()
        try:
            compiled = iregexp.compile_pattern(pattern)
        except iregexp.TooLargeError:
            raise steps.refusal() from None
        steps.take(_MATCHING)
        if iregexp.compiled() > before:
            steps.take(_COMPILING + (compiled.size // 2 if compiled else 0))
        if compiled is None:
            return False
        # RE2 does about 250 characters times instructions in a microsecond.
        steps.take(len(text) * compiled.size // 256)
        encoded = text.encode()
        if self._whole:
            return compiled.program.fullmatch(encoded) is not None
        return compiled.program.search(encoded) is not None


class _Children(JSONPathChildSegment):
    __slots__ = ()

    def resolve(self, nodes: Iterable[JSONPathNode]) -> Iterable[JSONPathNode]:
        take = self.env.steps.take  # type: ignore[attr-defined]
        for node in nodes:
            for selector in self.selectors:
                take(_tries(selector, node))
                for found in selector.resolve(node):
                    take(_way(found))
                    yield found


class _Descendants(JSONPathRecursiveDescentSegment):
    __slots__ = ()

    def resolve(self, nodes: Iterable[JSONPathNode]) -> Iterable[JSONPathNode]:
        take = self.env.steps.take  # type: ignore[attr-defined]
        for node in nodes:
            for visited in self._visit(node):
                for selector in self.selectors:
                    take(_tries(selector, visited))
                    for found in selector.resolve(visited):
                        take(_way(found))
                        yield found

    def _visit(self, node: JSONPathNode, depth: int = 1) -> Iterable[JSONPathNode]:
        # It looks at each child for whether it has children, and goes the whole way for each.
        self.env.steps.take(1 + _length(node.value) // 8 + depth // 8)  # type: ignore[attr-defined]
        return super()._visit(node, depth)


def _tries(selector: object, node: JSONPathNode) -> int:
    return 1 + _length(node.value) if isinstance(selector, FilterSelector) else 1


def _way(node: JSONPathNode) -> int:
    # A node has the whole way to it.
    return 1 + (len(node.location) >> 2)


def _length(value: object) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _begins(query: JSONPathQuery) -> int:
    # Each segment is made ready, whether a node comes to it or not.
    return 1 + len(query.segments) // 4


class _Relative(RelativeFilterQuery):
    __slots__ = ()

    def evaluate(self, context: FilterContext) -> object:
        context.env.steps.take(_begins(self.query))  # type: ignore[attr-defined]
        return super().evaluate(context)


class _Root(RootFilterQuery):
    __slots__ = ()

    def evaluate(self, context: FilterContext) -> object:
        context.env.steps.take(_begins(self.query))  # type: ignore[attr-defined]
        return super().evaluate(context)


class _Function(FunctionExtension):
    __slots__ = ()

    def evaluate(self, context: FilterContext) -> object:
        context.env.steps.take()  # type: ignore[attr-defined]
        return super().evaluate(context)


class _Prefix(PrefixExpression):
    __slots__ = ()

    def evaluate(self, context: FilterContext) -> object:
        context.env.steps.take()  # type: ignore[attr-defined]
        return super().evaluate(context)


class _Comparison(ComparisonExpression):
    """Compares with a literal, which takes no time."""

    __slots__ = ()

    def evaluate(self, context: FilterContext) -> bool:
        context.env.steps.take()  # type: ignore[attr-defined]
        return super().evaluate(context)


class _ComparisonOfNodes(ComparisonExpression):
    """Compares values that may be large, both of them."""

    __slots__ = ()

    def evaluate(self, context: FilterContext) -> bool:
        steps: Steps = context.env.steps  # type: ignore[attr-defined]
        left, right = (_value(side.evaluate(context)) for side in (self.left, self.right))
        steps.take(1 + min(_size(left, steps), _size(right, steps)))
        return super().evaluate(context)


def _value(result: object) -> object:
    if isinstance(result, JSONPathNodeList) and len(result) == 1:
        return result[0].value
    return result


def _size(value: object, steps: Steps) -> int:
    """Return how many steps it takes to compare `value` with one like it."""
    size = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            size += len(one) >> 10
        elif isinstance(one, dict | list):
            # To look is a part of the work.
            steps.take(1 + len(one) // 8)
            size += 1 + len(one)
            waiting += one.values() if isinstance(one, dict) else one
    return size


def _counting(query: JSONPathQuery) -> JSONPathQuery:
    return JSONPathQuery(env=query.env, segments=tuple(map(_counting_segment, query.segments)))


def _counting_segment(segment: JSONPathSegment) -> JSONPathSegment:
    for selector in segment.selectors:
        if isinstance(selector, FilterSelector):
            selector.expression = _counting_expression(selector.expression)
    kind = _Children if isinstance(segment, JSONPathChildSegment) else _Descendants
    return kind(env=segment.env, token=segment.token, selectors=segment.selectors)


def _counting_expression(expression: Any) -> Any:
    match expression:
        case FilterExpression():
            expression.expression = _counting_expression(expression.expression)
        case PrefixExpression():
            return _Prefix(
                expression.token, expression.operator, _counting_expression(expression.right)
            )
        case FunctionExtension():
            arguments = [_counting_expression(argument) for argument in expression.args]
            return _Function(expression.token, expression.name, arguments)
        case FilterQuery():
            kind = _Root if isinstance(expression, RootFilterQuery) else _Relative
            return kind(expression.token, _counting(expression.query))
        case LogicalExpression():
            expression.left = _counting_expression(expression.left)
            expression.right = _counting_expression(expression.right)
        case ComparisonExpression():
            return _counting_comparison(expression)
    return expression


def _counting_comparison(comparison: ComparisonExpression) -> ComparisonExpression:
    sides: list[Expression] = [comparison.left, comparison.right]
    simple = any(isinstance(side, FilterExpressionLiteral) for side in sides)
    left, right = map(_counting_expression, sides)
    kind = _Comparison if simple else _ComparisonOfNodes
    return kind(comparison.token, left, comparison.operator, right)
