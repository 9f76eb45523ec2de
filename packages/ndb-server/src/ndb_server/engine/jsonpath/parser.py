"""The grammar of JSONPath (RFC 9535, appendix A), a function for a production or a few of them.

Whether calls of functions are well-typed (section 2.4.3) is decided where they are read.
"""

import json
import re
from functools import lru_cache
from typing import NoReturn

from ndb_protocol import Status

from ...errors import RefusedError
from ...path_size import check_path_size
from .functions import FUNCTIONS
from .query import (
    Comparable,
    Comparison,
    FilterSelector,
    FunctionCall,
    IndexSelector,
    Literal,
    LogicalExpr,
    LogicalNot,
    LogicalOr,
    NameSelector,
    NodesFunctionCall,
    Query,
    Segment,
    Selector,
    SliceSelector,
    WildcardSelector,
)
from .values import parse_number

_BLANK = re.compile(r"[ \t\n\r]*")
_BLANK_OF_SEGMENT = re.compile(r"[ \t\n\r]*(?=[.\[])")
_FIRST = r"A-Za-z_\x80-\ud7ff\ue000-\U0010ffff"
_NAME = re.compile(rf"[{_FIRST}][{_FIRST}0-9]*")
_FUNCTION = re.compile(r"([a-z][a-z_0-9]*)\(")
_INT = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_KEYWORD = re.compile(r"true|false|null")
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>")
# The hexadecimal digits after "\u": a code point, or the two halves of a surrogate pair.
_HEX = (
    r"(?:(?:[0-9A-CEFa-cef][0-9A-Fa-f]|[Dd][0-7])[0-9A-Fa-f]{2}"
    r"|[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2})"
)
_STRING = re.compile(
    rf"""'((?:[ -&(-\[\]-\ud7ff\ue000-\U0010ffff]|\\(?:['bfnrt/\\]|u{_HEX}))*+)'"""
    rf"""|"((?:[ !#-\[\]-\ud7ff\ue000-\U0010ffff]|\\(?:["bfnrt/\\]|u{_HEX}))*+)\""""
)
_ESCAPE = re.compile(rf"\\(?:u{_HEX}|.)")
_MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer of I-JSON: the limit of indexes (section 2.1)."""


@lru_cache(maxsize=64)
def parse_path(path: str) -> Query:
    """Return the query of `path`.

    Raises:
        RefusedError: it does not parse (status 4), or is too long or nests too deeply (42).
    """
    check_path_size(path)
    return _Parser(path).parse()


class _Parser:
    """A recursive-descent parser of one path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0

    def _fail(self, why: str) -> NoReturn:
        raise RefusedError(
            Status.PATH_INVALID,
            f"'path' is not a JSONPath of RFC 9535: at character {self._at + 1}, {why}",
        )

    def _fail_expecting(self, expected: str) -> NoReturn:
        found = repr(self._path[self._at]) if self._at < len(self._path) else "the end"
        self._fail(f"{expected} is expected, not {found}")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._path, self._at)
        if match:
            self._at = match.end()
        return match

    def _accept(self, text: str) -> bool:
        found = self._path.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _accept_after_blank(self, text: str) -> bool:
        self._match(_BLANK)
        return self._accept(text)

    def _expect(self, text: str) -> None:
        if not self._accept_after_blank(text):
            self._fail_expecting(repr(text))

    def parse(self) -> Query:
        """Return the query of the whole path."""
        if not self._accept("$"):
            self._fail_expecting("'$'")
        query = self._query(relative=False)
        if self._at < len(self._path):
            self._fail_expecting("a segment or the end")
        return query

    def _query(self, *, relative: bool) -> Query:
        segments: list[Segment] = []
        singular: list[NameSelector | IndexSelector] = []
        while self._match(_BLANK_OF_SEGMENT):
            begin = self._at
            segment = self._segment()
            segments.append(segment)
            [selector, *others] = segment.selectors
            # A singular query has no blank space inside its brackets (section 2.3.5.1).
            inside = self._path[begin + 1 : self._at - 1]
            one = not (others or segment.is_descendant) and inside == inside.strip(" \t\n\r")
            if one and isinstance(selector, NameSelector | IndexSelector):
                singular.append(selector)
        is_singular = len(singular) == len(segments)
        return Query(tuple(segments), relative, tuple(singular) if is_singular else None)

    def _segment(self) -> Segment:
        is_descendant = self._accept("..")
        if not self._path.startswith("[", self._at):
            if not is_descendant:
                self._expect(".")
            if self._accept("*"):
                return Segment((WildcardSelector(),), is_descendant)
            name = self._match(_NAME)
            if not name:
                self._fail_expecting("a name, '*' or '['" if is_descendant else "a name or '*'")
            return Segment((NameSelector(name[0]),), is_descendant)
        self._expect("[")
        selectors = [self._selector()]
        while self._accept_after_blank(","):
            selectors.append(self._selector())
        self._expect("]")
        return Segment(tuple(selectors), is_descendant)

    def _selector(self) -> Selector:
        self._match(_BLANK)
        if string := self._match(_STRING):
            return NameSelector(_unescape_string(string))
        if self._accept("*"):
            return WildcardSelector()
        if self._accept("?"):
            return FilterSelector(self._logical_expr())
        start = self._int()
        if not self._accept_after_blank(":"):
            if start is None:
                self._fail_expecting("a selector")
            return IndexSelector(start)
        self._match(_BLANK)
        stop = self._int()
        step = None
        if self._accept_after_blank(":"):
            self._match(_BLANK)
            step = self._int()
        return SliceSelector(slice(start, stop, step))

    def _int(self) -> int | None:
        digits = self._match(_INT)
        if not digits:
            return None
        if not -_MAX_SAFE_INTEGER <= float(digits[0]) <= _MAX_SAFE_INTEGER:
            self._fail(f"the index or bound that ends here exceeds {_MAX_SAFE_INTEGER}")
        return int(digits[0])

    def _logical_expr(self) -> LogicalExpr:
        """Parse a logical-expr, with the blank space around it."""
        groups = [[self._basic_expr()]]
        while True:
            if self._accept_after_blank("&&"):
                groups[-1].append(self._basic_expr())
            elif self._accept("||"):
                groups.append([self._basic_expr()])
            elif len(groups) == len(groups[0]) == 1:
                return groups[0][0]
            else:
                return LogicalOr(tuple(map(tuple, groups)))

    def _basic_expr(self) -> LogicalExpr:
        """Parse a basic-expr: in parentheses, or a comparison, or a test."""
        self._match(_BLANK)
        negated = self._accept("!")
        expression: LogicalExpr
        if self._accept_after_blank("("):
            expression = self._logical_expr()
            self._expect(")")
        else:
            left = self._operand()
            self._match(_BLANK)
            if not negated and (operator := self._match(_OPERATOR)):
                self._match(_BLANK)
                right = self._operand()
                if not (_has_value(left) and _has_value(right)):
                    self._fail(
                        "the operand that ends here is not a literal, a query for a single node "
                        "or a function that returns a value"
                    )
                return Comparison(left, operator[0], right)
            if not isinstance(left, Query) and not (
                isinstance(left, FunctionCall) and left.is_logical
            ):
                self._fail("the value that ends here is neither compared nor tested")
            expression = left
        return LogicalNot(expression) if negated else expression

    def _operand(self) -> Comparable:
        """Parse a literal, a query or a function-expr."""
        if self._accept("@"):
            return self._query(relative=True)
        if self._accept("$"):
            return self._query(relative=False)
        if name := self._match(_FUNCTION):
            return self._call(name[1])
        if string := self._match(_STRING):
            return Literal(_unescape_string(string))
        if word := self._match(_KEYWORD):
            return Literal({"true": True, "false": False, "null": None}[word[0]])
        digits = self._match(_NUMBER)
        if not digits:
            self._fail_expecting("a query, a literal or a function")
        short = len(digits[0]) < 20 and not (digits[1] or digits[2])
        return Literal(int(digits[0]) if short else parse_number(digits[0]))

    def _call(self, name: str) -> Comparable:
        function = FUNCTIONS.get(name)
        if function is None:
            self._fail(f"the called function is not one of {', '.join(FUNCTIONS)}")
        arguments: list[Comparable] = []
        for _ in range(function.arity):
            if arguments:
                self._expect(",")
            self._match(_BLANK)
            argument = self._operand()
            fits = isinstance(argument, Query) if function.takes_nodes else _has_value(argument)
            if not fits:
                self._fail(
                    f"the argument of {name}() that ends here is not "
                    + ("a query" if function.takes_nodes else "a value")
                )
            arguments.append(argument)
        self._expect(")")
        if function.takes_nodes:
            [query] = arguments
            assert isinstance(query, Query)
            return NodesFunctionCall(function.run, query)
        return FunctionCall(function.run, tuple(arguments), function.is_logical)


def _has_value(operand: Comparable) -> bool:
    """Return whether `operand` may be compared: it has or is converted to ValueType (2.4.2)."""
    if isinstance(operand, Query):
        return operand.singular is not None
    return not (isinstance(operand, FunctionCall) and operand.is_logical)


def _unescape_string(string: re.Match[str]) -> str:
    return _ESCAPE.sub(_unescape, string[0][1:-1])


def _unescape(escape: re.Match[str]) -> str:
    return "'" if escape[0] == r"\'" else json.loads(f'"{escape[0]}"')
