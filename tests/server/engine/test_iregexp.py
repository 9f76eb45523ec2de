"""I-Regexp (RFC 9485): what a pattern matches, and that no pattern takes long to say so."""

import re
import subprocess
import sys
import unicodedata

import pytest
import regex
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from iregexp_check import check
from ndb_server.engine.iregexp import (
    MAX_PATTERN_LENGTH,
    PatternTooLargeError,
    compile_pattern,
    to_re2,
)


def matches(pattern: str, text: str) -> bool:
    compiled = compile_pattern(pattern)
    assert compiled is not None
    return compiled.program.fullmatch(text.encode()) is not None


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("a|b", "b", True),
        ("a|b", "ab", False),
        ("a.c", "a\u2028c", True),
        ("a.c", "a\nc", False),
        ("a.c", "a\rc", False),
        ("[.]", "x", False),
        (r"[\]]", "]", True),
        ("[a-]", "-", True),
        ("[-a]", "-", True),
        ("[^-a]", "b", True),
        (r"\.", "x", False),
        (r"a{2,3}", "aaa", True),
        (r"a{2,}", "a", False),
        (r"a{10}", "a" * 10, True),
        (r"a{10}", "a" * 9, False),
        ("[^]", "^", True),
        (r"(ab)+", "abab", True),
        (r"\p{Lu}\P{L}", "Ä1", True),
        (r"[\p{L}\p{N}]+", "x²", True),
        (r"[^\p{L}]", "x", False),
        (r"\p{Cn}", "\U000e0fff", True),
        (r"\p{Cn}", "x", False),
        (r"\P{Cn}", "x", True),
        (r"[a\p{Cn}]+", "a\U000e0fff", True),
        (r"[^\p{C}]", "\U000e0fff", False),
        (r"\p{C}", "\x00", True),
        (r"[\P{C}]", "x", True),
        (r"\n\r\t", "\n\r\t", True),
        (".", "🙂", True),
        ("[🙁-🙃]", "🙂", True),
        (r"\(\)\[\]\{\}\*\+\?\|\\\^\-", r"()[]{}*+?|\^-", True),
    ],
)
def test_a_pattern_matches_what_it_should(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d",
        r"\w",
        r"(?i)a",
        r"(?:a)",
        r"a*?",
        r"a++",
        r"\1",
        r"\b",
        "a{,2}",
        "[",
        "(",
        "a-z]",
        "[z-a]",
        "a{2,1}",
        r"\p{Xx}",
    ],
)
def test_what_is_no_i_regexp_is_no_pattern(pattern: str) -> None:
    assert compile_pattern(pattern) is None


letters = st.sampled_from("ab\n.🙂é1")
atoms = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "[^.b]", r"\p{L}", r"\P{N}", "🙂", r"\.", "é"]
)
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from("*+?")).map(lambda pair: f"({pair[0]}){pair[1]}"),
        inner.map(lambda one: f"({one}){{1,2}}"),
    ),
    max_leaves=6,
)


@settings(max_examples=500)
@given(patterns, st.text(letters, max_size=6))
def test_it_matches_what_a_backtracking_engine_matches(pattern: str, text: str) -> None:
    dotted = pattern.replace(r"\.", "\0").replace("[^.b]", "\1")
    dotted = dotted.replace(".", r"[^\n\r]").replace("\0", r"\.").replace("\1", "[^.b]")
    try:
        found = matches(pattern, text)
    except PatternTooLargeError:
        # A class of thousands of characters, many times over: refused, which is tested elsewhere.
        reject()
    assert found == bool(regex.fullmatch(dotted, text))


PIECES = [*"ab-^$.[]()*+?{}|,12é", "\\", r"\.", r"\-", r"\^", r"\p{L}", r"\P{Cn}", r"\n", r"\d"]


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_it_takes_the_patterns_that_another_reader_takes(pattern: str) -> None:
    # The other reader takes no count of two digits, nor a class of "^" alone; RFC 9485 has both.
    assume(not re.search(r"\{[0-9]{2}|,[0-9]{2}|\[\^\]", pattern))
    assert (to_re2(pattern) is not None) == (check(pattern) and not counts_down(pattern))


def counts_down(pattern: str) -> bool:
    return "{2,1}" in pattern


@pytest.mark.parametrize(
    "category", ["L", "Lu", "M", "N", "Nd", "P", "S", "Z", "C", "Cn", "Cc", "Co"]
)
def test_a_category_has_the_code_points_of_unicode(category: str) -> None:
    some = [chr(point) for point in range(0, 0x3000, 7) if not 0xD800 <= point < 0xE000]
    # What was assigned after one of the two tables was made differs, and is rare.
    wrong = [
        one
        for one in some
        if matches(rf"\p{{{category}}}", one) != unicodedata.category(one).startswith(category)
    ]
    assert len(wrong) < 20


@pytest.mark.parametrize("category", ["C", "Cn"])
def test_of_what_is_spelled_out_every_code_point_is_as_in_unicode(category: str) -> None:
    spelled = to_re2(rf"\p{{{category}}}")
    assert spelled is not None
    found: set[int] = set()
    for first, last in re.findall(r"\\x\{(\w+)\}-\\x\{(\w+)\}", spelled):
        found.update(range(int(first, 16), int(last, 16) + 1))
    every = range(sys.maxunicode + 1)
    assert found == {
        point for point in every if unicodedata.category(chr(point)).startswith(category)
    }


@pytest.mark.parametrize(
    "pattern",
    [
        "a" * (MAX_PATTERN_LENGTH + 1),
        "(" * 200_000,
        "a{1001}",
        "((a{1,500}){1,500}){1,500}",
        "(" * 20_000 + ")" * 20_000,
        r"\p{Cn}" * 100,
    ],
    ids=["long", "open", "count", "counts of counts", "nested", "ranges"],
)
def test_a_pattern_that_is_too_large_is_refused_and_ends_no_process(pattern: str) -> None:
    # In a process of its own: what must not happen would end this one.
    program = (
        "import sys; from ndb_server.engine.iregexp import compile_pattern, PatternTooLargeError\n"
        "try: compile_pattern(sys.stdin.read())\n"
        "except PatternTooLargeError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pattern, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_the_longest_pattern_of_the_deepest_nesting_is_taken() -> None:
    assert compile_pattern("(" * (MAX_PATTERN_LENGTH // 2) + ")" * (MAX_PATTERN_LENGTH // 2))


@pytest.mark.parametrize("pattern", ["a{1001}", r"\p{Cn}" * 10, r"\p{L}{100}"])
def test_a_pattern_that_counts_too_far_or_has_too_many_ranges_is_refused(pattern: str) -> None:
    with pytest.raises(PatternTooLargeError):
        compile_pattern(pattern)
