"""The parameters and replies of every command, as types (docs/reference/protocol).

A parameter's type says what msgspec accepts on the short way through the codec: exactly the
messages that need no second look. Its `Rule` says how to read the parameter when the message is
not plainly right, and which status and sentence refuse it. The two can't accept different
messages: a test feeds both with the same input.

Values stay JSON text: they are `msgspec.Raw`, never parsed here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from .status import Status
from .tokens import NO_TOKEN, parse_token

DURATION_MAX = 4_294_967_295
"""The longest ``duration`` of a session, in seconds."""

NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$(?!\n)"
"""A dataset's name, as a pattern that means the same to Python and to ECMA 262."""

_DATASET_NAME = re.compile(NAME_PATTERN)


def is_dataset_name(name: str) -> bool:
    """Tell whether `name` may name a dataset; no other name reaches the file system."""
    return _DATASET_NAME.search(name) is not None


FIND_RESPONSES = ("keys", "paths", "kv")
"""What ``rsp`` of a FIND may ask for."""


def _anything(_: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of parameter is read from its JSON text.

    Attributes:
        must: completes "'name' must be …" for a value of the wrong type (status 41).
        read: returns the value; raises `msgspec.MsgspecError` for the wrong type.
        bound: tells whether a value of the right type may be used.
        within: completes "'name' must be …" for one that may not.
        status: the status of one that may not.
    """

    must: str
    read: Callable[[Raw], Any]
    bound: Callable[[Any], bool] = _anything
    within: str = ""
    status: Status = Status.VALUE_SIZE


_as_anything = msgspec.json.Decoder().decode
_as_list = msgspec.json.Decoder(list[Raw]).decode
_as_str = msgspec.json.Decoder(str).decode


def _read_token(raw: Raw) -> int:
    # A value of any type may stand where a token should: it is no session's (status 100).
    try:
        return parse_token(_as_anything(raw))
    except (msgspec.MsgspecError, RecursionError):
        return NO_TOKEN


def _read_tokens(raw: Raw) -> list[int]:
    return [token for token in map(_read_token, _as_list(raw)) if token != NO_TOKEN]


def _read_only_tokens(raw: Raw) -> list[int]:
    tokens = [_read_token(element) for element in _as_list(raw)]
    if NO_TOKEN in tokens:
        raise msgspec.ValidationError("an element is not a token")
    return tokens


def _read_key_names(raw: Raw) -> list[str]:
    return [_as_str(element) for element in _as_list(raw) if bytes(element).startswith(b'"')]


def _read_searched_key_names(raw: Raw) -> list[str] | UnsetType:
    # The empty array stands for all keys; one whose elements are all ignored names none.
    return _read_key_names(raw) if _as_list(raw) else UNSET


def _read_some_key_names(raw: Raw) -> list[str] | None:
    # None stands for the empty array, which only this rule refuses: an array whose elements
    # are all ignored is not empty.
    return _read_key_names(raw) if _as_list(raw) else None


TOKEN = Rule("a token", _read_token)
TOKENS = Rule("an array", _read_tokens)
ONLY_TOKENS = Rule("an array of tokens", _read_only_tokens, bool, "an array of at least one token")
KEY_VALUES = Rule("an object", msgspec.json.Decoder(dict[str, Raw]).decode)
KEY_NAMES = Rule("an array", _read_key_names)
SOME_KEY_NAMES = Rule(
    "an array", _read_some_key_names, lambda v: v is not None, "an array of at least one key"
)
SEARCHED_KEY_NAMES = Rule("an array", _read_searched_key_names)
KEY = Rule("a string", _as_str)
PATH = Rule("a string", _as_str, bool, "a JSONPath, not empty")
FIND_RESPONSE = Rule(
    "a string",
    _as_str,
    FIND_RESPONSES.__contains__,
    "'keys', 'paths' or 'kv'",
    Status.COMMAND_SYNTAX,
)
VALUE = Rule("a JSON value", lambda raw: raw)
ITEMS = Rule("an array", _as_list)
NAME = Rule(
    "a string",
    _as_str,
    is_dataset_name,
    "1 to 64 of A-Z a-z 0-9 . _ -, not beginning with a dot",
)
DURATION = Rule(
    "an unsigned integer of seconds",
    msgspec.json.Decoder(Annotated[int, Meta(ge=0)]).decode,
    lambda seconds: seconds <= DURATION_MAX,
    f"at most {DURATION_MAX} seconds",
)
FLAG = Rule("true or false", msgspec.json.Decoder(bool).decode)

Token = Annotated[int, TOKEN]


class Discreet(Struct, kw_only=True, gc=False):
    """A type that may contain tokens and values: its ``repr`` shows neither."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Params(Discreet, kw_only=True, gc=False):
    """The parameters of a command. Unknown ones are ignored."""


def rules_of(params: type[Params]) -> dict[str, Rule]:
    """Return by which rule each parameter is read, by the parameter's name."""
    hints = get_type_hints(params, include_extras=True)
    return {
        name: next(mark for mark in hint.__metadata__ if isinstance(mark, Rule))
        for name, hint in hints.items()
    }


class Empty(Params):
    """No parameters."""


class OfSession(Params):
    """A command on one session."""

    tkn: Token


class KeyValues(Params):
    """Keys with the values to store."""

    keys: Annotated[dict[str, Raw], KEY_VALUES]


class SessionKeyValues(KeyValues, kw_only=True):
    tkn: Token


class KeyNames(Params):
    """Names of keys; elements that are not strings are ignored."""

    keys: Annotated[list[str], KEY_NAMES]


class SessionKeyNames(KeyNames, kw_only=True):
    tkn: Token


class SomeKeyNames(Params):
    """Names of keys, at least one."""

    keys: Annotated[list[str], Meta(min_length=1), SOME_KEY_NAMES]


class SessionSomeKeyNames(SomeKeyNames, kw_only=True):
    tkn: Token


_SomeKeyNames = Annotated[list[str], Meta(min_length=1)]


class Find(Params):
    """A JSONPath (RFC 9535) to look for, and what to answer of the matches.

    Attributes:
        path: the JSONPath.
        rsp: what to answer.
        keys: which keys to search; all if it is unset, none if it is empty.
    """

    path: Annotated[str, Meta(min_length=1), PATH]
    rsp: Annotated[str, Meta(pattern="^(keys|paths|kv)$(?!\\n)"), FIND_RESPONSE]
    # The short way leaves an empty array to the rule.
    keys: Annotated[_SomeKeyNames | UnsetType, SEARCHED_KEY_NAMES] = UNSET


class SessionFind(Find, kw_only=True):
    tkn: Token


class Update(Params):
    """A value to put at every node that a JSONPath (RFC 9535) selects."""

    key: Annotated[str, KEY]
    path: Annotated[str, Meta(min_length=1), PATH]
    value: Annotated[Raw, VALUE]


class SessionUpdate(Update, kw_only=True):
    tkn: Token


class ArrAppend(Params):
    """Items for the end of the array at a key, or at member `name` of the object there."""

    key: Annotated[str, KEY]
    items: Annotated[list[Raw], ITEMS]
    name: Annotated[str | UnsetType, KEY] = UNSET


class SessionArrAppend(ArrAppend, kw_only=True):
    tkn: Token


class Dataset(Params):
    """The name of a dataset."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN), NAME]


# msgspec's bounds end at int64: a token beyond goes the long way, where `ONLY_TOKENS` takes it.
_SomeTokens = Annotated[list[Annotated[int, Meta(ge=1, le=2**63 - 1)]], Meta(min_length=1)]


class SaveSessions(Dataset):
    """A dataset to make, of all sessions or of those of `tkns`."""

    tkns: Annotated[_SomeTokens | UnsetType, ONLY_TOKENS] = UNSET


class Expiry(Params):
    """When and how a session expires.

    Attributes:
        duration: seconds from creation, or from the last extension, to the deadline; 0 = never.
        deleteSession: the deadline deletes the session; otherwise it deletes only its keys.
        extendOnSetAdd: commands that store data move the deadline to now + duration.
        extendOnGet: SH_GET moves the deadline to now + duration.
    """

    duration: Annotated[int, Meta(ge=0, le=DURATION_MAX), DURATION]
    deleteSession: Annotated[bool, FLAG] = False
    extendOnSetAdd: Annotated[bool, FLAG] = False
    extendOnGet: Annotated[bool, FLAG] = False


EXPIRY = Rule("an object", msgspec.json.Decoder(dict[str, Raw]).decode)


class NewSession(Params):
    """The settings of a new session; without `expiry` it never expires."""

    expiry: Annotated[Expiry | UnsetType, EXPIRY] = UNSET


class Sessions(Params):
    """Tokens; elements that are not tokens are ignored."""

    tkns: Annotated[list[int], TOKENS]


class Reply(Discreet, kw_only=True, gc=False):
    """The members of every reply: the status, and a human-readable sentence if it failed."""

    st: int = int(Status.OK)
    m: str | UnsetType = UNSET


DONE = Reply()
"""The reply that has nothing to tell but that it was done."""


class TokenReply(Reply, kw_only=True):
    tkn: int | str


class CountReply(Reply, kw_only=True):
    cnt: int


class ExistReply(Reply, kw_only=True):
    exist: list[int | str]


SECONDS = Meta(description="in seconds")
MILLISECONDS = Meta(description="in milliseconds")
"""Units of members of replies, as the reference tells them."""


class ExpiryInfo(Struct, kw_only=True):
    """The four settings, and the seconds left, rounded up."""

    duration: Annotated[int, SECONDS]
    deleteSession: bool
    extendOnSetAdd: bool
    extendOnGet: bool
    remaining: Annotated[int, SECONDS]


class InfoReply(Reply, kw_only=True):
    tkn: int | str
    keyCnt: int
    shared: bool = False
    expires: bool
    expiry: ExpiryInfo | UnsetType = UNSET


class InfoAllReply(Reply, kw_only=True):
    totalSessions: int
    totalKeys: int


class ValuesReply(Reply, kw_only=True):
    keys: dict[str, Raw]


class KeyListReply(Reply, kw_only=True):
    keys: list[str]


class PathsReply(Reply, kw_only=True):
    paths: list[str]


class ContainsReply(Reply, kw_only=True):
    contains: list[str]


class SessionsLoadedReply(Reply, kw_only=True):
    """The same members as in NemesisDB: clients written for it compare the whole reply."""

    name: str
    sessions: int
    keys: int


class SessionsDatasetReply(Reply, kw_only=True):
    name: str
    sessions: int
    keys: int
    duration: Annotated[int, MILLISECONDS]


class KeysDatasetReply(Reply, kw_only=True):
    name: str
    keys: int
    duration: Annotated[int, MILLISECONDS]


class Limits(Struct, kw_only=True):
    """The limits of this server, in bytes and seconds; 0 means no limit.

    Each server decides which limits it has.
    """

    messageSize: int
    writeTimeout: float
    depth: int | UnsetType = UNSET
    inFlight: int | UnsetType = UNSET
    steps: int | UnsetType = UNSET
    pathLength: int | UnsetType = UNSET
    pathDepth: int | UnsetType = UNSET
    keys: int | UnsetType = UNSET
    keyLength: int | UnsetType = UNSET
    sessions: int | UnsetType = UNSET
    memory: int | UnsetType = UNSET
    connections: int | UnsetType = UNSET
    connectionsPerAddress: int | UnsetType = UNSET
    handshakeTimeout: float | UnsetType = UNSET
    idleTimeout: float | UnsetType = UNSET


class Stats(Struct, kw_only=True):
    """Statistics of a running server for administrators, in seconds, numbers and bytes."""

    uptime: int
    connections: int
    sessions: int
    sessionKeys: int
    keys: int
    memory: int


class ServerInfoReply(Reply, kw_only=True):
    serverVersion: str
    persistEnabled: bool
    protocol: int
    limits: Limits
    features: list[str]
    stats: Stats | UnsetType = UNSET
