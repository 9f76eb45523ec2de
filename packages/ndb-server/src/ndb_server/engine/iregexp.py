"""I-Regexp (RFC 9485) in linear time: the patterns of JSONPath's `match` and `search`.

RE2 runs the patterns, and never backtracks: it reads each character of the text at most once for
each instruction of the pattern's program.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import groupby
from typing import NamedTuple, Protocol

import re2  # type: ignore[import-untyped]

MAX_PATTERN_LENGTH = 1000
"""The most characters of a pattern; more take too long to compile."""

MAX_PROGRAM_SIZE = 10_000
"""The most instructions of a compiled pattern."""

# RE2 has no names for some categories, and the translation spells them as all their ranges.
_MAX_RE2_LENGTH = 2**15


_ESCAPE = r"\\[()*+\-.?\[\\\]^nrt{|}]"
_CATEGORY = r"\\[pP]\{(?:L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|Z[lps]?|S[ckmo]?|C[cfno]?)\}"
_IN_CLASS = rf"(?:[^\-\[\\\]]|{_ESCAPE})"
_CLASS_PART = rf"(?:{_CATEGORY}|{_IN_CLASS}(?:-{_IN_CLASS})?)"
# A token of RFC 9485, section 4: an atom, a quantifier, a parenthesis or a bar.
_TOKEN = re.compile(
    rf"(?P<class>\[(?P<not>\^?)(?P<parts>(?:-|{_CLASS_PART}){_CLASS_PART}*-?)\])"
    rf"|(?P<category>{_CATEGORY})"
    rf"|(?P<char>{_ESCAPE}|[^()*+.?\[\\\]{{|}}])"
    r"|(?P<dot>\.)"
    r"|(?P<quantifier>[*+?]|\{(?P<least>[0-9]+)(?:,(?P<most>[0-9]*))?\})"
    r"|(?P<open>\()|(?P<close>\))|(?P<or>\|)",
    re.DOTALL,
)
_CLASS_PARTS = re.compile(
    rf"(?P<category>{_CATEGORY})|(?P<escape>\\.)|(?P<range>(?!^)-(?!$))|.", re.DOTALL
)


class _Program(Protocol):
    def fullmatch(self, text: bytes) -> object: ...

    def search(self, text: bytes) -> object: ...


class Pattern(NamedTuple):
    """A compiled pattern.

    Attributes:
        program: runs the pattern on UTF-8.
        size: the number of its instructions.
    """

    program: _Program
    size: int


class PatternTooLargeError(Exception):
    """A pattern takes too long to compile or to run."""


def _options() -> re2.Options:
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    options.max_mem = 2**20
    return options


_OPTIONS = _options()


def compile_pattern(pattern: str) -> Pattern | None:
    """Return `pattern`, compiled; None if RFC 9485 does not allow it.

    Raises:
        PatternTooLargeError: it is too long, or repeats something too often.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternTooLargeError
    return _compile(pattern)


def compilations() -> int:
    """Return how many patterns were compiled so far; those from the cache don't count."""
    return _compile.cache_info().misses


@lru_cache(maxsize=256)
def _compile(pattern: str) -> Pattern | None:
    translated = to_re2(pattern)
    if translated is None:
        return None
    if len(translated) > _MAX_RE2_LENGTH:
        raise PatternTooLargeError
    try:
        program = re2.compile(translated.encode(), _OPTIONS)
    except UnicodeEncodeError:
        return None
    except re2.error as error:
        # A range of characters may be reversed, as in [z-a]; RFC 9485 allows all else.
        if "range" in str(error):
            return None
        raise PatternTooLargeError from error
    # RE2 runs a reversed program to find the begin of a match, and that may be larger.
    size = max(program._regexp.ProgramSize(), program._regexp.ReverseProgramSize())
    if size > MAX_PROGRAM_SIZE:
        raise PatternTooLargeError
    return Pattern(program, size)


def to_re2(pattern: str) -> str | None:
    """Return `pattern` in the syntax of RE2; None if RFC 9485 does not allow it.

    The two differ in the meaning of ``.``, in ``^`` and ``-`` in classes, and in the category of
    unassigned code points (Cn), which is part of category C: RE2 does not have it.
    """
    translated: list[str] = []
    depth = 0
    # Whether a quantifier is allowed here.
    repeatable = False
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            return None
        at = token.end()
        kind = token.lastgroup
        if kind == "quantifier":
            if not repeatable or _is_reversed(token):
                return None
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if depth < 0:
                return None
        translated.append(_token_to_re2(kind, token))
        repeatable = kind not in ("quantifier", "open", "or")
    return "".join(translated) if depth == 0 else None


def _is_reversed(quantifier: re.Match[str]) -> bool:
    most = quantifier["most"]
    return bool(most) and int(most) < int(quantifier["least"])


def _token_to_re2(kind: str | None, token: re.Match[str]) -> str:
    if kind == "class":
        parts = "".join(map(_part_to_re2, _CLASS_PARTS.finditer(token["parts"])))
        return f"[{token['not']}{parts}]"
    if kind == "category":
        return f"[{_category_to_re2(token[0])}]"
    return r"[^\n\r]" if kind == "dot" else token[0]


def _part_to_re2(part: re.Match[str]) -> str:
    if part["category"]:
        return _category_to_re2(part[0])
    if part["escape"] or part["range"] or not part[0].isascii() or part[0].isalnum():
        return part[0]
    return rf"\x{{{ord(part[0]):x}}}"


def _category_to_re2(escape: str) -> str:
    name = escape[3:-1]
    return _ranges(name, escape[1] == "p") if name in ("C", "Cn") else escape


@cache
def _ranges(category: str, inside: bool) -> str:
    """Return the code points of a category of Unicode, or all others, as ranges of a class."""

    def belongs(run: tuple[str, int, int]) -> bool:
        return run[0].startswith(category) == inside

    spans: list[str] = []
    for chosen, runs in groupby(_category_runs(), belongs):
        if chosen:
            (_, first, last), *more = runs
            spans.append(rf"\x{{{first:x}}}-\x{{{more[-1][2] if more else last:x}}}")
    return "".join(spans)


@cache
def _category_runs() -> list[tuple[str, int, int]]:
    """Return all code points as runs of one category: the category, the first and the last."""
    return [
        *_runs_between(0, 0x3FFFF),
        # These planes have one category each, so their code points need no lookup.
        ("Cn", 0x40000, 0xDFFFF),
        *_runs_between(0xE0000, 0xEFFFF),
        ("Co", 0xF0000, 0xFFFFD),
        ("Cn", 0xFFFFE, 0xFFFFF),
        ("Co", 0x100000, 0x10FFFD),
        ("Cn", 0x10FFFE, 0x10FFFF),
    ]


def _runs_between(first: int, last: int) -> Iterator[tuple[str, int, int]]:
    for category, same in groupby(map(unicodedata.category, map(chr, range(first, last + 1)))):
        end = first + len(list(same))
        yield category, first, end - 1
        first = end
