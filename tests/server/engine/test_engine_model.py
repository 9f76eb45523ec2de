"""The engine against a model too simple to be wrong, over every command, with time as an action.

Two engines do the same: one is asked about everything after each step, which lets whatever is
overdue expire; the other is left alone, so that its expiries happen when a command comes across
them, or when reaped. What each tells its journal must be enough to make the same store again.
"""

import json
from itertools import count
from typing import Any, ClassVar

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import asdict
from ndb_protocol import COMMANDS, NO_TOKEN, TOKEN_MAX
from ndb_protocol.messages import Expiry, ValuesReply
from ndb_server.engine.engine import Engine
from ndb_server.engine.keymap import pack, unpack
from ndb_server.engine.session import NEVER
from ndb_server.engine.size_estimate import SESSION_BYTES, keys_size
from ndb_server.errors import RefusedError

from tests.support.engine_loads import load_session, pending_load
from tests.support.journal_replica import Replica
from tests.support.reference_model import (
    UNUSABLE,
    Keys,
    Model,
    ModelReply,
    Path,
    RefusedByModel,
    Settings,
    Tree,
    spelled,
    text,
)
from tests.support.rounds import rounds

START = 1_700_000_000_001
UNKNOWN_TOKEN = TOKEN_MAX
FAR = 1000 * 1000
"""No step takes longer, in ms: the model lives through every period."""

REPEATS = 10
"""How often more examples are tried if some command was in none of them."""

NAMES = ["a", "b", "", "it's", "é\\\n"]

scalars = st.one_of(
    st.sampled_from(["null", "true", "false", "-0", "0.0", "1.50", "1e5", "2E-3", UNUSABLE]),
    st.integers(-(2**80), 2**80).map(str),
    st.builds(json.dumps, st.text(max_size=3), ensure_ascii=st.booleans()),
)
trees: st.SearchStrategy[Tree] = st.recursive(
    scalars,
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(st.sampled_from(NAMES), below, max_size=3),
    ),
    max_leaves=6,
)
key_names = st.sampled_from(["k", "", "ключ \"'"])
key_lists = st.lists(key_names, max_size=4)
# Scalars alone would leave little to search, change and append to.
values = st.one_of(
    trees,
    st.lists(trees, max_size=3),
    st.dictionaries(st.sampled_from(NAMES), st.one_of(trees, st.lists(trees)), max_size=3),
)
key_values = st.dictionaries(key_names, values, max_size=3)

selectors = st.one_of(st.none(), st.sampled_from(NAMES), st.integers(-2, 2))
segments = st.tuples(st.booleans(), st.lists(selectors, min_size=1, max_size=2))
paths = st.one_of(st.lists(segments, max_size=2), st.none())
"""None stands for a path that does not parse."""

period_settings = st.builds(
    Settings,
    duration=st.sampled_from([1, 1, 2, 60, 0, 4_294_967_295]),
    deleteSession=st.booleans(),
    extendOnSetAdd=st.booleans(),
    extendOnGet=st.booleans(),
)
sessions = st.sampled_from(range(15))
"""Which session a command is for: `EngineMachine.token` finds one."""

places = st.sampled_from([*range(15), -1, -1, -1])
"""Where keys are: in which session, or (negative) among the independent keys."""


def wire_expiry(settings: Settings | None) -> Expiry | UnsetType:
    return UNSET if settings is None else Expiry(**vars(settings))


def stored(settings: Settings | None) -> Expiry | None:
    """Return the settings as the engine is to hold them: None for a session that never expires."""
    return None if settings is None or settings.duration == 0 else Expiry(**vars(settings))


def raw(keys: Keys) -> dict[str, Raw]:
    return {key: Raw(text) for key, text in texts(keys).items()}


def kept(values: dict[str, Raw]) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in values.items()}


def texts(keys: Keys) -> dict[str, bytes]:
    return {key: text(value) for key, value in keys.items()}


def wire(name: str, value: Any) -> Any:
    """Return a parameter of the model as the codec gives it to the engine."""
    if name == "path":
        return "$[" if value is None else spelled(value)
    if name == "value":
        return Raw(text(value))
    if value is None:
        return UNSET
    if name == "items":
        return [Raw(text(item)) for item in value]
    if isinstance(value, dict):
        return {key: Raw(text(tree)) for key, tree in value.items()}
    return value


def plain(value: Any) -> Any:
    """Return a reply as the model gives it: values as bytes, ordered members as pairs."""
    if isinstance(value, ValuesReply):
        # Its keys may be whatever encodes to an object.
        value = msgspec.json.decode(msgspec.json.encode(value), type=ValuesReply)
    if isinstance(value, Struct):
        return {name: plain(of) for name, of in asdict(value).items() if of is not UNSET}
    if isinstance(value, dict):
        return [(name, plain(of)) for name, of in value.items()]
    return bytes(value) if isinstance(value, Raw) else value


class Subject:
    """An engine, with what its journal says of it."""

    def __init__(self) -> None:
        self.random_tokens: list[int] = []
        self.replica = Replica()
        journal = self.replica.journal
        self.engine = Engine(make_token=lambda: self.random_tokens.pop(0), journal=journal)
        journal.engine = self.engine

    def run(self, name: str, params: dict[str, Any], now: int) -> ModelReply:
        try:
            reply: ModelReply = plain(
                self.engine.handlers[name](COMMANDS[name].params(**params), now)
            )
        except RefusedError as error:
            reply = {"st": int(error.status), "m": error.message}
        message = reply.pop("m", None)
        assert (message is None) == (reply["st"] == 1)
        if message is not None:
            assert message
            assert "tkn" not in params or str(params["tkn"]) not in message or params["tkn"] == 0
        return reply


class EngineMachine(RuleBasedStateMachine):
    ran: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(START)
        # They cross the bound of signed integers.
        self.fresh_tokens = count(2**63 - 2)
        # Every token there ever was, and two that are no session's.
        self.tokens = [UNKNOWN_TOKEN, NO_TOKEN]
        self.focus = NO_TOKEN
        self.watched = Subject()
        self.left_alone = Subject()
        self.subjects = [self.watched, self.left_alone]

    @initialize(
        periods=st.lists(period_settings, min_size=3, max_size=3),
        stored=st.lists(key_values, min_size=4, max_size=4),
    )
    def begin(self, periods: list[Settings], stored: list[Keys]) -> None:
        for period in periods:
            self.new(period)
        for place, keys in enumerate(stored, start=-1):
            self.store("SET", place, keys)

    def token(self, session: int) -> int:
        """Find a token: mostly of a living session, or whose deadline was just waited for."""
        gone = [token for token in self.tokens if token not in self.model.sessions]
        alive = list(self.model.sessions)
        candidates = [*alive, *alive, self.focus, *gone[-2:]]
        return candidates[session % len(candidates)]

    def place(self, session: int) -> int | None:
        return None if session < 0 else self.token(session)

    # Time

    @rule(ms=st.one_of(st.just(0), st.just(1), st.integers(0, 3000), st.integers(0, FAR)))
    def wait(self, ms: int) -> None:
        self.model.live_until(self.model.now + ms)

    @rule(session=sessions, off=st.sampled_from([-1, 0, 0, 1]), periods=st.sampled_from([0, 0, 3]))
    def wait_for_a_deadline(self, session: int, off: int, periods: int) -> None:
        token = self.token(session)
        of = self.model.sessions.get(token)
        if of is None or of.settings is None or of.deadline is None:
            return
        then = of.deadline + periods * of.settings.duration * 1000 + off
        if then < self.model.now + FAR:
            self.focus = token
            self.model.live_until(max(self.model.now, then))

    @rule(limit=st.one_of(st.none(), st.integers(0, 3)))
    def reap(self, limit: int | None) -> None:
        for subject in self.subjects:
            engine = subject.engine
            before = engine.totals.sessions
            more = engine.reap(self.model.now, limit)
            if limit is not None:
                assert before - engine.totals.sessions <= limit
            if not more:
                assert engine.everything()[0].keys() == self.model.sessions.keys()

    # Commands

    def run_all(self, command: str, expected: ModelReply, /, **params: Any) -> None:
        self.ran.add(command)
        expected.setdefault("st", 1)
        for subject in self.subjects:
            assert subject.run(command, params, self.model.now) == expected

    def on_session(self, name: str, token: int) -> None:
        try:
            expected = getattr(self.model, name.removeprefix("SH_").lower())(token)
        except RefusedByModel as refused:
            expected = {"st": refused.status}
        self.run_all(name, expected, tkn=token)

    def on_keys(self, command: str, place: int, /, **params: Any) -> None:
        token = self.place(place)
        try:
            expected = self.model.on_keys(command, token, params)
        except RefusedByModel as refused:
            expected = {"st": refused.status}
            if (command, refused.status) == ("UPDATE", 22):
                expected["cnt"] = 0
        in_session = {} if token is None else {"tkn": token}
        prefix = "KV" if token is None else "SH"
        sent = {param: wire(param, value) for param, value in params.items()}
        self.run_all(f"{prefix}_{command}", expected, **in_session, **sent)

    @precondition(lambda self: len(self.model.sessions) < 6)
    @rule(settings=st.one_of(period_settings, period_settings, st.none()))
    def new(self, settings: Settings | None) -> None:
        token = next(self.fresh_tokens)
        for subject in self.subjects:
            # Chance may return the tokens of living sessions first.
            subject.random_tokens = [*self.model.sessions, token]
        self.run_all("SH_NEW", {"tkn": token}, expiry=wire_expiry(settings))
        self.model.begin(token, settings, {})
        self.tokens.append(token)

    @rule(session=sessions)
    def end(self, session: int) -> None:
        self.on_session("SH_END", self.token(session))

    @rule(session=sessions)
    def info(self, session: int) -> None:
        self.on_session("SH_INFO", self.token(session))

    @precondition(lambda self: len(self.model.sessions) > 4)
    @rule()
    def end_all(self) -> None:
        self.run_all("SH_END_ALL", self.model.end_all())

    @rule()
    def info_all(self) -> None:
        self.run_all("SH_INFO_ALL", self.model.info_all())

    @rule(asked=st.lists(sessions, max_size=4))
    def exists(self, asked: list[int]) -> None:
        tokens = [self.focus, *map(self.token, asked)]
        self.run_all("SH_EXISTS", self.model.exists(tokens), tkns=tokens)

    @rule(place=places, keys=key_values, name=st.sampled_from(["SET", "ADD", "CLEAR_SET"]))
    def store(self, name: str, place: int, keys: Keys) -> None:
        self.on_keys(name, place, keys=keys)

    @rule(place=places, keys=key_lists, name=st.sampled_from(["GET", "CONTAINS"]))
    def look_up(self, name: str, place: int, keys: list[str]) -> None:
        self.on_keys(name, place, keys=keys)

    @rule(place=places, keys=st.lists(key_names, min_size=1, max_size=3))
    def remove(self, place: int, keys: list[str]) -> None:
        self.on_keys("RMV", place, keys=keys)

    @rule(place=places, name=st.sampled_from(["COUNT", "KEYS"]))
    def list_keys(self, name: str, place: int) -> None:
        self.on_keys(name, place)

    @rule(place=places)
    def clear(self, place: int) -> None:
        self.on_keys("CLEAR", place)

    @rule(
        place=places,
        path=paths,
        rsp=st.sampled_from(["keys", "paths", "kv"]),
        keys=st.one_of(st.none(), key_lists),
    )
    def find(self, place: int, path: Path | None, rsp: str, keys: list[str] | None) -> None:
        self.on_keys("FIND", place, path=path, rsp=rsp, keys=keys)

    @rule(place=places, key=key_names, path=paths, value=trees)
    def update(self, place: int, key: str, path: Path | None, value: Tree) -> None:
        self.on_keys("UPDATE", place, key=key, path=path, value=value)

    @rule(
        place=places,
        key=key_names,
        items=st.lists(trees, max_size=2),
        name=st.sampled_from([None, None, None, *NAMES]),
    )
    def arr_append(self, place: int, key: str, items: list[Tree], name: str | None) -> None:
        named = {} if name is None else {"name": name}
        self.on_keys("ARR_APPEND", place, key=key, items=items, **named)

    # Saving and loading

    @rule(which=st.one_of(st.none(), st.lists(sessions, max_size=3)))
    def snapshot(self, which: list[int] | None) -> None:
        chosen = None if which is None else [self.token(session) for session in which]
        expected = {
            token: (stored(session.settings), session.deadline, texts(session.keys))
            for token, session in self.model.sessions.items()
            if chosen is None or token in chosen
        }
        for subject in self.subjects:
            sessions = dict(subject.engine.snapshot(self.model.now, chosen))
            assert {
                token: (
                    s.expiry,
                    None if s.deadline == NEVER else s.deadline,
                    kept(unpack(s.keys)),
                )
                for token, s in sessions.items()
            } == expected
            keys = subject.engine.snapshot_keys()
            assert kept(keys) == texts(self.model.keys)
            # They are copies: what is done to them is not done to the store.
            keys.clear()
            for session in sessions.values():
                if isinstance(session.keys, dict):
                    session.keys.clear()

    @rule(session=sessions, settings=st.one_of(period_settings, st.none()), keys=key_values)
    def restore(self, session: int, settings: Settings | None, keys: Keys) -> None:
        token = self.token(session)
        if token == NO_TOKEN:
            return
        fresh = token not in self.model.sessions
        if fresh:
            self.model.begin(token, settings, dict(keys))
        for subject in self.subjects:
            packed = pack(raw(keys))
            is_new = load_session(subject.engine, token, stored(settings), packed, self.model.now)
            assert is_new == fresh

    @rule(keys=key_values)
    def load_keys(self, keys: Keys) -> None:
        self.model.keys.update(keys)
        for subject in self.subjects:
            subject.engine.load(pending_load({}, raw(keys)), self.model.now)

    # What holds after every step

    @invariant()
    def everything_is_on_disk(self) -> None:
        for subject in self.subjects:
            subject.replica.settle()
            assert not subject.replica.journal.pending
            self.agrees(subject.replica)

    def agrees(self, replica: Replica) -> None:
        independent = replica.keys[NO_TOKEN]
        assert list(independent.items()) == list(texts(self.model.keys).items())
        alive = set()
        for token, (expiry, written, *_) in replica.sessions.items():
            deadline, keys = written, replica.keys[token]
            while deadline <= self.model.now:
                # Overdue and not come across yet: who reads it knows what the settings demand.
                assert expiry is not None
                if expiry.deleteSession or expiry.extendOnGet:
                    break
                keys = {}
                deadline += expiry.duration * 1000
            else:
                alive.add(token)
                session = self.model.sessions[token]
                assert expiry == stored(session.settings)
                assert list(keys.items()) == list(texts(session.keys).items())
                if session.deadline is None:
                    assert deadline == NEVER
                else:
                    # Where reading moves it, not each step is written.
                    assert expiry is not None
                    behind = session.deadline - deadline
                    most = expiry.duration * 1000 / 8 if expiry.extendOnGet else 0
                    assert 0 <= behind <= most
        missing = self.model.sessions.keys() - alive
        assert all(
            (of := self.model.sessions[token].settings) is not None and of.extendOnGet
            for token in missing
        )

    @invariant()
    def the_counters_count(self) -> None:
        for subject in self.subjects:
            engine = subject.engine
            sessions, keys = engine.everything()
            walked = sum(len(unpack(session.keys)) for session in sessions.values())
            assert engine.totals.sessionKeys == walked
            kept = sum(SESSION_BYTES + keys_size(session.keys) for session in sessions.values())
            assert engine.memory == kept + keys_size(keys)

    @invariant()
    def the_watched_engine_says_what_the_model_says(self) -> None:
        now, run = self.model.now, self.watched.run
        assert run("SH_INFO_ALL", {}, now) == {"st": 1, **self.model.info_all()}
        exist = run("SH_EXISTS", {"tkns": self.tokens}, now)
        assert exist == {"st": 1, **self.model.exists(self.tokens)}
        assert self.watched.engine.everything()[0].keys() == self.model.sessions.keys()
        assert run("KV_COUNT", {}, now) == {"st": 1, "cnt": len(self.model.keys)}


@rounds(few=150, many=1000)
def test_the_engine_is_what_the_model_is(rounds: int) -> None:
    EngineMachine.ran.clear()
    commands = set(Engine().handlers)
    # One run in five leaves out a command by chance.
    for _ in range(REPEATS):
        run_state_machine_as_test(
            EngineMachine,
            settings=settings(max_examples=rounds, stateful_step_count=40),
        )
        if EngineMachine.ran == commands:
            break
    assert EngineMachine.ran == commands, "a command without a rule"
