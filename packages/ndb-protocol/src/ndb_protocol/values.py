"""Encoding of values: exactly, or not at all.

A value is accepted only if it comes back equal to what was sent: None, booleans, 64-bit integers,
finite floats, text, and lists (or tuples) and dicts of these with string keys. The available
encoders accept more: they write NaN as ``null``, a UUID as text and an enum member as its value.
Here these are errors that name the place in the value.
"""

import marshal
import math
from typing import Any, cast

import orjson

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**64 - 1
"""The integers that every implementation of the protocol can carry."""

DEPTH_MAX = 254
"""How deep parameters may nest arrays and objects, their own object included (orjson's bound)."""

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_WITHOUT_REFERENCES = 2  # The marshal format that keeps no table of the objects it has seen.
_STEPS_SHOWN = 8


def encode_params(params: dict[str, Any]) -> bytes:
    """Return `params` as JSON text.

    Raises:
        ValueError: a value has no exact JSON form; the message names its place, never the value.
    """
    try:
        text = orjson.dumps(params, option=_OPTIONS)
        # orjson can't be told to refuse UUIDs, enum members and its own fragments. marshal takes
        # plain built-in types and nothing else, at the speed of C.
        marshal.dumps(params, _WITHOUT_REFERENCES)
    except (TypeError, ValueError) as error:
        raise ValueError(_culprit(params) or str(error)) from None
    # NaN and infinity are written as null.
    if b"null" in text and (culprit := _culprit(params)):
        raise ValueError(culprit)
    return text


_Place = tuple["_Place", str | int] | None
"""Where a value is, as the last step and the place before it; None for the parameters' object."""


def _culprit(params: dict[str, Any]) -> str | None:
    """Return a sentence on a value in `params` that can't be encoded, if there is one."""
    containers: list[tuple[Any, _Place, int]] = [(params, None, 1)]
    while containers:
        container, place, depth = containers.pop()
        is_object = type(container) is dict
        for step, value in container.items() if is_object else enumerate(container):
            if is_object and (trouble := _trouble_with_key(step)):
                return f"{_path(place)}: {trouble}"
            if type(value) in {dict, list, tuple}:
                if depth == DEPTH_MAX:
                    return f"{_path((place, step))}: nests deeper than {DEPTH_MAX} levels"
                containers.append((value, (place, step), depth + 1))
            elif trouble := _trouble_with(value):
                return f"{_path((place, step))}: {trouble}"
    return None


def _trouble_with(value: object) -> str | None:
    kind = type(value)
    if value is None or kind is bool:
        return None
    if kind is str:
        return _trouble_with_text(cast(str, value))
    if kind is int:
        if INTEGER_MIN <= cast(int, value) <= INTEGER_MAX:
            return None
        return "an integer beyond 64 bits can't be sent exactly; send it as text"
    if kind is float:
        number = cast(float, value)
        if math.isfinite(number):
            return None
        return f"{'NaN' if math.isnan(number) else 'infinity'} has no JSON form"
    return f"a value of type {kind.__name__} has no JSON form of its own; convert it first"


def _trouble_with_key(key: object) -> str | None:
    if type(key) is not str:
        return f"a key is of type {type(key).__name__}; in JSON, keys are strings"
    return _trouble_with_text(key)


def _trouble_with_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "text with a lone surrogate has no UTF-8 form"
    return None


def _path(place: _Place) -> str:
    steps: list[str | int] = []
    while place is not None:
        place, step = place
        steps.append(step)
    name, *inner = reversed(steps or ["parameters"])
    shown = "".join(f"[{step!a}]" for step in inner[:_STEPS_SHOWN])
    return f"{name}{shown}{'…' if len(inner) > _STEPS_SHOWN else ''}"
