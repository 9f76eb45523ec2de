"""The table of all commands: the name, parameters, replies and effect of each.

The server's handlers, the client's methods, the vectors and the reference are checked against it.
"""

from dataclasses import dataclass
from enum import Enum

from . import messages as m
from .status import Status


class Extends(Enum):
    """Which setting of a session's expiry lets a command move its deadline."""

    ON_GET = "extendOnGet"
    ON_SET_ADD = "extendOnSetAdd"


class Scope(Enum):
    """What a command looks at or changes."""

    SESSION = "one session"
    KEYS = "the independent keys"
    STORE = "the whole store"
    SERVER = "none of what is stored"


class Role(Enum):
    """What a client is there for, by which a server can permit its commands."""

    APP = "app"
    KV = "kv"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One row of the table.

    Attributes:
        name: the name of a request's only member.
        reply_name: the name of the reply's only member.
        params: the type of that member's value.
        replies: the types of a successful reply.
        summary: one sentence for the reference.
        statuses: the statuses it can return in addition to `COMMON_STATUSES`.
        changes: it can change sessions or keys.
        repeatable: sending it twice has the same effect as sending it once, and the second reply
            is not misleading (for `SH_END`, 100 also means that the session is gone).
        role: the role that may use it, if the server has roles; None for everybody.
        scope: what it looks at or changes.
        extends: the setting by which it moves a session's deadline.
    """

    name: str
    reply_name: str
    params: type[m.Params]
    replies: tuple[type[m.Reply], ...]
    summary: str
    statuses: tuple[Status, ...]
    changes: bool
    repeatable: bool
    role: Role | None
    scope: Scope
    extends: Extends | None = None


COMMON_STATUSES = (Status.COMMAND_TYPE, Status.COMMAND_DISABLED, Status.UNKNOWN)
"""What any command can answer."""

_S = Status
_TYPED = (_S.PARAM_MISSING, _S.VALUE_TYPE_INVALID)
_STORE = (*_TYPED, _S.LIMIT_EXCEEDED)
_BOUND = (*_TYPED, _S.VALUE_SIZE)
_FIND = (*_BOUND, _S.PATH_INVALID, _S.COMMAND_SYNTAX, _S.LIMIT_EXCEEDED)
_UPDATE = (*_BOUND, _S.PATH_INVALID, _S.KEY_NOT_EXIST, _S.LIMIT_EXCEEDED)
_APPEND = (*_STORE, _S.KEY_NOT_EXIST)
_SAVE = (*_BOUND, _S.COMMAND_DISABLED, _S.SAVE_COMPLETE, _S.SAVE_ERROR)
_LOAD = (*_BOUND, _S.LOAD_COMPLETE, _S.LOAD_ERROR)


def _row(
    name: str,
    params: type[m.Params],
    replies: type[m.Reply] | tuple[type[m.Reply], ...],
    summary: str,
    statuses: tuple[Status, ...] = (),
    *,
    changes: bool = False,
    repeatable: bool = True,
    role: Role | None = Role.APP,
    extends: Extends | None = None,
) -> Command:
    own = set(statuses)
    if not own & {_S.SAVE_COMPLETE, _S.LOAD_COMPLETE}:
        own.add(_S.OK)
    if changes and _S.LOAD_COMPLETE not in own:
        own.add(_S.NOT_DURABLE)
    scope = {"KV": Scope.KEYS, "SV": Scope.SERVER}.get(name[:2], Scope.STORE)
    if "tkn" in params.__struct_fields__:
        own.add(_S.SESSION_NOT_EXIST)
        scope = Scope.SESSION
    return Command(
        name,
        f"{name}_RSP",
        params,
        replies if isinstance(replies, tuple) else (replies,),
        summary,
        tuple(sorted(own)),
        changes,
        repeatable,
        role,
        scope,
        extends,
    )


def _twins(
    name: str,
    session_params: type[m.Params],
    params: type[m.Params],
    replies: type[m.Reply] | tuple[type[m.Reply], ...],
    summary: str,
    statuses: tuple[Status, ...] = (),
    *,
    changes: bool = False,
    repeatable: bool = True,
    kv_role: Role = Role.KV,
    extends: Extends | None = None,
) -> tuple[Command, Command]:
    """Rows of one command on the keys of a session and on independent keys."""
    return (
        _row(
            f"SH_{name}",
            session_params,
            replies,
            summary.format(space="the session"),
            statuses,
            changes=changes,
            repeatable=repeatable,
            extends=extends,
        ),
        _row(
            f"KV_{name}",
            params,
            replies,
            summary.format(space="the independent keys"),
            statuses,
            changes=changes,
            repeatable=repeatable,
            role=kv_role,
        ),
    )


_ROWS: tuple[Command, ...] = (
    _row(
        "SH_NEW",
        m.NewSession,
        m.TokenReply,
        "Create a session.",
        (*_BOUND, _S.SESSION_NEW_FAIL),
        changes=True,
        repeatable=False,
    ),
    _row("SH_END", m.OfSession, m.TokenReply, "End a session and remove its keys.", changes=True),
    _row(
        "SH_END_ALL",
        m.Empty,
        m.CountReply,
        "End every session.",
        changes=True,
        repeatable=False,
        role=Role.ADMIN,
    ),
    _row("SH_EXISTS", m.Sessions, m.ExistReply, "Tell which sessions exist.", _TYPED),
    _row("SH_INFO", m.OfSession, m.InfoReply, "Describe a session."),
    _row(
        "SH_INFO_ALL",
        m.Empty,
        m.InfoAllReply,
        "Count all sessions and their keys.",
        role=Role.ADMIN,
    ),
    _row(
        "SH_SAVE",
        m.SaveSessions,
        m.SessionsDatasetReply,
        "Save sessions to a dataset.",
        _SAVE,
        repeatable=False,
        role=Role.ADMIN,
    ),
    _row(
        "SH_LOAD",
        m.Dataset,
        m.SessionsLoadedReply,
        "Load the sessions of a dataset.",
        _LOAD,
        changes=True,
        repeatable=False,
        role=Role.ADMIN,
    ),
    *_twins(
        "SET",
        m.SessionKeyValues,
        m.KeyValues,
        m.Reply,
        "Store keys in {space}; an existing key is overwritten.",
        _STORE,
        changes=True,
        extends=Extends.ON_SET_ADD,
    ),
    *_twins(
        "ADD",
        m.SessionKeyValues,
        m.KeyValues,
        m.Reply,
        "Store keys in {space}; an existing key is left unchanged.",
        _STORE,
        changes=True,
        extends=Extends.ON_SET_ADD,
    ),
    *_twins(
        "GET",
        m.SessionKeyNames,
        m.KeyNames,
        m.ValuesReply,
        "Return the keys asked for that exist in {space}, in the order asked.",
        _TYPED,
        extends=Extends.ON_GET,
    ),
    *_twins(
        "RMV",
        m.SessionSomeKeyNames,
        m.SomeKeyNames,
        m.Reply,
        "Remove keys from {space}; those that do not exist are ignored.",
        _BOUND,
        changes=True,
    ),
    *_twins(
        "CONTAINS",
        m.SessionKeyNames,
        m.KeyNames,
        m.ContainsReply,
        "Tell which of the keys asked for exist in {space}, in the order asked.",
        _TYPED,
    ),
    *_twins("COUNT", m.OfSession, m.Empty, m.CountReply, "Count the keys of {space}."),
    *_twins("KEYS", m.OfSession, m.Empty, m.KeyListReply, "List the keys of {space} as inserted."),
    *_twins(
        "CLEAR",
        m.OfSession,
        m.Empty,
        m.CountReply,
        "Remove all keys of {space}.",
        changes=True,
        repeatable=False,
        kv_role=Role.ADMIN,
    ),
    *_twins(
        "CLEAR_SET",
        m.SessionKeyValues,
        m.KeyValues,
        m.CountReply,
        "Replace all keys of {space} at once.",
        _STORE,
        changes=True,
        repeatable=False,
        kv_role=Role.ADMIN,
        extends=Extends.ON_SET_ADD,
    ),
    *_twins(
        "FIND",
        m.SessionFind,
        m.Find,
        (m.KeyListReply, m.PathsReply, m.ValuesReply),
        "Find the values of {space} in which a JSONPath selects something.",
        _FIND,
    ),
    *_twins(
        "UPDATE",
        m.SessionUpdate,
        m.Update,
        m.CountReply,
        "Set the nodes that a JSONPath selects in one value of {space}.",
        _UPDATE,
        changes=True,
        repeatable=False,
        extends=Extends.ON_SET_ADD,
    ),
    *_twins(
        "ARR_APPEND",
        m.SessionArrAppend,
        m.ArrAppend,
        m.Reply,
        "Append to an array of {space}.",
        _APPEND,
        changes=True,
        repeatable=False,
        extends=Extends.ON_SET_ADD,
    ),
    _row(
        "KV_SAVE",
        m.Dataset,
        m.KeysDatasetReply,
        "Save the independent keys to a dataset.",
        _SAVE,
        repeatable=False,
        role=Role.ADMIN,
    ),
    _row(
        "KV_LOAD",
        m.Dataset,
        m.KeysDatasetReply,
        "Load the independent keys of a dataset; other keys are kept.",
        _LOAD,
        changes=True,
        repeatable=False,
        role=Role.ADMIN,
    ),
    _row("SV_INFO", m.Empty, m.ServerInfoReply, "Describe the server.", role=None),
)

COMMANDS: dict[str, Command] = {row.name: row for row in _ROWS}
"""Every command by its name."""
