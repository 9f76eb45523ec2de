"""JSON text as Python values, with exact numbers and any depth of nesting.

Objects are dicts, of members with one name the last; arrays are lists. A number is an int, or a
`Decimal`, or a `Vast` where the exponent is beyond that. All three compare with each other.
"""

import json
import re
from collections.abc import Callable
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from functools import total_ordering
from math import isinf
from typing import Any

import msgspec

from ..steps import Steps

# Rounds nothing.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)

Order = tuple[int, Decimal, Decimal]


def _order(number: Decimal, shift: Decimal | int = 0) -> Order:
    """Return what orders `number` times 10 to the power of `shift` among all numbers."""
    if not number:
        return 0, number, number
    exponent = _EXACT.add(number.adjusted(), shift)
    digits = number.scaleb(-number.adjusted(), _EXACT)
    return (-1, exponent.copy_negate(), digits) if number < 0 else (1, exponent, digits)


@total_ordering
class Vast:
    """A number whose exponent a `Decimal` can't have, such as ``1e1000000000000000000``."""

    __slots__ = ("order",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        digits, _, exponent = text.lower().partition("e")
        self.order = _order(Decimal(digits), Decimal(exponent))

    def __eq__(self, other: object) -> bool:
        return self.order == _order_of(other)

    def __lt__(self, other: object) -> bool:
        return self.order < _order_of(other)


def _order_of(number: Any) -> Order:
    return number.order if isinstance(number, Vast) else _order(Decimal(number))


def number(text: str) -> Decimal | Vast:
    """Return the number that `text` spells in JSON."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Vast(text)


class BeyondDoubleError(Exception):
    """A number is beyond the range of a double."""


def _double(text: str) -> float:
    if isinf(double := float(text)):
        raise BeyondDoubleError("a number in it is beyond the range of a double")
    return double


_quick = msgspec.json.Decoder(float_hook=Decimal).decode
_quick_doubles = msgspec.json.Decoder().decode
_UNREADABLE = (msgspec.MsgspecError, InvalidOperation, RecursionError)
"""What these two raise for an integer of thousands of digits, a vast exponent, or much nesting."""


# What tells how much a text makes, each kind as one character; all else is left out, so that little
# is to be counted. Commas and quotes keep apart what they part.
_KINDS = bytes.maketrans(b"123456789eE", b"000000000..")
_NO_KIND = bytes(set(range(256)) - set(b'[{:,"0123456789.eE'))


def charge(text: bytes, steps: Steps) -> None:
    """Take the steps that it takes to read JSON `text`: for its length, and for what it makes.

    What stands in a string may count like what does not.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    length = len(text) // 100
    if not length:
        # It makes so little that the steps to begin with are enough.
        return
    # First, as the rest looks at the whole text.
    steps.take(length)
    kinds = text.translate(_KINDS, _NO_KIND)
    # Many arrays set off the garbage collector again and again, and so do objects in objects. A
    # number with a fraction or an exponent is made a `Decimal`. A member is put into a table.
    thirtyseconds = (
        16 * kinds.count(b"[")
        + 4 * kinds.count(b"{")
        + 8 * kinds.count(b":{")
        + 4 * kinds.count(b"0.")
        + 2 * kinds.count(b":")
    )
    steps.take(thirtyseconds >> 5)


def read(text: bytes, steps: Steps) -> Any:
    """Return the value that JSON `text` spells.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    charge(text, steps)
    try:
        return _quick(text)
    except _UNREADABLE:
        return _slow(text, number, steps)


def read_doubles(text: bytes, steps: Steps) -> Any:
    """Return the value that JSON `text` spells, its numbers rounded to doubles but for integers.

    Raises:
        BeyondDoubleError: a number with a fraction or an exponent is beyond the range of a double.
        RefusedError: it takes too many `steps` (201).
    """
    charge(text, steps)
    try:
        return _quick_doubles(text)
    except _UNREADABLE:
        return _slow(text, _double, steps)


def _slow(text: bytes, parse_float: Callable[[str], Any], steps: Steps) -> Any:
    steps.take(len(text) // 16)
    decode = json.JSONDecoder(parse_float=parse_float, parse_int=Decimal).decode
    try:
        return decode(text.decode())
    except RecursionError:
        return _deep(text.decode(), decode, steps)


# An object or array begins or ends; a string, which names a member if a colon follows; any other.
_PIECE = re.compile(r'[\[{]|[\]}]|(?P<string>"(?:[^"\\]|\\.)*+")\s*+(?P<colon>:)?|[^\s,\[\]{}]+')


def _deep(text: str, decode: Callable[[str], Any], steps: Steps) -> Any:
    """Return the value that `text` spells, however deep it nests."""
    top: list[Any] = []
    around: list[Any] = []
    here: Any = top
    name = ""
    for piece in _PIECE.finditer(text):
        steps.take()
        if piece["colon"]:
            name = decode(piece["string"])
        elif piece[0] in "]}":
            here = around.pop()
        else:
            opens = piece[0] in "[{"
            value = ([] if piece[0] == "[" else {}) if opens else decode(piece[0])
            if isinstance(here, list):
                here.append(value)
            else:
                here[name] = value
            if opens:
                around.append(here)
                here = value
    return top[0]
