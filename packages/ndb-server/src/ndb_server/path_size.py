"""The limits on the size of a JSONPath, which are checked before anything else is done with it."""

import re

from ndb_protocol import Status

from .errors import RefusedError

MAX_PATH_LENGTH = 4096
"""The most characters of a path."""

MAX_PATH_DEPTH = 100
"""The most levels of brackets and parentheses in a path: each nests some function calls."""

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*+'?|"(?:[^"\\]|\\.)*+"?""", re.DOTALL)


class PathTooLargeError(RefusedError):
    """A path exceeds the limit named `limit`."""

    def __init__(self, limit: str, what: str) -> None:
        super().__init__(Status.VALUE_SIZE, f"'path' {what}")
        self.limit = limit


def check_path_size(path: str) -> None:
    """Check that `path` is not too long, and does not nest too deeply.

    Raises:
        PathTooLargeError: it is or does (status 42).
    """
    if len(path) > MAX_PATH_LENGTH:
        raise PathTooLargeError(
            "path_length", f"has {len(path)} characters; {MAX_PATH_LENGTH} are allowed"
        )
    if (
        path.count("[") + path.count("(") > MAX_PATH_DEPTH
        and (depth := _depth(path)) > MAX_PATH_DEPTH
    ):
        raise PathTooLargeError(
            "path_depth",
            f"nests brackets and parentheses {depth} levels deep; {MAX_PATH_DEPTH} are allowed",
        )


def _depth(path: str) -> int:
    depth = deepest = 0
    for character in _QUOTED.sub("", path):
        depth += (character in "[(") - (character in "])")
        deepest = max(deepest, depth)
    return deepest
