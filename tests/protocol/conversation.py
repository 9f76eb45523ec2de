"""Runs the steps of a vector: fills requests in and compares replies, as the README says."""

import json
import re
from collections.abc import Callable
from typing import Any

from ndb_protocol import parse_token


class Mismatch(AssertionError):
    """A reply that is not the one expected."""


_PLACEHOLDER = re.compile(r"(\{\{[a-z]+[0-9]*(?::[^{}]+)?\}\})")
_STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
_TOKEN = re.compile(r"[0-9]+")
_MESSAGE = re.compile(r'^\{"\w+":\{"st":[0-9]+,"m":("(?:[^"\\]|\\.)*")')

_FOR_ADMINISTRATORS = re.compile(r',"stats":\{[^{}]*\}(?=\}\}$)')
"""A last member that some clients are told and others are not."""


def compact(text: str) -> str:
    """Return JSON `text` without insignificant white space."""
    return _STRING_OR_SPACE.sub(lambda found: found[1] or "", text)


class Conversation:
    """What the replies of one vector have told so far: its tokens."""

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
        text, at = _FOR_ADMINISTRATORS.sub("", compact(reply)), 0
        for part in _PLACEHOLDER.split(compact(expect)):
            try:
                at = self._match(part, text, at)
            except Mismatch as difference:
                raise Mismatch(
                    f"{difference} at {at}:\nexpected {expect[:2000]}\n     got {text[:2000]}"
                ) from None
        if at != len(text):
            raise Mismatch(f"more than expected:\nexpected {expect[:2000]}\n     got {text[:2000]}")
        message = _MESSAGE.match(text)
        if message and any(token in message[1] for token in self._tokens.values()):
            raise Mismatch(f"a token in the sentence for a human: {text}")

    def _match(self, part: str, text: str, at: int) -> int:
        if not _PLACEHOLDER.match(part):
            if not text.startswith(part, at):
                raise Mismatch(f"not {part[:80]!r}")
            return at + len(part)
        what, _, detail = part[2:-2].partition(":")
        if not detail:
            return self._match_token(what, text, at)
        try:
            value, end = _decoder.raw_decode(text, at)
        except ValueError:
            raise Mismatch("no JSON value") from None
        if what == "naming":
            if not (isinstance(value, str) and detail in value):
                raise Mismatch(f"no string that names {detail!r}")
        elif not _KINDS[detail](value):
            raise Mismatch(f"no {detail}")
        return end

    def _match_token(self, name: str, text: str, at: int) -> int:
        found = _TOKEN.match(text, at)
        if not found or not parse_token(found[0]):
            raise Mismatch("no token")
        known = self._tokens.setdefault(name, found[0])
        if known != found[0]:
            raise Mismatch(f"not the token {name}")
        return found.end()


_decoder = json.JSONDecoder()


def _is_uint(value: Any) -> bool:
    return type(value) is int and value >= 0


_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "uint": _is_uint,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
