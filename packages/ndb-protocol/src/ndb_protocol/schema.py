"""The messages as JSON Schema (draft 2020-12), from the types that the codec uses.

msgspec describes those types as the codec's short way reads them, where tokens end at int64 and
arrays have no elements to ignore. What the protocol lets a parameter be is said here for each
`Rule`; a test holds schemas and codec to the same verdict on every vector.

No keyword is used that draft 7 has not, apart from ``$defs``: AsyncAPI 3 builds on that draft.
"""

import inspect
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from . import messages as m
from .commands import COMMANDS, COMMON_STATUSES, Command
from .requests import NO_COMMAND
from .status import SUCCESS, Status
from .subprotocols import PROTOCOL_VERSION
from .tokens import TOKEN_MAX

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLACE = "#/$defs/"
"""The prefix of a definition's name in a reference to it."""


def json_schema() -> Schema:
    """Return the schema of any message; its definitions have each request and each reply."""
    return {
        "$schema": DIALECT,
        "title": f"The wire protocol of NDB, version {PROTOCOL_VERSION}",
        "description": (
            "Any message. A request is defined under the name of its command, such as SH_GET, and "
            "a reply under its own name, such as SH_GET_RSP. This version has no events."
        ),
        "anyOf": [_ref("AnyRequest"), _ref("AnyReply")],
        "$defs": definitions(),
    }


def definitions() -> dict[str, Schema]:
    """Return the schemas of all messages and of their parts, by name."""
    requests = {
        row.name: _message(row.name, _ref(row.params.__name__)) for row in COMMANDS.values()
    }
    replies = {row.reply_name: _message(row.reply_name, _body(row)) for row in COMMANDS.values()}
    replies[NO_COMMAND] = _message(NO_COMMAND, _ref("Failure"))
    replies["NoSuchCommand"] = _NO_SUCH_COMMAND
    return {
        "AnyRequest": {"anyOf": [_ref(name) for name in requests]},
        "AnyReply": {"anyOf": [_ref(name) for name in replies]},
        **requests,
        **replies,
        "Failure": _FAILURE,
        "Token": _TOKEN,
        **_structs(),
    }


def _ref(name: str) -> Schema:
    return {"$ref": PLACE + name}


def _message(name: str, body: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {name: body},
        "required": [name],
        "additionalProperties": False,
    }


def _body(command: Command) -> Schema:
    [success] = SUCCESS.intersection(command.statuses)
    failures = sorted({*command.statuses, *COMMON_STATUSES} - SUCCESS)
    return {
        "description": (
            f"{command.summary} It succeeds with {success:d} and fails with "
            f"{', '.join(str(int(status)) for status in failures)}, or with a status that a later "
            "server adds."
        ),
        "anyOf": [
            *({"allOf": [_ref(reply.__name__), _with(success)]} for reply in command.replies),
            _ref("Failure"),
        ],
    }


def _with(status: Status) -> Schema:
    return {"type": "object", "properties": {"st": {"const": int(status)}}}


_FAILURE: Schema = {
    "title": "Failure",
    "description": "A status other than success, and a human-readable sentence.",
    "type": "object",
    "properties": {
        "st": {"type": "integer", "minimum": 0, "not": {"enum": sorted(map(int, SUCCESS))}},
        "m": {"type": "string", "minLength": 1},
    },
    "required": ["st", "m"],
}

_NO_SUCH_COMMAND: Schema = {
    "title": "NoSuchCommand",
    "description": "The reply to a command that does not exist, under the name that was sent.",
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "propertyNames": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,63}_RSP$"},
    "additionalProperties": {"allOf": [_ref("Failure"), _with(Status.COMMAND_NOT_EXIST)]},
}


def _digits_up_to(maximum: int) -> str:
    """Return a pattern of the decimal digits of 1 to `maximum`, without leading zeros."""
    digits = str(maximum)
    # As long and equal up to a place where the digit is less, or shorter, or the same.
    forms = [
        f"{digits[:at]}[{'0' if at else '1'}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > (0 if at else 1)
    ]
    return f"^([1-9][0-9]{{0,{len(digits) - 2}}}|{'|'.join(forms)}|{digits})$"


_TOKEN: Schema = {
    "title": "Token",
    "description": (
        "A session's token, a number or its decimal digits. In replies it is text on the "
        "subprotocol ndb.v1.text, otherwise a number; in requests it may always be either."
    ),
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": TOKEN_MAX},
        {"type": "string", "pattern": _digits_up_to(TOKEN_MAX)},
    ],
}

_KEY_NAMES: Schema = {
    "type": "array",
    "description": "Names of keys; elements that are not strings are ignored.",
}
_PARAMETERS: dict[m.Rule, Schema] = {
    m.TOKEN: _ref("Token"),
    m.TOKENS: {"type": "array", "description": "Tokens; other elements are ignored."},
    m.ONLY_TOKENS: {"type": "array", "items": _ref("Token"), "minItems": 1},
    m.KEY_VALUES: {"type": "object", "description": "Values by their keys."},
    m.KEY_NAMES: _KEY_NAMES,
    m.SEARCHED_KEY_NAMES: {
        "type": "array",
        "description": "Names of the keys to search, all if it is empty; elements that are not "
        "strings are ignored.",
    },
    m.SOME_KEY_NAMES: {**_KEY_NAMES, "minItems": 1},
    m.KEY: {"type": "string"},
    m.PATH: {"type": "string", "minLength": 1, "description": "A JSONPath (RFC 9535)."},
    m.FIND_RESPONSE: {"type": "string", "enum": list(m.FIND_RESPONSES)},
    m.VALUE: {"description": "Any value."},
    m.ITEMS: {"type": "array", "description": "Any values."},
    # Regular expressions of ECMA 262, where $ stands for the end alone.
    m.NAME: {"type": "string", "pattern": m.NAME_PATTERN.removesuffix(r"(?!\n)")},
    m.DURATION: {"type": "integer", "minimum": 0, "maximum": m.DURATION_MAX},
    m.FLAG: {"type": "boolean"},
    m.EXPIRY: _ref("Expiry"),
}
"""What a parameter may be, by the rule that reads it."""


def _structs() -> dict[str, Schema]:
    """Return the schemas of the values of messages: of parameters and of successful replies."""
    types = {t: None for row in COMMANDS.values() for t in (row.params, *row.replies)}
    _, described = msgspec.json.schema_components(types, ref_template=f"{PLACE}{{name}}")
    return {name: _struct(getattr(m, name), described[name]) for name in sorted(described)}


def _struct(struct: type[Struct], described: Schema) -> Schema:
    members: dict[str, Schema] = described["properties"]
    if issubclass(struct, m.Params):
        rules = m.rules_of(struct)
        properties = {name: _parameter(rules[name], members[name]) for name in members}
        required = described["required"]
    else:
        # `m` belongs to failures; of the others, what is unset at first may be absent.
        fields = [field for field in msgspec.structs.fields(struct) if field.name != "m"]
        properties = {field.name: _member(members[field.name]) for field in fields}
        required = [field.name for field in fields if field.default is not UNSET]
    schema = {"title": struct.__name__, "type": "object", "properties": properties}
    if "description" in described:
        # The first paragraph; what follows is about attributes.
        schema["description"] = inspect.cleandoc(described["description"]).split("\n\n")[0]
    return schema | ({"required": required} if required else {})


def _parameter(rule: m.Rule, described: Schema) -> Schema:
    default = {"default": described["default"]} if "default" in described else {}
    return _PARAMETERS[rule] | default


def _member(described: Schema) -> Schema:
    """Return the schema of a member of a reply: no number on the wire is negative."""
    match described:
        case {"anyOf": [{"type": "integer"}, {"type": "string"}]}:
            return _ref("Token")
        case {"type": "integer" | "number" as kind}:
            return {"type": kind, "minimum": 0}
        case {"items": items}:
            return {"type": "array", "items": _member(items)}
        case _:
            return {word: value for word, value in described.items() if word != "default"}
