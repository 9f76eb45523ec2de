"""A query (RFC 9535, section 2): what it is made of, and the nodes that it selects in a value.

No function here recurses into values, so a value may nest to any depth. Only filters inside filters
recurse, and the parser limits their depth.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..steps import Steps
from .compare import NOTHING, OPERATORS

NodePath: TypeAlias = "tuple[NodePath, str | int] | None"
"""The location of a node: its parent's path, and its name or index there; None for the root."""

Node: TypeAlias = tuple[Any, NodePath]
"""A value and its location."""


class Context(NamedTuple):
    """What a query runs with: the root (``$``), and the steps it may take."""

    root: Any
    steps: Steps


class Selector(Protocol):
    """A selector (2.3): adds the children of a node that it selects to `found`."""

    def select(self, node: Node, context: Context, found: list[Node]) -> None: ...


def _size(value: Any) -> int:
    return len(value) if type(value) is dict or type(value) is list else 0


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if type(value) is dict:
        return value.items()
    return enumerate(value) if type(value) is list else ()


@dataclass(frozen=True, slots=True)
class NameSelector:
    """A name selector (2.3.1)."""

    name: str

    def child_of(self, value: Any) -> Any:
        """Return the member of `value`, or `NOTHING`."""
        return value.get(self.name, NOTHING) if type(value) is dict else NOTHING

    def select(self, node: Node, context: Context, found: list[Node]) -> None:
        context.steps.take()
        value, node_path = node
        child = self.child_of(value)
        if child is not NOTHING:
            found.append((child, (node_path, self.name)))


@dataclass(frozen=True, slots=True)
class IndexSelector:
    """An index selector (2.3.3)."""

    index: int

    def child_of(self, value: Any) -> Any:
        """Return the element of `value`, or `NOTHING`."""
        if type(value) is list and -len(value) <= self.index < len(value):
            return value[self.index]
        return NOTHING

    def select(self, node: Node, context: Context, found: list[Node]) -> None:
        context.steps.take()
        value, node_path = node
        child = self.child_of(value)
        if child is not NOTHING:
            found.append((child, (node_path, self.index % len(value))))


@dataclass(frozen=True, slots=True)
class WildcardSelector:
    """A wildcard selector (2.3.2)."""

    def select(self, node: Node, context: Context, found: list[Node]) -> None:
        value, node_path = node
        context.steps.take(1 + _size(value))
        found += [(child, (node_path, step)) for step, child in _items(value)]


@dataclass(frozen=True, slots=True)
class SliceSelector:
    """An array slice selector (2.3.4); a step of 0 selects nothing."""

    bounds: slice

    def select(self, node: Node, context: Context, found: list[Node]) -> None:
        value, node_path = node
        indices = range(0)
        if type(value) is list and self.bounds.step != 0:
            indices = range(*self.bounds.indices(len(value)))
        context.steps.take(1 + len(indices))
        found += [(value[index], (node_path, index)) for index in indices]


class LogicalExpr(Protocol):
    """A logical expression (2.3.5.1): true or false for the current node (``@``) of a filter."""

    def is_true(self, current: Any, context: Context) -> bool: ...


@dataclass(frozen=True, slots=True)
class FilterSelector:
    """A filter selector (2.3.5)."""

    expression: LogicalExpr

    def select(self, node: Node, context: Context, found: list[Node]) -> None:
        value, node_path = node
        context.steps.take(1 + _size(value))
        is_true = self.expression.is_true
        for step, child in _items(value):
            if is_true(child, context):
                context.steps.take()
                found.append((child, (node_path, step)))


@dataclass(frozen=True, slots=True)
class Segment:
    """A child segment (2.5.1), or a descendant segment (2.5.2)."""

    selectors: tuple[Selector, ...]
    is_descendant: bool

    def apply(self, nodes: Sequence[Node], context: Context) -> list[Node]:
        found: list[Node] = []
        for node in _descendants(nodes, context) if self.is_descendant else nodes:
            for selector in self.selectors:
                selector.select(node, context, found)
        return found


def _descendants(nodes: Sequence[Node], context: Context) -> Iterator[Node]:
    """Yield `nodes` and those of their descendants that have children, parents first."""
    for top in nodes:
        stack = [top]
        while stack:
            node = stack.pop()
            value, node_path = node
            context.steps.take(1 + _size(value) // 4)
            yield node
            inner = [(child, (node_path, step)) for step, child in _items(value) if _size(child)]
            inner.reverse()
            stack += inner


@dataclass(frozen=True, slots=True)
class Query:
    """A query from the root (``$``), or from the current node of a filter (``@``).

    Attributes:
        segments: its segments.
        relative: whether it begins at the current node.
        singular: its selectors, if it selects at most one node (2.3.5.1); otherwise None.
    """

    segments: tuple[Segment, ...]
    relative: bool
    singular: tuple[NameSelector | IndexSelector, ...] | None

    def run(self, root: Any, steps: Steps) -> list[Node]:
        """Return the nodes that the query selects in the value `root`, in the order of RFC 9535.

        Raises:
            RefusedError: it takes too many `steps` (201).
        """
        return self.nodes(root, Context(root, steps))

    def nodes(self, current: Any, context: Context) -> list[Node]:
        """Return the nodes that the query selects."""
        context.steps.take(1 + len(self.segments) // 4)
        nodes: list[Node] = [(current if self.relative else context.root, None)]
        for segment in self.segments:
            nodes = segment.apply(nodes, context)
        return nodes

    def value(self, current: Any, context: Context) -> Any:
        """Return the value of the one node that a singular query selects, or `NOTHING`."""
        assert self.singular is not None
        context.steps.take(1 + len(self.singular) // 4)
        value = current if self.relative else context.root
        for selector in self.singular:
            value = selector.child_of(value)
        return value

    def is_true(self, current: Any, context: Context) -> bool:
        """Return whether the query selects a node, whatever the node's value."""
        if self.singular is not None:
            return self.value(current, context) is not NOTHING
        return bool(self.nodes(current, context))


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal value in the path."""

    literal: Any

    def value(self, _: Any, __: Context) -> Any:
        return self.literal


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function with its arguments (2.4), and whether its result is true or false."""

    function: Callable[..., Any]
    arguments: "tuple[Comparable, ...]"
    is_logical: bool

    def value(self, current: Any, context: Context) -> Any:
        """Return the result, or `NOTHING`."""
        context.steps.take()
        values = [argument.value(current, context) for argument in self.arguments]
        return self.function(*values, context.steps)

    def is_true(self, current: Any, context: Context) -> bool:
        """Return the result of a function whose result is true or false."""
        return bool(self.value(current, context))


@dataclass(frozen=True, slots=True)
class NodesFunctionCall:
    """A function whose argument is a list of nodes."""

    function: Callable[[list[Node]], Any]
    query: Query

    def value(self, current: Any, context: Context) -> Any:
        """Return the result, or `NOTHING`."""
        context.steps.take()
        return self.function(self.query.nodes(current, context))


Comparable: TypeAlias = Literal | Query | FunctionCall | NodesFunctionCall


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison (2.3.5.2.2)."""

    left: Comparable
    operator: str
    right: Comparable

    def is_true(self, current: Any, context: Context) -> bool:
        context.steps.take()
        left, right = self.left.value(current, context), self.right.value(current, context)
        return OPERATORS[self.operator](left, right, context.steps)


@dataclass(frozen=True, slots=True)
class LogicalNot:
    """The negation of a logical expression."""

    expression: LogicalExpr

    def is_true(self, current: Any, context: Context) -> bool:
        context.steps.take()
        return not self.expression.is_true(current, context)


@dataclass(frozen=True, slots=True)
class LogicalOr:
    """A disjunction of conjunctions: ``||`` between the groups, ``&&`` inside each group."""

    groups: tuple[tuple[LogicalExpr, ...], ...]

    def is_true(self, current: Any, context: Context) -> bool:
        for group in self.groups:
            for expression in group:
                if not expression.is_true(current, context):
                    break
            else:
                return True
        return False
