"""The grammar of JSONPath (RFC 9535, appendix A), a function for a production or a few of them.

Whether calls of functions are well-typed (section 2.4.3) is decided where they are read.
"""

import json
import re
from functools import lru_cache
from typing import NoReturn

from ndb_protocol import Status

from ...errors import RefusedError
from .functions import FUNCTIONS
from .query import (
    AnyOfAll,
    Call,
    CallOfNodes,
    Comparable,
    Comparison,
    Condition,
    Filter,
    Index,
    Literal,
    Name,
    Not,
    Query,
    Segment,
    Selector,
    Slice,
    Wildcard,
)
from .values import number

LONGEST = 4096
"""Characters of the longest path."""

DEEPEST = 100
"""Levels of brackets and parentheses in a path: each takes some calls to read and to follow."""

_BLANK = re.compile(r"[ \t\n\r]*")
_BLANK_OF_SEGMENT = re.compile(r"[ \t\n\r]*(?=[.\[])")
_FIRST = r"A-Za-z_\x80-\ud7ff\ue000-\U0010ffff"
_NAME = re.compile(rf"[{_FIRST}][{_FIRST}0-9]*")
_FUNCTION = re.compile(r"([a-z][a-z_0-9]*)\(")
_INT = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"true|false|null")
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>")
# What follows on "\u": a code point of its own, or two halves of a pair.
_HEX = (
    r"(?:(?:[0-9A-CEFa-cef][0-9A-Fa-f]|[Dd][0-7])[0-9A-Fa-f]{2}"
    r"|[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2})"
)
_STRING = re.compile(
    rf"""'((?:[ -&(-\[\]-\ud7ff\ue000-\U0010ffff]|\\(?:['bfnrt/\\]|u{_HEX}))*+)'"""
    rf"""|"((?:[ !#-\[\]-\ud7ff\ue000-\U0010ffff]|\\(?:["bfnrt/\\]|u{_HEX}))*+)\""""
)
_ESCAPE = re.compile(rf"\\(?:u{_HEX}|.)")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*+'?|"(?:[^"\\]|\\.)*+"?""", re.DOTALL)
_SAFE = 2**53 - 1
"""The largest integer that I-JSON carries: the bound of indexes (section 2.1)."""


class TooLargeError(RefusedError):
    """A path is larger than a limit, which has the name `limit`."""

    def __init__(self, limit: str, what: str) -> None:
        super().__init__(Status.VALUE_SIZE, f"'path' {what}")
        self.limit = limit


def check_size(path: str) -> None:
    """See that `path` is not too long, and does not nest too deeply.

    Raises:
        TooLargeError: it is or does (status 42).
    """
    if len(path) > LONGEST:
        raise TooLargeError("path_length", f"has {len(path)} characters; {LONGEST} are allowed")
    if path.count("[") + path.count("(") > DEEPEST and (depth := _depth(path)) > DEEPEST:
        raise TooLargeError(
            "path_depth",
            f"nests brackets and parentheses {depth} levels deep; {DEEPEST} are allowed",
        )


def _depth(path: str) -> int:
    depth = deepest = 0
    for character in _QUOTED.sub("", path):
        depth += (character in "[(") - (character in "])")
        deepest = max(deepest, depth)
    return deepest


@lru_cache(maxsize=64)
def parse_path(path: str) -> Query:
    """Return the query that `path` spells.

    Raises:
        RefusedError: it does not parse (status 4), or is too long or nests too deeply (42).
    """
    check_size(path)
    return _Parser(path).whole()


class _Parser:
    """Reads one path, from its beginning to its end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0

    def _refuse(self, why: str) -> NoReturn:
        raise RefusedError(
            Status.PATH_INVALID,
            f"'path' is not a JSONPath of RFC 9535: at character {self._at + 1}, {why}",
        )

    def _refuse_other_than(self, expected: str) -> NoReturn:
        found = repr(self._path[self._at]) if self._at < len(self._path) else "the end"
        self._refuse(f"{expected} is expected, not {found}")

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._path, self._at)
        if match:
            self._at = match.end()
        return match

    def _takes(self, text: str) -> bool:
        found = self._path.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _takes_after_blank(self, text: str) -> bool:
        self._take(_BLANK)
        return self._takes(text)

    def _expect(self, text: str) -> None:
        if not self._takes_after_blank(text):
            self._refuse_other_than(repr(text))

    def whole(self) -> Query:
        """Return the query that is the whole path."""
        if not self._takes("$"):
            self._refuse_other_than("'$'")
        query = self._query(relative=False)
        if self._at < len(self._path):
            self._refuse_other_than("a segment or the end")
        return query

    def _query(self, *, relative: bool) -> Query:
        segments: list[Segment] = []
        singular: list[Name | Index] = []
        while self._take(_BLANK_OF_SEGMENT):
            begin = self._at
            segment = self._segment()
            segments.append(segment)
            [selector, *others] = segment.selectors
            # Inside of its brackets a singular query has no blank (section 2.3.5.1).
            inside = self._path[begin + 1 : self._at - 1]
            one = not (others or segment.descends) and inside == inside.strip(" \t\n\r")
            if one and isinstance(selector, Name | Index):
                singular.append(selector)
        is_singular = len(singular) == len(segments)
        return Query(tuple(segments), relative, tuple(singular) if is_singular else None)

    def _segment(self) -> Segment:
        descends = self._takes("..")
        if not self._path.startswith("[", self._at):
            if not descends:
                self._expect(".")
            if self._takes("*"):
                return Segment((Wildcard(),), descends)
            name = self._take(_NAME)
            if not name:
                self._refuse_other_than("a name, '*' or '['" if descends else "a name or '*'")
            return Segment((Name(name[0]),), descends)
        self._expect("[")
        selectors = [self._selector()]
        while self._takes_after_blank(","):
            selectors.append(self._selector())
        self._expect("]")
        return Segment(tuple(selectors), descends)

    def _selector(self) -> Selector:
        self._take(_BLANK)
        if string := self._take(_STRING):
            return Name(_spelled(string))
        if self._takes("*"):
            return Wildcard()
        if self._takes("?"):
            return Filter(self._logical())
        start = self._int()
        if not self._takes_after_blank(":"):
            if start is None:
                self._refuse_other_than("a selector")
            return Index(start)
        self._take(_BLANK)
        stop = self._int()
        step = None
        if self._takes_after_blank(":"):
            self._take(_BLANK)
            step = self._int()
        return Slice(slice(start, stop, step))

    def _int(self) -> int | None:
        digits = self._take(_INT)
        if not digits:
            return None
        if not -_SAFE <= float(digits[0]) <= _SAFE:
            self._refuse(f"the index or bound that ends here exceeds {_SAFE}")
        return int(digits[0])

    def _logical(self) -> Condition:
        """Read a logical-expr, with the blank around it."""
        groups = [[self._basic()]]
        while True:
            if self._takes_after_blank("&&"):
                groups[-1].append(self._basic())
            elif self._takes("||"):
                groups.append([self._basic()])
            elif len(groups) == len(groups[0]) == 1:
                return groups[0][0]
            else:
                return AnyOfAll(tuple(map(tuple, groups)))

    def _basic(self) -> Condition:
        """Read a basic-expr: in parentheses, or a comparison, or a test."""
        self._take(_BLANK)
        negated = self._takes("!")
        condition: Condition
        if self._takes_after_blank("("):
            condition = self._logical()
            self._expect(")")
        else:
            left = self._operand()
            self._take(_BLANK)
            if not negated and (operator := self._take(_OPERATOR)):
                self._take(_BLANK)
                right = self._operand()
                if not (_has_value(left) and _has_value(right)):
                    self._refuse(
                        "the operand that ends here is not a literal, a query for a single node "
                        "or a function that returns a value"
                    )
                return Comparison(left, operator[0], right)
            if not isinstance(left, Query) and not (isinstance(left, Call) and left.is_logical):
                self._refuse("the value that ends here is neither compared nor tested")
            condition = left
        return Not(condition) if negated else condition

    def _operand(self) -> Comparable:
        """Read a literal, a query or a function-expr."""
        if self._takes("@"):
            return self._query(relative=True)
        if self._takes("$"):
            return self._query(relative=False)
        if name := self._take(_FUNCTION):
            return self._call(name[1])
        if string := self._take(_STRING):
            return Literal(_spelled(string))
        if word := self._take(_WORD):
            return Literal({"true": True, "false": False, "null": None}[word[0]])
        digits = self._take(_NUMBER)
        if not digits:
            self._refuse_other_than("a query, a literal or a function")
        short = len(digits[0]) < 20 and not (digits[1] or digits[2])
        return Literal(int(digits[0]) if short else number(digits[0]))

    def _call(self, name: str) -> Comparable:
        function = FUNCTIONS.get(name)
        if function is None:
            self._refuse(f"the called function is not one of {', '.join(FUNCTIONS)}")
        arguments: list[Comparable] = []
        for _ in range(function.arity):
            if arguments:
                self._expect(",")
            self._take(_BLANK)
            argument = self._operand()
            fits = isinstance(argument, Query) if function.takes_nodes else _has_value(argument)
            if not fits:
                self._refuse(
                    f"the argument of {name}() that ends here is not "
                    + ("a query" if function.takes_nodes else "a value")
                )
            arguments.append(argument)
        self._expect(")")
        if function.takes_nodes:
            [query] = arguments
            assert isinstance(query, Query)
            return CallOfNodes(function.run, query)
        return Call(function.run, tuple(arguments), function.is_logical)


def _has_value(operand: Comparable) -> bool:
    """Tell whether `operand` may be compared: whether it is of ValueType, or made one (2.4.2)."""
    if isinstance(operand, Query):
        return operand.singular is not None
    return not (isinstance(operand, Call) and operand.is_logical)


def _spelled(string: re.Match[str]) -> str:
    return _ESCAPE.sub(_unescaped, string[0][1:-1])


def _unescaped(escape: re.Match[str]) -> str:
    return "'" if escape[0] == r"\'" else json.loads(f'"{escape[0]}"')
