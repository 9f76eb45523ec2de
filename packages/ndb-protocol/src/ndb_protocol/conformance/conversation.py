"""The conversation of one scenario: fills in messages and compares replies, as the README says."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Set
from functools import lru_cache
from typing import Any, get_type_hints

import msgspec
from msgspec import Raw

from ndb_protocol import COMMANDS, SUCCESS, ReplyError, parse_token


class Mismatch(AssertionError):
    """Something differs from what was expected."""


_PLACEHOLDER = re.compile(r"(\{\{[a-z]+[0-9]*(?::[^{}]+)?\}\})")
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRING_OR_SPACE = re.compile(rf"({_STRING})|[ \t\r\n]+")
_STRING_OR_PLACEHOLDER = re.compile(rf"({_STRING})|{_PLACEHOLDER.pattern}")
_TOKEN = re.compile(r"[0-9]+")
_BARE = "\ue000"
"""Marks a placeholder that stands for more than a part of a string."""

_SHOWN = 2000
_decode = msgspec.json.Decoder(dict[str, dict[str, Raw]]).decode

KNOWN_MEMBERS = frozenset(
    member
    for command in COMMANDS.values()
    for reply in command.replies
    for member in get_type_hints(reply)
) - {"m", "stats"}
"""Members that mean something to programs, and that no reply has which need not.

Servers may add others, which clients ignore; `stats` depends on who asks.
"""


def compact(text: str) -> str:
    """Return JSON `text` without insignificant white space."""
    return _STRING_OR_SPACE.sub(lambda found: found[1] or "", text)


def _parts(reply: str) -> tuple[str, dict[str, str]]:
    """Return the name of a reply, and its members as text.

    Raises:
        ReplyError: it is not a reply.
    """
    try:
        [(name, members)] = _decode(reply).items()
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"no reply: {error}") from None
    return name, {member: compact(bytes(raw).decode()) for member, raw in members.items()}


def _quoted(expect: str) -> str:
    """Return `expect` as JSON, with a string for each placeholder that stands for any value."""
    return _STRING_OR_PLACEHOLDER.sub(
        lambda found: found[1] or f'"{_BARE}{found[2]}{_BARE}"', expect
    )


@lru_cache(maxsize=16)
def _expected_parts(expect: str) -> tuple[str, dict[str, str]]:
    name, members = _parts(_quoted(expect))
    bare = {
        member: text.replace(f'"{_BARE}', "").replace(f'{_BARE}"', "")
        for member, text in members.items()
    }
    return name, bare


def _values(reply: str) -> tuple[str, Any]:
    """Return the name of a reply, and its members as values.

    Raises:
        ReplyError: it is not a reply.
    """
    name, _ = _parts(reply)
    return name, json.loads(reply)[name]


class Conversation:
    """The tokens that the replies of one scenario have returned so far.

    Args:
        not_compared: compare replies by what they mean, as values in whatever order and spelling,
            without these of their members, by the replies' names; None compares them to the letter.
    """

    def __init__(self, not_compared: Mapping[str, Collection[str]] | None = None) -> None:
        self._tokens: dict[str, str] = {}
        self._not_compared = not_compared

    def fill(self, send: str) -> str:
        """Return the message to send."""
        return _PLACEHOLDER.sub(lambda found: self._tokens[found[1][2:-2]], send)

    def check(self, expect: str, reply: str, without: str | None = None) -> None:
        """Compare a reply with the one expected, and keep the tokens it brings.

        Args:
            expect: the one expected.
            reply: the one that came.
            without: a member that it must not have.

        Raises:
            Mismatch: they differ.
        """
        try:
            if self._not_compared is None:
                self._compare(*_expected_parts(expect), *_parts(reply))
            else:
                name, expected = _values(_quoted(expect))
                got_name, got = _values(reply)
                self._compare_names(name, got_name)
                not_compared = {*self._not_compared["*"], *self._not_compared.get(name, ())}
                # Members of other replies do no harm.
                known = {member: got[member] for member in got.keys() & expected.keys()}
                self._compare_values(name, expected, known, not_compared)
            if without is not None and without in _parts(reply)[1]:
                raise Mismatch(f"'{without}' is not for this client")
        except (Mismatch, ReplyError) as difference:
            raise Mismatch(
                f"{difference}\nexpected {expect[:_SHOWN]}\n     got {reply[:_SHOWN]}"
            ) from None

    def _compare(
        self, name: str, expected: dict[str, str], got_name: str, got: dict[str, str]
    ) -> None:
        self._compare_names(name, got_name)
        if next(iter(got), None) != "st":
            raise Mismatch("'st' is not the first member")
        for member, text in expected.items():
            if member not in got:
                raise Mismatch(f"'{member}' is missing")
            self._match(member, text, got[member])
        if surplus := (got.keys() - expected.keys()) & KNOWN_MEMBERS:
            raise Mismatch(f"{', '.join(sorted(surplus))}: not in this reply")
        if int(got["st"]) not in SUCCESS and got.get("m", '""') == '""':
            raise Mismatch("'m' is missing or empty")
        if any(token in got.get("m", "") for token in self._tokens.values()):
            raise Mismatch("'m' contains a token")

    @staticmethod
    def _compare_names(name: str, got_name: str) -> None:
        if got_name != name:
            raise Mismatch(f"the reply is named {got_name}, not {name}")

    def _compare_values(self, where: str, expected: Any, got: Any, not_compared: Set[str]) -> None:
        if isinstance(expected, str) and expected.startswith(_BARE):
            self._match(where, expected.strip(_BARE), json.dumps(got, ensure_ascii=False))
        elif isinstance(expected, dict) and isinstance(got, dict):
            if different := (expected.keys() ^ got.keys()) - not_compared:
                raise Mismatch(f"'{where}': {', '.join(sorted(different))}: only one has it")
            for member in expected.keys() - not_compared:
                self._compare_values(member, expected[member], got[member], not_compared)
        elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
            for value, got_value in zip(expected, got, strict=True):
                self._compare_values(where, value, got_value, not_compared)
        elif (type(expected) is bool) is not (type(got) is bool) or expected != got:
            raise Mismatch(f"'{where}': not {json.dumps(expected)}")

    def _match(self, member: str, expect: str, text: str) -> None:
        at = 0
        try:
            for part in _PLACEHOLDER.split(expect):
                at = self._match_part(part, text, at)
            if at != len(text):
                raise Mismatch(f"more than expected at {at}")
        except Mismatch as difference:
            raise Mismatch(f"'{member}': {difference}") from None

    def _match_part(self, part: str, text: str, at: int) -> int:
        if not _PLACEHOLDER.match(part):
            if not text.startswith(part, at):
                raise Mismatch(f"not {part[:80]!r} at {at}")
            return at + len(part)
        what, _, detail = part[2:-2].partition(":")
        if not detail:
            return self._match_token(what, text, at)
        value, end = _decoder.raw_decode(text, at)
        if what == "naming":
            if not (isinstance(value, str) and detail in value):
                raise Mismatch(f"no string that names {detail!r}")
        elif what == "listing":
            if not (isinstance(value, list) and detail in value):
                raise Mismatch(f"no array that lists {detail!r}")
        elif what == "having":
            if not (isinstance(value, dict) and _is_positive(value.get(detail))):
                raise Mismatch(f"no object that has {detail!r}, a number above 0")
        elif not _KINDS[detail](value):
            raise Mismatch(f"no {detail}")
        return end

    def _match_token(self, name: str, text: str, at: int) -> int:
        found = _TOKEN.match(text, at)
        if not found or not parse_token(found[0]):
            raise Mismatch("no token")
        if name not in self._tokens and found[0] in self._tokens.values():
            raise Mismatch("the token of another session")
        known = self._tokens.setdefault(name, found[0])
        if known != found[0]:
            raise Mismatch(f"not the token {name}")
        return found.end()


_decoder = json.JSONDecoder()


def _is_uint(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "uint": _is_uint,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
