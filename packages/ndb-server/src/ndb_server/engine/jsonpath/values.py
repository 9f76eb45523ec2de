"""JSON text as Python values, with exact numbers and any depth of nesting.

An object is a dict; of members with the same name it has the last. An array is a list. A number is
an int, a `Decimal`, or an `ExtremeNumber` if a `Decimal` can't have its exponent. All three can be
compared with each other.
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

SortKey = tuple[int, Decimal, Decimal]


def _sort_key(number: Decimal, shift: Decimal | int = 0) -> SortKey:
    """Return the sort key of `number` times 10 to the power of `shift`."""
    if not number:
        return 0, number, number
    exponent = _EXACT.add(number.adjusted(), shift)
    digits = number.scaleb(-number.adjusted(), _EXACT)
    return (-1, exponent.copy_negate(), digits) if number < 0 else (1, exponent, digits)


@total_ordering
class ExtremeNumber:
    """A number whose exponent a `Decimal` can't have, such as ``1e1000000000000000000``."""

    __slots__ = ("order",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        digits, _, exponent = text.lower().partition("e")
        self.order = _sort_key(Decimal(digits), Decimal(exponent))

    def __eq__(self, other: object) -> bool:
        return self.order == _sort_key_of(other)

    def __lt__(self, other: object) -> bool:
        return self.order < _sort_key_of(other)


def _sort_key_of(number: Any) -> SortKey:
    return number.order if isinstance(number, ExtremeNumber) else _sort_key(Decimal(number))


def parse_number(text: str) -> Decimal | ExtremeNumber:
    """Return the number of the JSON text `text`."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return ExtremeNumber(text)


class BeyondDoubleError(Exception):
    """A number is beyond the range of a double."""


def _double(text: str) -> float:
    if isinf(double := float(text)):
        raise BeyondDoubleError("a number in it is beyond the range of a double")
    return double


_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_decode_with_doubles = msgspec.json.Decoder().decode
_UNREADABLE = (msgspec.MsgspecError, InvalidOperation, RecursionError)
"""Errors of both for an integer of thousands of digits, a large exponent or deep nesting."""


# Maps a text to the characters that `charge_parsing` counts, one for each kind, and drops all
# others. Commas and quotes stay, so that they still separate their neighbours.
_KINDS = bytes.maketrans(b"123456789eE", b"000000000..")
_NO_KIND = bytes(set(range(256)) - set(b'[{:,"0123456789.eE'))


def charge_parsing(text: bytes, steps: Steps) -> None:
    """Take the steps to parse JSON `text`: for its length, and for its arrays, objects and numbers.

    The contents of strings may count too.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    length = len(text) // 100
    if not length:
        # The steps to begin with are enough for so little.
        return
    # First, because the rest reads the whole text.
    steps.take(length)
    kinds = text.translate(_KINDS, _NO_KIND)
    # Many arrays start the garbage collector again and again, and so do objects in objects. A
    # number with a fraction or an exponent becomes a `Decimal`. A member becomes a dict entry.
    thirtyseconds = (
        16 * kinds.count(b"[")
        + 4 * kinds.count(b"{")
        + 8 * kinds.count(b":{")
        + 4 * kinds.count(b"0.")
        + 2 * kinds.count(b":")
    )
    steps.take(thirtyseconds >> 5)


def parse_value(text: bytes, steps: Steps) -> Any:
    """Return the value of JSON `text`.

    Raises:
        RefusedError: it takes too many `steps` (201).
    """
    charge_parsing(text, steps)
    try:
        return _decode(text)
    except _UNREADABLE:
        return _parse_slowly(text, parse_number, steps)


def parse_with_doubles(text: bytes, steps: Steps) -> Any:
    """Return the value of JSON `text`, with all numbers except integers rounded to doubles.

    Raises:
        BeyondDoubleError: a number with a fraction or an exponent is beyond the range of a double.
        RefusedError: it takes too many `steps` (201).
    """
    charge_parsing(text, steps)
    try:
        return _decode_with_doubles(text)
    except _UNREADABLE:
        return _parse_slowly(text, _double, steps)


def _parse_slowly(text: bytes, parse_float: Callable[[str], Any], steps: Steps) -> Any:
    steps.take(len(text) // 16)
    decode = json.JSONDecoder(parse_float=parse_float, parse_int=Decimal).decode
    try:
        return decode(text.decode())
    except RecursionError:
        return _parse_deep(text.decode(), decode, steps)


# A bracket; a string, which is the name of a member if a colon follows; any other scalar.
_TOKEN = re.compile(r'[\[{]|[\]}]|(?P<string>"(?:[^"\\]|\\.)*+")\s*+(?P<colon>:)?|[^\s,\[\]{}]+')


def _parse_deep(text: str, decode: Callable[[str], Any], steps: Steps) -> Any:
    """Return the value of `text`, however deep it nests."""
    top: list[Any] = []
    stack: list[Any] = []
    container: Any = top
    name = ""
    for token in _TOKEN.finditer(text):
        steps.take()
        if token["colon"]:
            name = decode(token["string"])
        elif token[0] in "]}":
            container = stack.pop()
        else:
            opens = token[0] in "[{"
            value = ([] if token[0] == "[" else {}) if opens else decode(token[0])
            if isinstance(container, list):
                container.append(value)
            else:
                container[name] = value
            if opens:
                stack.append(container)
                container = value
    return top[0]
