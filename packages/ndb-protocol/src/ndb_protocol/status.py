"""Status values: the ``st`` member of every reply (docs/reference/protocol/status.md)."""

from enum import IntEnum


class Status(IntEnum):
    """The status of a request. Success is `OK`, `SAVE_COMPLETE` or `LOAD_COMPLETE`."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "Status":
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 1, "done"
    OP_CODE_INVALID = 2, "not a text message"
    JSON_INVALID = 3, "the message is not JSON"
    PATH_INVALID = 4, "the JSONPath does not parse"
    COMMAND_NOT_EXIST = 10, "no such command"
    COMMAND_TYPE = 12, "the command's value is not an object"
    COMMAND_SYNTAX = (
        13,
        "the message is not an object with exactly one command, "
        "or parameters contradict each other",
    )
    COMMAND_DISABLED = 14, "disabled by configuration, or not permitted to this client"
    KEY_NOT_EXIST = 22, "no such key"
    PARAM_MISSING = 26, "a required parameter is missing"
    VALUE_TYPE_INVALID = 41, "a parameter has the wrong type"
    VALUE_SIZE = 42, "a parameter is empty although it must not be, too long or out of range"
    SESSION_NOT_EXIST = 100, "no such session: it never existed, has ended or has expired"
    SESSION_NEW_FAIL = 103, "the session could not be created: a limit is reached"
    SAVE_COMPLETE = 121, "saved"
    SAVE_ERROR = 123, "not saved; no incomplete dataset remains"
    LOAD_COMPLETE = 141, "loaded"
    LOAD_ERROR = 142, "not loaded; the data in memory is unchanged"
    CONFLICT = 200, "the session changed since the version given"
    LIMIT_EXCEEDED = 201, "a configured limit would be exceeded"
    NOT_DURABLE = 202, "the change could not be made durable; it was not applied"
    UNKNOWN = 1000, "an internal error, logged with an id that the message repeats"


SUCCESS = frozenset({Status.OK, Status.SAVE_COMPLETE, Status.LOAD_COMPLETE})
"""The statuses of a request that did what it was asked to do."""
