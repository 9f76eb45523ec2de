"""What was said in one scenario: fills messages in and compares replies, as the README says."""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, get_type_hints

import msgspec
from msgspec import Raw

from ndb_protocol import COMMANDS, SUCCESS, ReplyError, parse_token


class Mismatch(AssertionError):
    """Something that is not what was expected."""


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


@lru_cache(maxsize=16)
def _expected_parts(expect: str) -> tuple[str, dict[str, str]]:
    quoted = _STRING_OR_PLACEHOLDER.sub(
        lambda found: found[1] or f'"{_BARE}{found[2]}{_BARE}"', expect
    )
    name, members = _parts(quoted)
    bare = {
        member: text.replace(f'"{_BARE}', "").replace(f'{_BARE}"', "")
        for member, text in members.items()
    }
    return name, bare


class Conversation:
    """What the replies of one scenario have told so far: its tokens."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}

    def fill(self, send: str) -> str:
        """Return the message to send."""
        return _PLACEHOLDER.sub(lambda found: self._tokens[found[1][2:-2]], send)

    def check(self, expect: str, reply: str) -> None:
        """Compare a reply with the one expected, and keep the tokens it brings.

        Raises:
            Mismatch: they differ.
        """
        try:
            self._compare(*_expected_parts(expect), *_parts(reply))
        except (Mismatch, ReplyError) as difference:
            raise Mismatch(
                f"{difference}\nexpected {expect[:_SHOWN]}\n     got {reply[:_SHOWN]}"
            ) from None

    def _compare(
        self, name: str, expected: dict[str, str], got_name: str, got: dict[str, str]
    ) -> None:
        if got_name != name:
            raise Mismatch(f"the reply is named {got_name}, not {name}")
        if next(iter(got), None) != "st":
            raise Mismatch("'st' is not the first member")
        for member, text in expected.items():
            if member not in got:
                raise Mismatch(f"'{member}' is missing")
            self._match(member, text, got[member])
        if surplus := (got.keys() - expected.keys()) & KNOWN_MEMBERS:
            raise Mismatch(f"{', '.join(sorted(surplus))}: not in this reply")
        if int(got["st"]) not in SUCCESS and got.get("m", '""') == '""':
            raise Mismatch("no sentence for a human")
        if any(token in got.get("m", "") for token in self._tokens.values()):
            raise Mismatch("a token in the sentence for a human")

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
