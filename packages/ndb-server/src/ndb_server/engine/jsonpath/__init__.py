"""JSONPath (RFC 9535): its grammar, what its queries select, and how its values compare.

`parser` reads a path into a `Query`, and takes nothing that the grammar does not allow. `query`
finds the nodes. `compare` holds the tables of ``==`` and ``<``, `functions` the functions of
filters. `values` reads JSON text so that no number is rounded. Every loop that a value or a path
can make long takes steps.
"""

from .parser import DEEPEST, LONGEST, TooLargeError, check_size, parse_path
from .query import Node, Query, Trail
from .values import BeyondDoubleError, charge, read, read_doubles

__all__ = [
    "DEEPEST",
    "LONGEST",
    "BeyondDoubleError",
    "Node",
    "Query",
    "TooLargeError",
    "Trail",
    "charge",
    "check_size",
    "parse_path",
    "read",
    "read_doubles",
]
