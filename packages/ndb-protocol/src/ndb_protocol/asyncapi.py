"""The protocol as an AsyncAPI 3 document: the server, its one channel and what goes over it.

The document describes the server: it receives requests and sends replies, each of them the answer
to one request. It sends nothing else; the names of events are reserved, but there are none yet.
"""

from typing import Any

from .commands import COMMANDS, Command, Role
from .requests import NO_COMMAND
from .schema import PLACE, Schema, definitions
from .subprotocols import DEFAULT_PORT, NDB_V1, NDB_V1_TEXT, PROTOCOL_VERSION

VERSION = "3.0.0"

_CHANNEL = "connection"
_SCHEMAS = "#/components/schemas/"


def asyncapi() -> dict[str, Any]:
    """Return the document; its schemas are those of `schema.definitions`."""
    names = [name for row in COMMANDS.values() for name in (row.name, row.reply_name)]
    names.append(NO_COMMAND)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "NDB",
            "version": str(PROTOCOL_VERSION),
            "description": (
                "Sessions and keys over WebSocket: one request per text message, and one reply per "
                "request, in the order of the requests. This version has no events."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "default": {
                "host": f"127.0.0.1:{DEFAULT_PORT}",
                "protocol": "ws",
                "description": "The address on which a server listens by default.",
            }
        },
        "channels": {
            _CHANNEL: {
                "address": "/",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
                "bindings": {"ws": {"headers": _HEADERS}},
            }
        },
        "operations": {
            **{row.name: _operation(row) for row in COMMANDS.values()},
            NO_COMMAND: {
                "action": "send",
                "channel": _channel(),
                "summary": "Answer a message that names no command.",
                "messages": [_in_channel(NO_COMMAND)],
            },
        },
        "components": {
            "messages": {name: {"name": name, "payload": _payload(name)} for name in names},
            "schemas": _moved(definitions()),
        },
    }


_HEADERS: Schema = {
    "type": "object",
    "properties": {
        "Sec-WebSocket-Protocol": {
            "type": "string",
            "enum": [NDB_V1, NDB_V1_TEXT],
            "description": (
                f"None or {NDB_V1}: tokens in replies are numbers. "
                f"{NDB_V1_TEXT}: they are text, for languages whose numbers are doubles."
            ),
        }
    },
}


def _operation(command: Command) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": _channel(),
        "summary": command.summary,
        "tags": [{"name": role.value} for role in Role if command.role in (role, None)],
        "messages": [_in_channel(command.name)],
        "reply": {"channel": _channel(), "messages": [_in_channel(command.reply_name)]},
    }


def _channel() -> dict[str, str]:
    return {"$ref": f"#/channels/{_CHANNEL}"}


def _in_channel(message: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{_CHANNEL}/messages/{message}"}


def _payload(message: str) -> dict[str, str]:
    return {"$ref": _SCHEMAS + message}


def _moved(schema: Any) -> Any:
    """Return `schema` with its references to where this document has the definitions."""
    if isinstance(schema, dict):
        return {word: _moved(part) for word, part in schema.items()}
    if isinstance(schema, list):
        return [_moved(part) for part in schema]
    return schema.replace(PLACE, _SCHEMAS) if isinstance(schema, str) else schema
