"""A store that is too simple to be wrong, to hold against the engine.

Sessions are dictionaries. Time is lived through deadline by deadline, walking all sessions. A
value is a tree whose leaves are JSON text, so nothing here parses JSON or ever spells a number.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Tree: TypeAlias = "str | list[Tree] | dict[str, Tree]"
"""A JSON value: the text of a scalar, or the children."""

Location: TypeAlias = tuple[str | int, ...]
Selector: TypeAlias = str | int | None
"""A member's name, an index, or None for all children."""

Segment: TypeAlias = tuple[bool, list[Selector]]
"""Whether to look at all descendants too, and what to select of each."""

Path: TypeAlias = list[Segment]

UNUSABLE = "1E400"
"""A number that can be stored, but not read into a double."""


def text(tree: Tree) -> bytes:
    if isinstance(tree, str):
        return tree.encode()
    if isinstance(tree, list):
        return b"[%b]" % b",".join(map(text, tree))
    members = (name_text(name) + b":" + text(child) for name, child in tree.items())
    return b"{%b}" % b",".join(members)


def name_text(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()


def leaves(tree: Tree) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        for _, child in children(tree):
            yield from leaves(child)


def children(tree: Tree) -> list[tuple[str | int, Tree]]:
    if isinstance(tree, dict):
        return list(tree.items())
    return list(enumerate(tree)) if isinstance(tree, list) else []


def descendants(location: Location, tree: Tree) -> Iterator[tuple[Location, Tree]]:
    """Yield `tree` and all below it, parents before their children."""
    yield location, tree
    for name, child in children(tree):
        yield from descendants((*location, name), child)


def selects(selector: Selector, name: str | int, length: int) -> bool:
    if isinstance(selector, int) and selector < 0:
        selector += length
        return isinstance(name, int) and name == selector
    return selector is None or name == selector


def select(tree: Tree, path: Path) -> list[tuple[Location, Tree]]:
    nodes: list[tuple[Location, Tree]] = [((), tree)]
    for descend, selectors in path:
        if descend:
            nodes = [below for node in nodes for below in descendants(*node)]
        nodes = [
            ((*location, name), child)
            for location, node in nodes
            for selector in selectors
            for name, child in children(node)
            if selects(selector, name, len(node))
        ]
    return nodes


def replaced(tree: Tree, wanted: set[Location], value: Tree, here: Location = ()) -> Tree:
    if here in wanted:
        return value
    if isinstance(tree, dict):
        return {n: replaced(c, wanted, value, (*here, n)) for n, c in tree.items()}
    if isinstance(tree, list):
        return [replaced(c, wanted, value, (*here, i)) for i, c in enumerate(tree)]
    return tree


def quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def spelled(path: Path) -> str:
    """Return `path` as a JSONPath."""

    def selector(selector: Selector) -> str:
        if selector is None:
            return "*"
        return quoted(selector) if isinstance(selector, str) else str(selector)

    segments = (
        f"{'..' if descend else ''}[{','.join(map(selector, selectors))}]"
        for descend, selectors in path
    )
    return "$" + "".join(segments)


def normalized(location: Location) -> str:
    """Return the normalized path (RFC 9535, section 2.7) of a node."""
    return "$" + "".join(f"[{quoted(n) if isinstance(n, str) else n}]" for n in location)


class RefusedByModel(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Settings:
    """What SH_NEW was given."""

    duration: int
    deleteSession: bool
    extendOnSetAdd: bool
    extendOnGet: bool


@dataclass
class ModelSession:
    settings: Settings | None
    deadline: int | None
    keys: dict[str, Tree] = field(default_factory=dict)


EXTENDED_BY = {
    "GET": "extendOnGet",
    "SET": "extendOnSetAdd",
    "ADD": "extendOnSetAdd",
    "CLEAR_SET": "extendOnSetAdd",
    "UPDATE": "extendOnSetAdd",
    "ARR_APPEND": "extendOnSetAdd",
}

Keys: TypeAlias = dict[str, Tree]
ModelReply: TypeAlias = dict[str, Any]


class Model:
    """What the engine should be. Replies are what is on the wire; ordered members are pairs."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.sessions: dict[int, ModelSession] = {}
        self.keys: Keys = {}

    def live_until(self, now: int) -> None:
        """Let time pass, and everything expire whose deadline comes."""
        self.now = now
        for token, session in list(self.sessions.items()):
            while session.deadline is not None and session.deadline <= now:
                assert session.settings is not None
                if session.settings.deleteSession:
                    del self.sessions[token]
                    break
                session.keys.clear()
                session.deadline += session.settings.duration * 1000

    def start_period(self, session: ModelSession) -> None:
        if session.settings is not None:
            session.deadline = self.now + session.settings.duration * 1000

    def begin(self, token: int, settings: Settings | None, keys: Keys) -> None:
        if settings is not None and settings.duration == 0:
            settings = None
        session = ModelSession(settings, None, keys)
        self.start_period(session)
        self.sessions[token] = session

    def live(self, token: int) -> ModelSession:
        if token not in self.sessions:
            raise RefusedByModel(100)
        return self.sessions[token]

    # Commands on sessions

    def end(self, token: int) -> ModelReply:
        self.live(token)
        del self.sessions[token]
        return {"tkn": token}

    def end_all(self) -> ModelReply:
        count = len(self.sessions)
        self.sessions.clear()
        return {"cnt": count}

    def exists(self, tokens: list[int]) -> ModelReply:
        return {"exist": [token for token in tokens if token in self.sessions]}

    def info(self, token: int) -> ModelReply:
        session = self.live(token)
        reply = {"tkn": token, "keyCnt": len(session.keys), "shared": False}
        if session.settings is None or session.deadline is None:
            return {**reply, "expires": False}
        milliseconds = session.deadline - self.now
        remaining = (milliseconds + 999) // 1000
        return {
            **reply,
            "expires": True,
            "expiry": {**vars(session.settings), "remaining": remaining},
        }

    def info_all(self) -> ModelReply:
        return {
            "totalSessions": len(self.sessions),
            "totalKeys": sum(len(session.keys) for session in self.sessions.values()),
        }

    # Commands on keys

    def on_keys(self, name: str, token: int | None, params: dict[str, Any]) -> ModelReply:
        """Run a command named without its prefix; on the independent keys if `token` is None."""
        command: Callable[..., ModelReply] = getattr(self, f"do_{name.lower()}")
        if token is None:
            return command(self.keys, **params)
        session = self.live(token)
        reply = command(session.keys, **params)
        by = EXTENDED_BY.get(name)
        if by is not None and session.settings is not None and getattr(session.settings, by):
            self.start_period(session)
        return reply

    def do_set(self, mine: Keys, keys: Keys) -> ModelReply:
        mine.update(keys)
        return {}

    def do_add(self, mine: Keys, keys: Keys) -> ModelReply:
        for key, value in keys.items():
            mine.setdefault(key, value)
        return {}

    def do_get(self, mine: Keys, keys: list[str]) -> ModelReply:
        return {"keys": [(k, text(mine[k])) for k in dict.fromkeys(keys) if k in mine]}

    def do_rmv(self, mine: Keys, keys: list[str]) -> ModelReply:
        for key in keys:
            mine.pop(key, None)
        return {}

    def do_contains(self, mine: Keys, keys: list[str]) -> ModelReply:
        return {"contains": [key for key in keys if key in mine]}

    def do_count(self, mine: Keys) -> ModelReply:
        return {"cnt": len(mine)}

    def do_keys(self, mine: Keys) -> ModelReply:
        return {"keys": list(mine)}

    def do_clear(self, mine: Keys) -> ModelReply:
        count = len(mine)
        mine.clear()
        return {"cnt": count}

    def do_clear_set(self, mine: Keys, keys: Keys) -> ModelReply:
        reply = self.do_clear(mine)
        mine.update(keys)
        return reply

    def do_find(
        self, mine: Keys, path: Path | None, rsp: str, keys: list[str] | None
    ) -> ModelReply:
        path = self.valid(path)
        searched = [key for key in dict.fromkeys(mine if keys is None else keys) if key in mine]
        found = {key: select(mine[key], path) for key in searched}
        found = {key: nodes for key, nodes in found.items() if nodes}
        if rsp == "keys":
            return {"keys": list(found)}
        if rsp == "kv":
            return {"keys": [(key, text(mine[key])) for key in found]}
        return {"paths": [normalized(at) for nodes in found.values() for at, _ in nodes]}

    def do_update(self, mine: Keys, key: str, path: Path | None, value: Tree) -> ModelReply:
        path = self.valid(path)
        if key not in mine:
            raise RefusedByModel(22)
        self.usable(mine[key])
        wanted = {location for location, _ in select(mine[key], path)}
        mine[key] = replaced(mine[key], wanted, value)
        return {"cnt": len(wanted)}

    def do_arr_append(
        self, mine: Keys, key: str, items: list[Tree], name: str | None = None
    ) -> ModelReply:
        if key not in mine:
            raise RefusedByModel(22)
        value = mine[key]
        self.usable(value)
        if name is None and isinstance(value, list):
            mine[key] = [*value, *items]
            return {}
        if name is not None and isinstance(value, dict):
            array = value.get(name)
            if isinstance(array, list):
                mine[key] = {**value, name: [*array, *items]}
                return {}
        raise RefusedByModel(41)

    def valid(self, path: Path | None) -> Path:
        """Return `path`; None stands for one that does not parse."""
        if path is None:
            raise RefusedByModel(4)
        return path

    def usable(self, tree: Tree) -> None:
        if UNUSABLE in leaves(tree):
            raise RefusedByModel(41)
