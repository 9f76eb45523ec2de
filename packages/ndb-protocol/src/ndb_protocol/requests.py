"""Requests: message bytes to a command with typed parameters, and parameters to message bytes.

Nearly every message is plainly right, and one typed decode takes it. Whatever that decode does not
accept is read again, step by step in the order of checks of docs/reference/protocol/messages.md, to
find out what to answer; this second way also takes what the first can't express, such as tokens
sent as text and arrays with elements to ignore.
"""

import re
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from .commands import COMMANDS, Command
from .messages import EXPIRY, TOKEN, Expiry, Params, Rule, rules_of
from .status import Status
from .tokens import NO_TOKEN
from .values import encode_params


class RequestError(Exception):
    """A message that is not a request the server can run.

    Attributes:
        reply_name: the member under which to answer; ``ERR`` if no command can be named.
        status: why, as a status value.
        message: why, as a sentence that names what is wrong and what to do.
    """

    def __init__(self, reply_name: str, status: Status, message: str) -> None:
        super().__init__(message)
        self.reply_name = reply_name
        self.status = status
        self.message = message


NO_COMMAND = "ERR"
"""The reply's name where the request names no command."""


def encode_request(name: str, params: dict[str, Any]) -> bytes:
    """Return the message that asks for command `name`.

    Raises:
        ValueError: a value in `params` has no exact JSON form; the message names its place.
    """
    return b'{"%b":%b}' % (name.encode(), encode_params(params))


_USABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z", re.ASCII)


def _envelope(command: Command) -> msgspec.json.Decoder[Any]:
    # `forbid_unknown_fields` because a request has one member and no more.
    return msgspec.json.Decoder(
        msgspec.defstruct(
            f"{command.name}_Request",
            [("params", command.params, msgspec.field(name=command.name))],
            forbid_unknown_fields=True,
            gc=False,
        )
    )


_SHORT_WAY = {
    name.encode(): (command, _envelope(command).decode) for name, command in COMMANDS.items()
}


def decode_request(message: bytes) -> tuple[Command, Params]:
    """Return the command and the parameters of `message`, which is valid UTF-8.

    Raises:
        RequestError: `message` is not a request; the first of the order of checks that failed.
    """
    # What may be the name after `{"`; whether it is, the decoder finds out.
    known = _SHORT_WAY.get(message[2 : message.find(b'"', 2)])
    if known is not None:
        command, decode = known
        try:
            return command, decode(message).params
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    return _read_request(message)


_as_raw = msgspec.json.Decoder(Raw).decode
_as_object = msgspec.json.Decoder(dict[str, Raw]).decode


def _read_request(message: bytes) -> tuple[Command, Params]:
    try:
        # msgspec does not look into the strings of a value it keeps raw.
        message.decode()
        _as_raw(message)
        request = _as_object(message)
    except msgspec.ValidationError:
        raise RequestError(
            NO_COMMAND,
            Status.COMMAND_SYNTAX,
            'the message is not an object; send {"COMMAND": {…}}',
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(
            NO_COMMAND, Status.JSON_INVALID, f"the message is not JSON: {error}"
        ) from None
    except RecursionError:
        raise RequestError(
            NO_COMMAND, Status.JSON_INVALID, "the message nests arrays and objects too deeply"
        ) from None
    if len(request) != 1:
        raise RequestError(
            NO_COMMAND,
            Status.COMMAND_SYNTAX,
            f"the message has {len(request)} members; send exactly one command",
        )
    [(name, body)] = request.items()
    command = COMMANDS.get(name)
    if command is None:
        usable = _USABLE_NAME.match(name)
        raise RequestError(
            f"{name}_RSP" if usable else NO_COMMAND,
            Status.COMMAND_NOT_EXIST,
            f"there is no command {name if usable else 'of that name'}; names are upper case",
        )
    try:
        members = _as_object(body)
    except msgspec.ValidationError:
        raise RequestError(
            command.reply_name,
            Status.COMMAND_TYPE,
            f"the value of {name} is not an object of parameters",
        ) from None
    return command, _read_params(command, command.params, members)


class _Field(NamedTuple):
    name: str
    required: bool
    rule: Rule


def _fields(params: type[Params]) -> tuple[_Field, ...]:
    rules = rules_of(params)
    return tuple(
        _Field(field.name, field.required, rules[field.name])
        for field in msgspec.structs.fields(params)
    )


_PARAMS: set[type[Params]] = {Expiry}.union(row.params for row in COMMANDS.values())
_FIELDS = {params: _fields(params) for params in _PARAMS}


def _read_params(
    command: Command, params: type[Params], members: dict[str, Raw], within: str = ""
) -> Params:
    fields = _FIELDS[params]

    def refuse(status: Status, field: _Field, what: str) -> RequestError:
        return RequestError(command.reply_name, status, f"'{within}{field.name}' {what}")

    for field in fields:
        if field.required and field.name not in members and field.rule is not TOKEN:
            raise refuse(Status.PARAM_MISSING, field, f"is missing; it must be {field.rule.must}")
    values: dict[str, Any] = {}
    for field in fields:
        raw = members.get(field.name)
        if raw is None:
            if field.rule is TOKEN:
                # A missing token is answered as an unknown one is (section 2).
                values[field.name] = NO_TOKEN
            continue
        try:
            values[field.name] = field.rule.read(raw)
        except (msgspec.MsgspecError, RecursionError):
            raise refuse(Status.VALUE_TYPE_INVALID, field, f"must be {field.rule.must}") from None
    for field in fields:
        if field.name not in values:
            continue
        if not field.rule.bound(values[field.name]):
            raise refuse(field.rule.status, field, f"must be {field.rule.within}")
        if field.rule is EXPIRY:
            values[field.name] = _read_params(
                command, Expiry, values[field.name], f"{within}{field.name}."
            )
    return params(**values)
