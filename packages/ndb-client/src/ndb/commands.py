"""What each command sends and how its reply becomes a result, shared by all clients.

`SH_X` and `KV_X` use one function on two key spaces: the keys of a session and the independent
keys.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ndb_protocol import NO_TOKEN, Status, parse_token

from .core import Body, Params, Request, StrayReply
from .errors import ResponseError
from .session import Session, Tkn, token_of


class KeySpace(NamedTuple):
    """Where keys are.

    Its ``repr`` does not show the token.

    Attributes:
        prefix: what its commands begin with.
        params: the parameters that name it.
    """

    prefix: str
    params: Params

    def __repr__(self) -> str:
        return f"<KeySpace {self.prefix}>"


KV = KeySpace("KV_", {})
"""The independent keys."""


def session(tkn: Tkn) -> KeySpace:
    """Return the keys of a session."""
    return KeySpace("SH_", {"tkn": token_of(tkn)})


# Arguments.

_ARRAYS = frozenset({list, tuple})


def _array(name: str, items: Iterable[Any]) -> list[Any]:
    # What is nearly always given comes first: to ask what is iterable takes as long as the rest.
    # Text is iterable, character by character, which nobody means.
    if type(items) not in _ARRAYS and (
        isinstance(items, str | bytes) or not isinstance(items, Iterable)
    ):
        raise TypeError(f"{name} must be a list, not a {type(items).__name__}: use [{name}]")
    return list(items)


def _key_names(names: Iterable[str]) -> list[str]:
    keys = _array("keys", names)
    for key in keys:
        if not isinstance(key, str):
            # The server would ignore it.
            place = f"keys[{keys.index(key)}]"
            raise ValueError(f"{place} is of type {type(key).__name__}; keys are strings")
    return keys


def some(names: Iterable[str]) -> list[str]:
    """Return the names of keys, of which there must be some."""
    if not (keys := _key_names(names)):
        raise ValueError("keys is empty; name at least one key")
    return keys


def _key_values(keys: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(keys, Mapping):
        raise TypeError(f"keys must be a dict of keys and values, not a {type(keys).__name__}")
    return dict(keys)


def _tokens(tkns: Iterable[Tkn]) -> list[int]:
    return [token_of(tkn) for tkn in _array("tkns", tkns)]


def _dataset(name: str) -> str:
    if not name:
        raise ValueError("name is empty; give the name of a dataset")
    return name


# Results. What they find that was not asked for belongs to another request.


def _nothing(_: Body, __: Params) -> None:
    return None


def _count(body: Body, _: Params) -> int:
    return int(body["cnt"])


def _keys(body: Body, _: Params) -> Any:
    return body["keys"]


def _everything(body: Body, _: Params) -> Body:
    del body["st"]
    return body


def _within(asked: list[Any], found: Iterable[Any]) -> None:
    # What is nearly always found comes first: all of it, in the order asked.
    if [*found] != asked and not frozenset(asked).issuperset(found):
        raise StrayReply("the reply contains data that the request did not ask for")


def _values(body: Body, asked: Params) -> dict[str, Any]:
    found: dict[str, Any] = body["keys"]
    _within(asked["keys"], found.keys())
    return found


def _value(body: Body, asked: Params) -> Any:
    [key] = asked["keys"]
    return _values(body, asked).get(key)


def _contained(body: Body, asked: Params) -> list[str]:
    found: list[str] = body["contains"]
    _within(asked["keys"], found)
    return found


def _found(body: Body, asked: Params) -> list[str] | dict[str, Any]:
    if asked["rsp"] == "paths":
        paths: list[str] = body["paths"]
        return paths
    found: list[str] | dict[str, Any] = body["keys"]
    if "keys" in asked:
        _within(asked["keys"], found)
    return found


def _session(body: Body, _: Params) -> Session:
    if (tkn := parse_token(body["tkn"])) == NO_TOKEN:
        raise ValueError("the token is none")
    return Session(tkn)


def _no_session(error: ResponseError) -> Session:
    return Session(NO_TOKEN, error.status, error.message)


def _existing(body: Body, asked: Params) -> list[int]:
    found = [parse_token(token) for token in body["exist"]]
    _within(asked["tkns"], found)
    return found


def _dataset_of(body: Body, asked: Params) -> Body:
    _within([asked["name"]], [body["name"]])
    return _everything(body, asked)


def _keys_loaded(body: Body, asked: Params) -> int:
    return int(_dataset_of(body, asked)["keys"])


# Keys.


def set(space: KeySpace, keys: Mapping[str, Any]) -> Request[None]:
    return Request(f"{space.prefix}SET", {**space.params, "keys": _key_values(keys)}, _nothing)


def add(space: KeySpace, keys: Mapping[str, Any]) -> Request[None]:
    return Request(f"{space.prefix}ADD", {**space.params, "keys": _key_values(keys)}, _nothing)


def get(space: KeySpace, keys: Iterable[str]) -> Request[dict[str, Any]]:
    return Request(f"{space.prefix}GET", {**space.params, "keys": _key_names(keys)}, _values)


def get_one(space: KeySpace, key: str) -> Request[Any]:
    """Get the value of one key, None if there is no such key."""
    return Request(f"{space.prefix}GET", {**space.params, "keys": _key_names([key])}, _value)


def get_either(
    space: KeySpace, keys: Iterable[str], key: str | None
) -> Request[dict[str, Any]] | Request[Any]:
    """Get several keys as a dict or, if `key` is given, the value of that one."""
    if key is None:
        return get(space, keys)
    if keys:
        raise ValueError("keys and key are both given; give one of them")
    return get_one(space, key)


def rmv(space: KeySpace, keys: Iterable[str]) -> Request[None]:
    return Request(f"{space.prefix}RMV", {**space.params, "keys": _key_names(keys)}, _nothing)


def contains(space: KeySpace, keys: Iterable[str]) -> Request[list[str]]:
    params = {**space.params, "keys": _key_names(keys)}
    return Request(f"{space.prefix}CONTAINS", params, _contained)


def count(space: KeySpace) -> Request[int]:
    return Request(f"{space.prefix}COUNT", space.params, _count)


def keys(space: KeySpace) -> Request[list[str]]:
    return Request(f"{space.prefix}KEYS", space.params, _keys)


def clear(space: KeySpace) -> Request[int]:
    return Request(f"{space.prefix}CLEAR", space.params, _count)


def clear_set(space: KeySpace, keys: Mapping[str, Any]) -> Request[int]:
    return Request(f"{space.prefix}CLEAR_SET", {**space.params, "keys": _key_values(keys)}, _count)


def find(
    space: KeySpace, path: str, rsp: str, keys: Iterable[str]
) -> Request[list[str] | dict[str, Any]]:
    names = _key_names(keys)
    params = {**space.params, "path": path, "rsp": rsp}
    if names:
        params["keys"] = names
    return Request(f"{space.prefix}FIND", params, _found)


def update(space: KeySpace, key: str, path: str, value: Any) -> Request[int]:
    params = {**space.params, "key": key, "path": path, "value": value}
    return Request(f"{space.prefix}UPDATE", params, _count)


def arr_append(space: KeySpace, key: str, items: Iterable[Any], name: str | None) -> Request[None]:
    values = _array("items", items)
    params = {**space.params, "key": key, "items": values}
    if name is not None:
        params["name"] = name
    return Request(f"{space.prefix}ARR_APPEND", params, _nothing)


def save_keys(name: str) -> Request[Body]:
    return Request("KV_SAVE", {"name": _dataset(name)}, _dataset_of)


def load_keys(name: str) -> Request[Body]:
    return Request("KV_LOAD", {"name": _dataset(name)}, _dataset_of)


def load_keys_count(name: str) -> Request[int]:
    """Load keys, for their number only."""
    return Request("KV_LOAD", {"name": _dataset(name)}, _keys_loaded)


# Sessions.


def create_session(
    duration: int, delete_session: bool, extend_on_set_add: bool, extend_on_get: bool
) -> Request[Session]:
    if not isinstance(duration, int | float):
        # A float is for the server to refuse.
        raise TypeError(f"durationSeconds must be an int, not a {type(duration).__name__}")
    if duration < 0:
        raise ValueError("durationSeconds is negative; 0 means that the session never expires")
    flags = {
        "deleteSession": delete_session,
        "extendOnSetAdd": extend_on_set_add,
        "extendOnGet": extend_on_get,
    }
    if duration == 0:
        if given := [name for name, flag in flags.items() if flag]:
            raise ValueError(
                f"{', '.join(given)} without durationSeconds: the session would never expire"
            )
        return Request("SH_NEW", {}, _session, _no_session)
    return Request("SH_NEW", {"expiry": {"duration": duration, **flags}}, _session, _no_session)


def end_session(tkn: Tkn) -> Request[None]:
    params = {"tkn": token_of(tkn)}
    return Request("SH_END", params, _nothing, done=Status.SESSION_NOT_EXIST)


def end_all_sessions() -> Request[int]:
    return Request("SH_END_ALL", {}, _count)


def session_exists(tkns: Iterable[Tkn]) -> Request[list[int]]:
    return Request("SH_EXISTS", {"tkns": _tokens(tkns)}, _existing)


def session_info(tkn: Tkn) -> Request[Body]:
    return Request("SH_INFO", {"tkn": token_of(tkn)}, _everything)


def session_info_all() -> Request[Body]:
    return Request("SH_INFO_ALL", {}, _everything)


def save_sessions(name: str, tkns: Iterable[Tkn]) -> Request[Body]:
    """Save the sessions of `tkns`, all of them if there are none."""
    params: Params = {"name": _dataset(name)}
    if tokens := _tokens(tkns):
        params["tkns"] = tokens
    return Request("SH_SAVE", params, _dataset_of)


def load_sessions(name: str) -> Request[Body]:
    return Request("SH_LOAD", {"name": _dataset(name)}, _dataset_of)


# The server.


def server_info() -> Request[Body]:
    return Request("SV_INFO", {}, _everything)
