"""JSONPath (RFC 9535): its grammar, what its queries select, and how its values compare.

`parser` parses a path into a `Query`, and refuses everything that the grammar does not allow.
`query` selects nodes. `compare` compares values in filters, `functions` has the functions of
filters. `values` parses JSON text without rounding numbers. Every loop whose length depends on a
value or a path takes steps.
"""

from .parser import parse_path
from .query import Node, NodePath, Query
from .values import BeyondDoubleError, charge_parsing, parse_value, parse_with_doubles

__all__ = [
    "BeyondDoubleError",
    "Node",
    "NodePath",
    "Query",
    "charge_parsing",
    "parse_path",
    "parse_value",
    "parse_with_doubles",
]
