"""The commands on keys, for both kinds of maps: the keys of a session and the independent keys.

A key maps to the JSON text of its value, kept as sent. A read command gets the key map and returns
a reply. A write command returns a reply and an `Edit`, and the engine applies the edit. So each
command is written once, and every change passes through `Edit.apply`.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET, Raw
from ndb_protocol import Status
from ndb_protocol import messages as m

from ..errors import RefusedError
from ..json_depth import nests_deeper
from . import paths
from .edits import Edit
from .keymap import KeyMap, project, unpack
from .steps import Steps

Values = Mapping[str, Raw]


_NO_EDIT = Edit()
_UNLIMITED = Steps()


def get_keys(keymap: KeyMap, params: m.KeyNames) -> m.ValuesReply:
    return m.ValuesReply(keys=project(keymap, params.keys))


def contains_keys(keymap: KeyMap, params: m.KeyNames) -> m.ContainsReply:
    values = unpack(keymap)
    return m.ContainsReply(contains=[key for key in params.keys if key in values])


def count_keys(keymap: KeyMap, _: m.Params) -> m.CountReply:
    return m.CountReply(cnt=len(unpack(keymap)))


def list_keys(keymap: KeyMap, _: m.Params) -> m.KeyListReply:
    return m.KeyListReply(keys=list(unpack(keymap)))


def find_keys(keymap: KeyMap, params: m.Find, steps: Steps = _UNLIMITED) -> m.Reply:
    values = unpack(keymap)
    paths.check_path(params.path, steps)
    names = values if params.keys is UNSET else dict.fromkeys(params.keys)
    searched = {key: values[key] for key in names if key in values}
    if params.rsp == "paths":
        found = [paths.find_paths(params.path, bytes(value), steps) for value in searched.values()]
        return m.PathsReply(paths=[path for selected in found for path in selected])
    matching = {
        key: value
        for key, value in searched.items()
        if paths.matches(params.path, bytes(value), steps)
    }
    if params.rsp == "keys":
        return m.KeyListReply(keys=list(matching))
    return m.ValuesReply(keys=matching)


def set_keys(_: Values, params: m.KeyValues) -> tuple[m.Reply, Edit]:
    return m.DONE, Edit(params.keys)


def add_keys(values: Values, params: m.KeyValues) -> tuple[m.Reply, Edit]:
    new = {key: value for key, value in params.keys.items() if key not in values}
    return m.DONE, Edit(new)


def remove_keys(values: Values, params: m.SomeKeyNames) -> tuple[m.Reply, Edit]:
    # A request may name a key twice.
    return m.DONE, Edit(remove=tuple({key: None for key in params.keys if key in values}))


def clear_keys(values: Values, _: m.Params) -> tuple[m.CountReply, Edit]:
    return m.CountReply(cnt=len(values)), Edit(clear=True)


def clear_and_set_keys(values: Values, params: m.KeyValues) -> tuple[m.CountReply, Edit]:
    return m.CountReply(cnt=len(values)), Edit(params.keys, clear=True)


class TooDeepError(RefusedError):
    """A value would nest deeper than the limit."""


def update_value(
    values: Values, params: m.Update, steps: Steps = _UNLIMITED, depth: int = sys.maxsize
) -> tuple[m.CountReply, Edit]:
    paths.check_path(params.path, steps)
    key = params.key
    if key not in values:
        return m.CountReply(
            cnt=0, st=Status.KEY_NOT_EXIST, m=f"there is no key {paths.quoted(key)}"
        ), _NO_EDIT
    # A query may select a node twice, as $['a','a'] does.
    locations = list(dict.fromkeys(paths.select(params.path, key, bytes(values[key]), steps)))
    if not locations:
        return m.CountReply(cnt=0), _NO_EDIT
    # A long value at many nodes may need more memory than there is.
    steps.take(len(locations) * len(params.value) >> 6)
    new = bytes(params.value)
    text = paths.replace(bytes(values[key]), locations, new, steps)
    # The first check does not read the whole text, and nearly always suffices.
    if nests_deeper(new, depth - max(map(len, locations))) and nests_deeper(text, depth):
        raise TooDeepError(
            Status.LIMIT_EXCEEDED,
            f"the value of key {paths.quoted(key)} would nest arrays and objects deeper than "
            f"{depth} levels",
        )
    return m.CountReply(cnt=len(locations)), Edit({key: Raw(text)})


def append_to_array(
    values: Values, params: m.ArrAppend, steps: Steps = _UNLIMITED
) -> tuple[m.Reply, Edit]:
    key = params.key
    if key not in values:
        return m.Reply(st=Status.KEY_NOT_EXIST, m=f"there is no key {paths.quoted(key)}"), _NO_EDIT
    name = None if params.name is UNSET else params.name
    text = paths.append(key, bytes(values[key]), params.items, name, steps)
    return m.DONE, Edit({key: Raw(text)})


READS: dict[str, Callable[[KeyMap, Any], m.Reply]] = {
    "GET": get_keys,
    "CONTAINS": contains_keys,
    "COUNT": count_keys,
    "KEYS": list_keys,
    "FIND": find_keys,
}
"""The commands that only read, by their names without prefix."""

WRITES: dict[str, Callable[..., tuple[m.Reply, Edit]]] = {
    "SET": set_keys,
    "ADD": add_keys,
    "RMV": remove_keys,
    "CLEAR": clear_keys,
    "CLEAR_SET": clear_and_set_keys,
    "UPDATE": update_value,
    "ARR_APPEND": append_to_array,
}
"""The commands that can change keys, by their names without prefix."""

COSTLY = ("FIND", "UPDATE", "ARR_APPEND")
"""Commands that walk through values: they get `Steps`, which limit their work."""
