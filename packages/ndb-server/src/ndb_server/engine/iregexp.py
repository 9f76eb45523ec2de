"""I-Regexp (RFC 9485) in linear time: the patterns of JSONPath's `match` and `search`.

They are run by RE2, which never tries twice: however a pattern and a text are made, each character
of the text is looked at once for each instruction of the pattern's program.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import groupby
from typing import NamedTuple, Protocol

import re2  # type: ignore[import-untyped]

LONGEST = 1000
"""Characters of the longest pattern; more take too long to compile."""

LARGEST = 10_000
"""Instructions of the largest program."""

# A category without a name in RE2 is spelled as all its ranges.
_LONGEST_SPELLED = 2**15


_ESCAPE = r"\\[()*+\-.?\[\\\]^nrt{|}]"
_CATEGORY = r"\\[pP]\{(?:L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|Z[lps]?|S[ckmo]?|C[cfno]?)\}"
_IN_CLASS = rf"(?:[^\-\[\\\]]|{_ESCAPE})"
_PART = rf"(?:{_CATEGORY}|{_IN_CLASS}(?:-{_IN_CLASS})?)"
# What RFC 9485, section 4, calls an atom, a quantifier, and the rest.
_PIECE = re.compile(
    rf"(?P<class>\[(?P<not>\^?)(?P<parts>(?:-|{_PART}){_PART}*-?)\])"
    rf"|(?P<category>{_CATEGORY})"
    rf"|(?P<char>{_ESCAPE}|[^()*+.?\[\\\]{{|}}])"
    r"|(?P<dot>\.)"
    r"|(?P<quantifier>[*+?]|\{(?P<least>[0-9]+)(?:,(?P<most>[0-9]*))?\})"
    r"|(?P<open>\()|(?P<close>\))|(?P<or>\|)",
    re.DOTALL,
)
_PARTS = re.compile(
    rf"(?P<category>{_CATEGORY})|(?P<escape>\\.)|(?P<range>(?!^)-(?!$))|.", re.DOTALL
)


class _Program(Protocol):
    def fullmatch(self, text: bytes) -> object: ...

    def search(self, text: bytes) -> object: ...


class Pattern(NamedTuple):
    """A pattern that can be run.

    Attributes:
        program: what runs it, on UTF-8.
        size: instructions of the program.
    """

    program: _Program
    size: int


class TooLargeError(Exception):
    """A pattern that takes too long to run, or to read."""


def _options() -> re2.Options:
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    options.max_mem = 2**20
    return options


_OPTIONS = _options()


def compile_pattern(pattern: str) -> Pattern | None:
    """Return `pattern`, ready to be run; None if it is not of RFC 9485.

    Raises:
        TooLargeError: it is too long, or counts too far.
    """
    if len(pattern) > LONGEST:
        raise TooLargeError
    return _compile(pattern)


def compiled() -> int:
    """Return how many patterns were compiled so far, and not remembered from before."""
    return _compile.cache_info().misses


@lru_cache(maxsize=256)
def _compile(pattern: str) -> Pattern | None:
    spelled = translated(pattern)
    if spelled is None:
        return None
    if len(spelled) > _LONGEST_SPELLED:
        raise TooLargeError
    try:
        program = re2.compile(spelled.encode(), _OPTIONS)
    except UnicodeEncodeError:
        return None
    except re2.error as error:
        # A range of characters can run backwards, as [z-a] does; all else is right.
        if "range" in str(error):
            return None
        raise TooLargeError from error
    # What runs it backwards may be larger: it finds where a match begins.
    size = max(program._regexp.ProgramSize(), program._regexp.ReverseProgramSize())
    if size > LARGEST:
        raise TooLargeError
    return Pattern(program, size)


def translated(pattern: str) -> str | None:
    """Return `pattern` as RE2 spells it; None if it is not of RFC 9485.

    They differ in what ``.`` is, in how ``^`` and ``-`` stand in classes, and in that RE2 does not
    know the code points that nothing is assigned to (category Cn), which belong to category C too.
    """
    spelled: list[str] = []
    depth = 0
    # Whether a quantifier may stand here.
    countable = False
    at = 0
    while at < len(pattern):
        piece = _PIECE.match(pattern, at)
        if piece is None:
            return None
        at = piece.end()
        kind = piece.lastgroup
        if kind == "quantifier":
            if not countable or _counts_down(piece):
                return None
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if depth < 0:
                return None
        spelled.append(_spelled(kind, piece))
        countable = kind not in ("quantifier", "open", "or")
    return "".join(spelled) if depth == 0 else None


def _counts_down(quantifier: re.Match[str]) -> bool:
    most = quantifier["most"]
    return bool(most) and int(most) < int(quantifier["least"])


def _spelled(kind: str | None, piece: re.Match[str]) -> str:
    if kind == "class":
        parts = "".join(map(_spelled_part, _PARTS.finditer(piece["parts"])))
        return f"[{piece['not']}{parts}]"
    if kind == "category":
        return f"[{_spelled_category(piece[0])}]"
    return r"[^\n\r]" if kind == "dot" else piece[0]


def _spelled_part(part: re.Match[str]) -> str:
    if part["category"]:
        return _spelled_category(part[0])
    if part["escape"] or part["range"] or not part[0].isascii() or part[0].isalnum():
        return part[0]
    return rf"\x{{{ord(part[0]):x}}}"


def _spelled_category(escape: str) -> str:
    name = escape[3:-1]
    return _ranges(name, escape[1] == "p") if name in ("C", "Cn") else escape


@cache
def _ranges(category: str, inside: bool) -> str:
    """Return the code points of a general category of Unicode, or all others, as in a class."""

    def belongs(run: tuple[str, int, int]) -> bool:
        return run[0].startswith(category) == inside

    spans: list[str] = []
    for chosen, runs in groupby(_runs(), belongs):
        if chosen:
            (_, first, last), *more = runs
            spans.append(rf"\x{{{first:x}}}-\x{{{more[-1][2] if more else last:x}}}")
    return "".join(spans)


@cache
def _runs() -> list[tuple[str, int, int]]:
    """Return all code points as runs of one general category, each from one to another."""
    return [
        *_looked_up(0, 0x3FFFF),
        # What is the same as a whole need not be looked at a million times.
        ("Cn", 0x40000, 0xDFFFF),
        *_looked_up(0xE0000, 0xEFFFF),
        ("Co", 0xF0000, 0xFFFFD),
        ("Cn", 0xFFFFE, 0xFFFFF),
        ("Co", 0x100000, 0x10FFFD),
        ("Cn", 0x10FFFE, 0x10FFFF),
    ]


def _looked_up(first: int, last: int) -> Iterator[tuple[str, int, int]]:
    for category, same in groupby(map(unicodedata.category, map(chr, range(first, last + 1)))):
        end = first + len(list(same))
        yield category, first, end - 1
        first = end
