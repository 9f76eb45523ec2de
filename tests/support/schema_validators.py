"""Validators of JSON Schema, with regular expressions as ECMA 262 defines them."""

import json
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import regress
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from ndb_protocol.schema import definitions

DEFINITIONS = definitions()


def _pattern(_: Validator, pattern: str, text: Any, __: Any) -> Iterator[ValidationError]:
    # Python's own `$` lets a line feed pass.
    if isinstance(text, str) and regress.Regex(pattern, "u").find(text) is None:
        yield ValidationError(f"{text!r} does not match {pattern!r}")


def with_ecma_patterns(draft: type[Validator]) -> type[Validator]:
    """Return the validator class `draft` with regular expressions of ECMA 262."""
    extended: type[Validator] = extend(draft, {"pattern": _pattern})  # type: ignore[no-untyped-call]
    return extended


_Validator = with_ecma_patterns(Draft202012Validator)


@cache
def validator(name: str) -> Validator:
    """Return the validator of a definition."""
    schema: dict[str, Any] = {"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS}
    return _Validator(schema)


def _integer(digits: str) -> int | Decimal:
    # Python reads no integer of thousands of digits; nothing on the wire needs one to be told.
    return int(digits) if len(digits) < 100 else Decimal(digits)


def parse(text: str) -> Any:
    """Return the value of JSON `text`; a number with a fraction or exponent is no integer."""
    return json.loads(text, parse_float=Decimal, parse_int=_integer)


def is_valid(name: str, text: str) -> bool:
    """Tell whether JSON `text` is valid by a definition."""
    return validator(name).is_valid(parse(text))


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from parts(part)
