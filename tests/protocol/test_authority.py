"""The host of a request, held to the grammar of RFC 3986 written down a second time."""

import re
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb_protocol.authority import parse_authority, parse_host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example:80", ("a.example", 80)),
        ("A.Example.", ("a.example", None)),
        ("a.example:", ("a.example", None)),
        ("[::1]:80", ("::1", 80)),
        ("[FE80::1%eth0]", ("fe80::1%eth0", None)),
        ("[::ffff:192.0.2.1]", ("::ffff:192.0.2.1", None)),
        ("127.0.0.1", ("127.0.0.1", None)),
        ("a:65535", ("a", 65535)),
        ("a%20b", ("a%20b", None)),
    ],
)
def test_a_host_may_have_a_port(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_authority(text) == expected
    assert parse_host(text) == expected[0]


WRONG = [
    "", ":80", "[::1].evil.example", "[::1]evil.example:80", "[::1]80", "[::1", "::1", "[]",
    "[::g]", "[1.2.3.4]", "[v1.a]", "[::1%]", "[::1]:x", "a:x", "a:-1", "a:+1", "a:65536", "a:1:2",
    "a b", "a/b", "a?b", "a#b", "u@a", "u:p@a", "a\\b", "a%2", "a%zz", "a,b c", "\u00e4", "a\n",
    "\x00", "localhost/@evil.example", "localhost:80@evil.example", "a:\u0661", " a", "a ",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_more_or_less_than_a_host_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - IPv6Address says it in its own words
        parse_authority(text)


@pytest.mark.parametrize("text", [".", ".."])
def test_dots_alone_are_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        parse_host(text)


# RFC 3986, section 3.2, production by production.
_UNRESERVED, _SUB_DELIMS = r"[A-Za-z0-9\-._~]", r"[!$&'()*+,;=]"
_REG_NAME = rf"(?:{_UNRESERVED}|%[0-9A-Fa-f][0-9A-Fa-f]|{_SUB_DELIMS})+"
_H16, _LS32 = (
    r"[0-9A-Fa-f]{1,4}",
    r"(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})",
)
_V6 = "|".join(
    [
        rf"(?:{_H16}:){{6}}{_LS32}",
        rf"::(?:{_H16}:){{5}}{_LS32}",
        rf"(?:{_H16})?::(?:{_H16}:){{4}}{_LS32}",
        *(rf"(?:(?:{_H16}:){{0,{n}}}{_H16})?::(?:{_H16}:){{{3 - n}}}{_LS32}" for n in (1, 2, 3)),
        rf"(?:(?:{_H16}:){{0,4}}{_H16})?::{_LS32}",
        rf"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
        rf"(?:(?:{_H16}:){{0,6}}{_H16})?::",
    ]
)
_GRAMMAR = re.compile(rf"(?:\[(?:{_V6})\]|{_REG_NAME})(?::[0-9]*)?")

pieces = st.sampled_from(
    ["[", "]", "::", ":", "1", "ffff", "1.2.3.4", "a", ".", "evil.example", "%41", "%", "@", "80",
     "/", "é", " ", "localhost", "127.0.0.1", "[::1]", "~", ";"]
)  # fmt: skip


@given(st.lists(pieces, max_size=9).map("".join))
def test_it_takes_what_the_grammar_takes_and_nothing_else(text: str) -> None:
    try:
        host, port = parse_authority(text)
    except ValueError:
        if found := _GRAMMAR.fullmatch(text):
            # The grammar bounds neither ports nor the numbers of an IPv4 address in an IPv6 one.
            end = found[0].rpartition(":")[2]
            assert (end.isdigit() and int(end) > 65535) or re.search(r"[0-9]{3}|\.0[0-9]", text)
        return
    assert _GRAMMAR.fullmatch(text)
    if ":" in host:
        IPv6Address(host)
    assert text.lower().startswith((f"[{host}]", host))
    assert port is None or text.endswith((f":{port}", f"0{port}"))
