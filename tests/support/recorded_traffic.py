"""Clients that note what they were told, and what there has to be afterwards.

A writer has sessions and independent keys of its own, which nobody else changes but by ending all
sessions. Its requests go over one connection, one behind the other, so what there is at any moment
is what a number of them have made, none left out. Each writes its number; whoever reads one has
seen that all before it have been done.
"""

import json
import random
import time
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tests.support.raw_client import Wire, opened, text
from tests.support.reference_model import Keys, Model, RefusedByModel, Settings
from tests.support.reference_model import text as value_text

AHEAD = 32
"""Requests that a writer sends before it reads a reply."""

SESSIONS = 6
"""Sessions that a writer has, about."""

SIZES = [1, 1, 40, 200, 600]
"""How long values are: the keys of a session become too many to be packed, and few again."""


@dataclass
class Operation:
    """A request of a writer.

    Attributes:
        command: what it asked for.
        params: as the model takes them, without the token.
        token: of which session; None for the independent keys and for commands on no session.
        sent: when it was sent, in ns of the system's monotonic clock.
        reply: the body of its reply, if one came.
        answered: when it came.
    """

    command: str
    params: dict[str, Any]
    token: int | None
    sent: int = 0
    reply: dict[str, Any] | None = None
    answered: int = 0


@dataclass
class Written:
    """What a writer did in a round.

    Attributes:
        number: which writer.
        base: what there was of it before.
        first: the number of its first operation.
        operations: what it did, in order.
    """

    number: int
    base: Model
    first: int
    operations: list[Operation] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(operation.reply is not None for operation in self.operations)


@dataclass
class Seen:
    """What a reader saw.

    Attributes:
        numbers: the highest number that each writer had written.
        gone: tokens of sessions that there were no more.
    """

    numbers: dict[int, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)


# Writing


class Writer:
    def __init__(self, written: Written, seed: int, *, ends_all: bool) -> None:
        self.written = written
        self.random = random.Random(seed)
        self.ends_all = ends_all
        self.tokens = list(written.base.sessions)
        self.numbers = iter(range(written.first, 2**40))
        self.announce = False

    def operation(self) -> Operation:
        number, chance = next(self.numbers), self.random.random()
        if self.announce:
            self.announce = False
            tokens = [str(token) for token in self.tokens]
            keys: Keys = {f"{self.written.number}:tokens": tokens}  # type: ignore[dict-item]
            return Operation("KV_SET", {"keys": keys}, None)
        if chance < 0.002 and self.ends_all:
            return Operation("SH_END_ALL", {}, None)
        if len(self.tokens) < SESSIONS and chance < 0.1:
            return Operation("SH_NEW", {"settings": self.settings()}, None)
        if chance > 0.98 and len(self.tokens) > 2:
            token = self.tokens.pop(self.random.randrange(len(self.tokens)))
            self.announce = True
            return Operation("SH_END", {}, token)
        if chance > 0.75 or not self.tokens:
            return self.on_keys("KV", None, f"{self.written.number}:", number)
        return self.on_keys("SH", self.random.choice(self.tokens), "", number)

    def settings(self) -> Settings | None:
        choose = self.random.choice
        if choose([True, False, False]):
            return None
        flags = [choose([True, False]) for _ in range(3)]
        return Settings(choose([3600, 86_400, 4_294_967_295]), *flags)

    def on_keys(self, kind: str, token: int | None, prefix: str, number: int) -> Operation:
        choose = self.random.choice
        name = choose(
            ["SET"] * 6
            + ["ADD", "RMV", "UPDATE", "ARR_APPEND"]
            + ["CLEAR", "CLEAR_SET"] * bool(token)
        )
        size = choose(SIZES)
        value = f'"{chr(97 + number % 26) * size}"'
        key = f"{prefix}{choose('abcde')}"
        params: dict[str, Any] = {}
        if name in ("SET", "ADD", "CLEAR_SET"):
            stored: Keys = {f"{prefix}n": str(number), key: value, f"{prefix}list": [str(number)]}
            params["keys"] = stored
        elif name == "RMV":
            params["keys"] = [key, f"{prefix}{choose('abcde')}"]
        elif name == "UPDATE":
            params.update(key=f"{prefix}n", path=[], value=str(number))
        elif name == "ARR_APPEND":
            params.update(key=f"{prefix}list", items=[str(number)])
        return Operation(f"{kind}_{name}", params, token)

    def answered(self, operation: Operation) -> None:
        reply = operation.reply
        assert reply is not None
        assert reply["st"] != 202
        if operation.command == "SH_NEW":
            self.tokens.append(reply["tkn"])
            self.announce = True
        elif reply["st"] == 100 and operation.token in self.tokens:
            self.tokens.remove(operation.token)


def write(port: int, written: Written, seed: int, *, ends_all: bool) -> Written:
    """Write until the connection ends."""
    writer = Writer(written, seed, ends_all=ends_all)
    waiting: deque[Operation] = deque()
    try:
        with opened(port) as wire:
            while True:
                some = [writer.operation() for _ in range(AHEAD - len(waiting))]
                written.operations += some
                waiting += some
                for operation in some:
                    operation.sent = time.monotonic_ns()
                wire.send(b"".join(text(message(operation)) for operation in some))
                for _ in range(random.Random(seed).randrange(1, AHEAD)):
                    operation = waiting[0]
                    [operation.reply] = wire.reply().values()
                    operation.answered = time.monotonic_ns()
                    waiting.popleft()
                    writer.answered(operation)
    except (OSError, AssertionError) as error:
        if isinstance(error, AssertionError) and "ended the connection" not in str(error):
            raise
    return written


def message(operation: Operation) -> dict[str, Any]:
    params = {name: as_json(name, value) for name, value in operation.params.items()}
    if operation.command == "SH_NEW":
        settings = operation.params["settings"]
        params = {} if settings is None else {"expiry": vars(settings)}
    if operation.token is not None:
        params["tkn"] = operation.token
    return {operation.command: params}


def as_json(name: str, value: Any) -> Any:
    """Return a parameter of the model as it goes over the wire."""
    if name == "path":
        return "$"
    if name == "key" or (name == "keys" and isinstance(value, list)) or name == "settings":
        return value
    if isinstance(value, dict):
        return plain(value)
    return json.loads(value_text(value))


def plain(keys: Keys) -> dict[str, Any]:
    return {key: json.loads(value_text(value)) for key, value in keys.items()}


# Reading


def read(port: int, writers: int) -> Seen:
    """Look at everything until the connection ends."""
    seen = Seen()
    names = [f"{number}:{name}" for number in range(writers) for name in ("n", "tokens")]
    try:
        with opened(port) as wire:
            while True:
                look(wire, names, seen)
    except (OSError, AssertionError) as error:
        if isinstance(error, AssertionError) and "ended the connection" not in str(error):
            raise
    return seen


def look(wire: Wire, names: list[str], seen: Seen) -> None:
    found = wire.request("KV_GET", keys=names)["keys"]
    for name, value in found.items():
        number, _, which = name.partition(":")
        if which == "n":
            seen.numbers[int(number)] = max(value, seen.numbers.get(int(number), 0))
        else:
            for token in value:
                reply = wire.request("SH_GET", tkn=token, keys=["n"])
                if reply["st"] == 100:
                    seen.gone.add(token)
                elif reply["keys"]:
                    written = reply["keys"]["n"]
                    seen.numbers[int(number)] = max(written, seen.numbers.get(int(number), 0))


# What there has to be


def apply(model: Model, operation: Operation) -> None:
    """Do to the model what an operation did, or must have done if it was done."""
    reply, token = operation.reply, operation.token
    if operation.command == "SH_NEW":
        if reply is not None:
            model.begin(reply["tkn"], operation.params["settings"], {})
    elif operation.command == "SH_END_ALL":
        model.end_all()
    elif token is not None and token not in model.sessions:
        assert reply is None or reply["st"] == 100
    elif reply is not None and reply["st"] == 100:
        # Another writer ended all.
        assert token is not None
        del model.sessions[token]
    elif operation.command == "SH_END":
        assert token is not None
        model.end(token)
    else:
        try:
            model.on_keys(operation.command.partition("_")[2], token, deepcopy(operation.params))
        except RefusedByModel as refused:
            assert reply is None or reply["st"] == refused.status
        else:
            assert reply is None or reply["st"] == 1


def states(written: Written, at_least: int) -> Iterator[tuple[int, Model]]:
    """Yield what there may be: what the first operations made, from so many of them on."""
    model = deepcopy(written.base)
    for count, operation in enumerate(written.operations):
        if count >= at_least:
            yield count, model
        apply(model, operation)
    yield len(written.operations), model


@dataclass
class Ends:
    """When all sessions were ended: for sure after `first`, perhaps until `last`, in ns."""

    begun: list[int]
    done: list[int]

    def may_have_ended(self, since: int) -> bool:
        """Tell whether a session that was asked for at `since` may have been ended with all."""
        return any(then == 0 or then >= since for then in self.done)

    def must_have_ended(self, until: int) -> bool:
        """Tell whether a session that was there at `until` must have been ended with all."""
        return any(
            begun >= until and done for begun, done in zip(self.begun, self.done, strict=True)
        )


def ends(all_written: list[Written]) -> Ends:
    found = [
        operation
        for written in all_written
        for operation in written.operations
        if operation.command == "SH_END_ALL"
    ]
    return Ends([each.sent for each in found], [each.answered for each in found])


def check(
    wire: Wire, all_written: list[Written], seen: list[Seen], nameless: int = 0
) -> tuple[list[Model], int]:
    """See that there is what has to be, and nothing else.

    Args:
        wire: a connection to the server that was started again.
        all_written: what each writer did.
        seen: what each reader saw.
        nameless: how many sessions there may have been before whose tokens nobody learned.

    Returns:
        What there is of each writer, and how many sessions there are whose tokens nobody learned.
    """
    all_ends = ends(all_written)
    independent = wire.request("KV_FIND", path="$", rsp="kv")["keys"]
    models: list[Model] = []
    unanswered = 0
    for written in all_written:
        prefix = f"{written.number}:"
        mine = [(key, value) for key, value in independent.items() if key.startswith(prefix)]
        began = {
            operation.reply["tkn"]: operation
            for operation in written.operations
            if operation.command == "SH_NEW" and operation.reply is not None
        }
        unanswered += sum(
            operation.command == "SH_NEW" and operation.reply is None
            for operation in written.operations
        )
        tokens = [*written.base.sessions, *began]
        found = {token: session_of(wire, token) for token in tokens}
        read_up_to = max((each.numbers.get(written.number, 0) for each in seen), default=0)
        at_least = max(written.answered, read_up_to - written.first + 1)
        wrong: list[object] = []
        for count, model in states(written, at_least):
            differences = list(compare(model, found, mine, began, all_ends))
            if not differences:
                kept = deepcopy(model)
                for token in list(kept.sessions):
                    if found[token] is None:
                        del kept.sessions[token]
                models.append(kept)
                break
            wrong.append((count, differences))
        else:
            raise AssertionError(
                f"writer {written.number}: {at_least} of {len(written.operations)} operations "
                f"have to be there: {wrong[:2]}"
            )
    # Whoever did not learn the token of a session can't have written to it.
    total = wire.request("SH_INFO_ALL")
    known = sum(len(model.sessions) for model in models)
    keys = sum(len(session.keys) for model in models for session in model.sessions.values())
    assert known <= total["totalSessions"] <= known + unanswered + nameless
    assert total["totalKeys"] == keys
    assert len(independent) == sum(len(model.keys) for model in models)
    for each in seen:
        alive = wire.request("SH_EXISTS", tkns=list(each.gone))["exist"]
        assert not alive, "a session that a reader found ended is there again"
    return models, total["totalSessions"] - known


Found = tuple[dict[str, Any], list[tuple[str, Any]]] | None
"""What SH_INFO says, and the keys in their order; None if there is no such session."""


def session_of(wire: Wire, token: int) -> Found:
    info = wire.request("SH_INFO", tkn=token)
    if info["st"] == 100:
        return None
    keys = wire.request("SH_FIND", tkn=token, path="$", rsp="kv")["keys"]
    return info, list(keys.items())


def compare(
    model: Model,
    found: dict[int, Found],
    independent: list[tuple[str, Any]],
    began: dict[int, Operation],
    all_ends: Ends,
) -> Iterator[object]:
    """Yield what is not as in the model."""
    if list(plain(model.keys).items()) != independent:
        yield "independent keys", plain(model.keys), independent
    for token, of in found.items():
        session = model.sessions.get(token)
        if of is None:
            new = began.get(token)
            if session is not None and not all_ends.may_have_ended(new.sent if new else 0):
                yield "a session is not there", vars(session)
            continue
        if session is None:
            yield "a session that has ended is there", of
            continue
        new = began.get(token)
        if all_ends.must_have_ended(new.answered if new else 0):
            yield "a session is there after all were ended", of
        info, keys = of
        if keys != list(plain(session.keys).items()):
            yield "keys", plain(session.keys), keys
        if info["expires"] != (session.settings is not None):
            yield "expires", info
        elif session.settings is not None:
            expiry = info["expiry"]
            remaining, duration = expiry.pop("remaining"), expiry["duration"]
            # Nothing here takes a minute, and a deadline is written as late as an eighth.
            if not duration * 7 // 8 - 60 < remaining <= duration:
                yield "remaining", remaining, duration
            if expiry != vars(session.settings):
                yield "settings", expiry, vars(session.settings)
            expiry["remaining"] = remaining
