"""Session tokens (docs/reference/protocol/messages.md): unsigned 64-bit integers, never 0."""

import re
import secrets

TOKEN_MAX = 2**64 - 1
NO_TOKEN = 0
"""What stands for "not a token"; never the token of a session."""

_TEXT = re.compile(r"[1-9][0-9]{0,19}\Z", re.ASCII)


def new_token() -> int:
    """Return a random token, 1 to 2^64-1, from the operating system's secure source."""
    return secrets.randbelow(TOKEN_MAX) + 1


def parse_token(value: object) -> int:
    """Return the token that `value` is, as an integer or as decimal text, or `NO_TOKEN`.

    Booleans and floats are not tokens, nor is text with a sign, leading zeros or white space:
    a token has one text form.
    """
    if isinstance(value, str):
        value = int(value) if _TEXT.match(value) else NO_TOKEN
    if type(value) is int and NO_TOKEN < value <= TOKEN_MAX:
        return value
    return NO_TOKEN
