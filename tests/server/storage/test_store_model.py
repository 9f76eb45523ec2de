"""Engine, journal and store against a simple model, with restarts and disks that fail.

The journal's way to disk is held open: a step lets the batch on its way be written by a real
store, or says that it can't be. Every reply is checked twice: when it is made, for what it says and
what it waits for, and when its batch is done, for what is said instead. A crash is a copy of the
folder, opened by another store.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
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
from ndb_protocol import COMMANDS, NO_TOKEN, Scope
from ndb_protocol.messages import Expiry
from ndb_server.engine.batch import Batch, ChangeSet
from ndb_server.engine.keymap import pack, unpack
from ndb_server.engine.session import NEVER, Session
from ndb_server.engine.size_estimate import SESSION_BYTES, keys_size
from ndb_server.interfaces import CommitGate
from ndb_server.storage.store import Store

from tests.support.engine_loads import pending_load
from tests.support.journaled_engine import START, Durable, body, content, raw
from tests.support.reference_model import Keys, Model, RefusedByModel, Settings, text
from tests.support.rounds import rounds

EVERYTHING = -1
"""What stands for all sessions, where tokens do."""

FAR = 200_000

names = st.sampled_from(["a", "b", "c", "d"])
# Some of them make a session too large to be packed.
trees = st.sampled_from(["1", "2", '"ä"', ["1", "2"], f'"{"x" * 300}"', f'"{"y" * 600}"'])
key_values = st.dictionaries(names, trees, max_size=4)
key_names = st.lists(names, min_size=1, max_size=3)
period_settings = st.builds(
    Settings,
    duration=st.sampled_from([1, 8, 60, 4_294_967_295, 0]),
    deleteSession=st.booleans(),
    extendOnSetAdd=st.booleans(),
    extendOnGet=st.booleans(),
)
places = st.sampled_from([*range(9), -1, -1])
"""Where keys are: in which session, or (negative) among the independent keys."""


@dataclass
class Event:
    """Something that is done to the model, and can be done again.

    Attributes:
        do: does it.
        token: whose it is; None for time.
        changes: whether it is undone with its batch.
        batch: the batch it is in.
    """

    do: Callable[[Model], object]
    token: int | None
    changes: bool
    batch: Batch[Any]


@dataclass(eq=False)
class Held:
    """A reply that waits."""

    machine: "DurableMachine"
    name: str
    hold: CommitGate
    ask: Callable[[Model], dict[str, Any]]

    @property
    def gates(self) -> tuple[CommitGate]:
        return (self.hold,)

    def batch_done(self) -> None:
        self.machine.settled(self)


class Stepped(Store):
    """A store without its thread: what it does, it does when it is told to."""

    def start(self) -> None:
        pass

    def write(self, changes: ChangeSet, written: Callable[[str | None], object]) -> None:
        written(self._commit(changes))

    def _run_in_thread(self, work: Callable[[], object]) -> None:
        work()

    def compact_a_step(self) -> None:
        if self._compaction is None:
            self._compaction = self._compaction_steps()
        if next(self._compaction, "compacted") == "compacted":
            self._compaction = None

    def close(self) -> None:
        self.compact()
        self._release()


class DurableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="ndb-durable-"))
        self.folders = count()
        self.folder = self.root / "first"
        self.folder.mkdir()
        self.tokens = [7]
        self.loads = 0
        self.fresh_tokens = count(2**63 - 2)
        self.model = Model(START)
        self.open(Stepped(self.folder, "relaxed"))
        self.store.start()

    def open(self, store: Stepped) -> None:
        self.store = store
        self.loading: Batch[Any] | None = None
        self.durable = Durable(lambda: self.next_token)
        # What is on disk, and what has been done since.
        self.base = deepcopy(self.model)
        self.since: list[Event] = []
        self.dirty: dict[int, Batch[Any]] = {}
        # Until when a session is sure to live after a crash; whose keys have changed their order.
        self.sure: dict[int, int] = {}
        self.reordered: set[int] = set()
        self.note_deadlines()

    def note_deadlines(self) -> None:
        for token, session in self.base.sessions.items():
            if session.deadline is not None and session.settings is not None:
                self.sure[token] = session.deadline - session.settings.duration * 125

    @initialize(period=period_settings, keys=key_values)
    def begin(self, period: Settings, keys: Keys) -> None:
        self.new(period)
        self.store_keys("SET", 0, keys)

    def token(self, place: int) -> int:
        alive = list(self.model.sessions)
        candidates = [*alive, *alive, *self.tokens[-3:]]
        return candidates[place % len(candidates)]

    # Commands

    def run(
        self, name: str, token: int, ask: Callable[[Model], dict[str, Any]], **params: Any
    ) -> None:
        """Run a command on both, see what its reply waits for, and let it wait."""
        command = COMMANDS[name]

        def asked(model: Model) -> dict[str, Any]:
            try:
                return {"st": 1, **ask(model)}
            except RefusedByModel as refused:
                return {"st": refused.status}

        expected = asked(self.model)
        self.durable.now = self.model.now
        reply, hold = self.durable.ask_held(name, **params)
        assert same(reply, expected), (reply, expected)
        batch = self.durable.journal.open_batch()
        changed = command.changes and expected["st"] == 1
        if changed:
            if token == EVERYTHING:
                self.dirty = {t: b for t, b in self.dirty.items() if t == NO_TOKEN}
            self.dirty[token] = batch
        if changed or name == "SH_GET":
            self.since.append(Event(asked, token, changed, batch))
        self.check(hold, batch if changed else self.awaited(command.scope, token))
        if hold is not None:
            hold.batch.waiters[Held(self, name, hold, asked)] = None

    def awaited(self, scope: Scope, token: int) -> Batch[Any] | None:
        """Return the newest batch that a reply tells of."""
        found = [self.dirty.get(token)]
        if scope is Scope.SESSION:
            found.append(self.dirty.get(EVERYTHING))
        if scope is Scope.STORE:
            found += self.dirty.values()
        pending = [batch for batch in found if batch is not None]
        return next((batch for batch in self.newest_first() if batch in pending), None)

    def newest_first(self) -> list[Batch[Any]]:
        journal = self.durable.journal
        batches = [journal.open_batch(), *(sealed for sealed, _ in reversed(journal._sealed))]
        return batches if journal._writing is None else [*batches, journal._writing]

    def check(self, hold: CommitGate | None, awaited: Batch[Any] | None) -> None:
        assert (hold and hold.batch) is awaited

    def settled(self, held: Held) -> None:
        if held.hold.batch.committed:
            return
        reply = body(held.hold.reply_if_undone(0, self.model.now))
        if COMMANDS[held.name].changes:
            assert reply["st"] == 202
            return
        expected = held.ask(self.model)
        assert reply["st"] == expected["st"]
        if held.name == "SH_KEYS":
            assert sorted(reply.get("keys", [])) == sorted(expected.get("keys", []))
        else:
            assert same(reply, expected), (reply, expected)

    def on_keys(self, command: str, place: int, **params: Any) -> None:
        token = NO_TOKEN if place < 0 else self.token(place)
        of = None if token == NO_TOKEN else token
        in_session = {} if of is None else {"tkn": of}
        prefix = "KV" if of is None else "SH"
        sent = {name: wire(name, value) for name, value in params.items()}
        if command == "UPDATE":
            params["path"], sent["path"] = [], "$"
        self.run(
            f"{prefix}_{command}",
            token,
            lambda model: model.on_keys(command, of, params),
            **in_session,
            **sent,
        )

    @precondition(lambda self: len(self.model.sessions) < 5)
    @rule(period=st.one_of(period_settings, st.none()))
    def new(self, period: Settings | None) -> None:
        token = self.next_token = next(self.fresh_tokens)
        self.tokens.append(token)

        def ask(model: Model) -> dict[str, Any]:
            model.begin(token, period, {})
            return {"tkn": token}

        self.run("SH_NEW", token, ask, **({} if period is None else {"expiry": vars(period)}))

    @precondition(lambda self: self.loading is None or self.loading.committed is not None)
    @rule(place=places, period=period_settings, keys=key_values)
    def load(self, place: int, period: Settings, keys: Keys) -> None:
        token = self.token(place)
        stored = Expiry(**vars(period))
        packed = pack(raw(**{key: text(value).decode() for key, value in keys.items()}))
        to_load = pending_load({token: (stored, packed)})
        self.loads += 1
        staged = (
            self.loads,
            self.store.stage(
                self.loads, to_load.prepare_staging(self.durable.engine.everything()[1])
            ),
        )
        gathering = self.durable.journal.open_batch()
        batch = self.loading = self.durable.engine.load(to_load, self.model.now, staged)
        if batch is not None and gathering not in self.newest_first():
            # Nothing but time had come into it: that comes to disk with what is loaded.
            for event in self.since:
                event.batch = batch if event.batch is gathering else event.batch
        assert (token in to_load.sessions) == (token not in self.model.sessions)
        if token in to_load.sessions:
            assert batch is not None
            self.dirty[token] = batch

            def ask(model: Model) -> None:
                model.begin(token, period, dict(keys))

            ask(self.model)
            self.since.append(Event(ask, token, changes=True, batch=batch))

    @rule(place=places)
    def end(self, place: int) -> None:
        token = self.token(place)
        self.run("SH_END", token, lambda model: model.end(token), tkn=token)

    @precondition(lambda self: len(self.model.sessions) > 1)
    @rule()
    def end_all(self) -> None:
        self.run("SH_END_ALL", EVERYTHING, lambda model: model.end_all())

    @rule(place=places, keys=key_values, name=st.sampled_from(["SET", "SET", "ADD", "CLEAR_SET"]))
    def store_keys(self, name: str, place: int, keys: Keys) -> None:
        self.on_keys(name, place, keys=keys)

    @rule(place=places, keys=key_names)
    def remove(self, place: int, keys: list[str]) -> None:
        self.on_keys("RMV", place, keys=keys)

    @rule(place=places, keys=key_names)
    def get(self, place: int, keys: list[str]) -> None:
        self.on_keys("GET", place, keys=keys)

    @rule(place=places, name=st.sampled_from(["CLEAR", "COUNT", "KEYS", "KEYS"]))
    def whole(self, name: str, place: int) -> None:
        self.on_keys(name, place)

    @rule(place=places, key=names, value=trees)
    def update(self, place: int, key: str, value: str) -> None:
        self.on_keys("UPDATE", place, key=key, value=value)

    @rule(place=places, key=names, items=st.lists(trees, max_size=2))
    def arr_append(self, place: int, key: str, items: list[Any]) -> None:
        self.on_keys("ARR_APPEND", place, key=key, items=items)

    @rule()
    def look_at_all(self) -> None:
        self.run("SH_INFO_ALL", NO_TOKEN - 2, lambda model: model.info_all())
        tokens = list(dict.fromkeys([*self.tokens, *self.model.sessions]))
        self.run("SH_EXISTS", NO_TOKEN - 2, lambda model: model.exists(tokens), tkns=tokens)

    # Time

    @rule(ms=st.one_of(st.integers(0, 3000), st.integers(0, FAR)))
    def wait(self, ms: int) -> None:
        self.wait_until(self.model.now + ms)

    @rule(place=places, off=st.sampled_from([-1, 0, 1]))
    def wait_for_a_deadline(self, place: int, off: int) -> None:
        session = self.model.sessions.get(self.token(place))
        if session is not None and session.deadline is not None:
            then = session.deadline + off
            if then < self.model.now + FAR:
                self.wait_until(max(then, self.model.now))

    def wait_until(self, now: int) -> None:
        self.model.live_until(now)
        batch = self.durable.journal.open_batch()
        self.since.append(Event(lambda model: model.live_until(now), None, False, batch))

    @rule()
    def reap(self) -> None:
        self.durable.engine.reap(self.model.now)

    # The disk

    @rule()
    def end_turn(self) -> None:
        self.durable.disk.end_turn()

    @precondition(lambda self: self.durable.disk.writing is not None)
    @rule()
    def batch_is_written(self) -> None:
        batch = self.newest_first()[-1]
        written = [event for event in self.since if event.batch is batch]
        self.since = [event for event in self.since if event.batch is not batch]
        for event in written:
            event.do(self.base)
        self.dirty = {t: dirty for t, dirty in self.dirty.items() if dirty is not batch}
        self.note_deadlines()
        self.reordered.clear()
        self.durable.disk.done(store=self.store)

    @precondition(lambda self: self.durable.disk.writing is not None)
    @rule()
    def batch_fails(self) -> None:
        undone = {event.token for event in self.since if event.changes}
        self.model = self.replayed()
        self.dirty.clear()
        self.durable.now = self.model.now
        self.durable.disk.done("it can't")
        self.adopt_order(undone)
        self.base, self.since = deepcopy(self.model), []

    def replayed(self) -> Model:
        """Return what there is if nothing is changed but by time, and by reading before changes."""
        model, touched = deepcopy(self.base), set[int | None]()
        for event in self.since:
            if event.changes:
                touched.add(event.token)
            elif event.token is None or not {event.token, EVERYTHING} & touched:
                event.do(model)
        return model

    def adopt_order(self, undone: set[int | None]) -> None:
        """See that all keys are there; those that were taken out and put back stand elsewhere."""
        for token, keys in self.all_keys(self.model):
            sessions, independent = self.durable.engine.everything()
            session = sessions.get(token)
            if token == NO_TOKEN:
                session = Session(None, NEVER, independent)
            if session is None or session.deadline <= self.model.now:
                # Its time has come, and nobody has looked at it yet.
                continue
            order = list(unpack(session.keys))
            assert order == list(keys) or token in undone or EVERYTHING in undone
            assert sorted(order) == sorted(keys)
            if order != list(keys):
                self.reordered.add(token)
                values = {key: keys[key] for key in order}
                keys.clear()
                keys.update(values)

    def all_keys(self, model: Model) -> list[tuple[int, Keys]]:
        sessions = [(token, session.keys) for token, session in model.sessions.items()]
        return [*sessions, (NO_TOKEN, model.keys)]

    @rule()
    def retry(self) -> None:
        assert len(self.durable.disk.retries) <= 1
        self.durable.disk.retry()

    @rule()
    def compact(self) -> None:
        self.store.run_compacted(lambda: None)

    @rule(steps=st.integers(1, 3))
    def compact_some(self, steps: int) -> None:
        for _ in range(steps):
            self.store.compact_a_step()

    # Restarts

    @rule()
    def crash(self) -> None:
        copy = self.root / str(next(self.folders))
        subprocess.run(["cp", "-r", str(self.folder), str(copy)], check=True)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder = copy
        expected = self.replayed()
        before, reordered, sure = self.model, self.reordered, self.sure
        self.model = expected
        self.restart(sure, reordered)
        assert self.model.now == before.now

    @rule()
    def stop(self) -> None:
        self.durable.disk.end_turn()
        while self.durable.disk.writing is not None:
            self.batch_is_written()
        self.store.close()
        self.restart(self.sure, self.reordered)

    def restart(self, sure: dict[int, int], reordered: set[int]) -> None:
        """Open the folder again, see that everything is there, and go on with that."""
        store = Stepped(self.folder, "relaxed")
        sessions, keys = content(store)
        now = self.model.now
        assert list(keys) == list(self.model.keys) or NO_TOKEN in reordered
        assert keys == texts(self.model.keys)
        self.model.keys = {key: self.model.keys[key] for key in keys}
        assert self.model.sessions.keys() <= sessions.keys()
        for token, (expiry, deadline, values) in sessions.items():
            session = self.model.sessions.get(token)
            if session is None:
                # It has expired, which is not told to the disk at once.
                assert expiry is not None
                assert expiry.deleteSession
                assert deadline <= now
                continue
            assert expiry == stored(session.settings)
            if expiry is None:
                assert deadline == NEVER
            else:
                assert session.deadline is not None
                assert deadline <= session.deadline
                # That a session was emptied follows from its deadline, and need not be on disk.
                assert sure[token] <= deadline or (deadline <= now and not session.keys)
                session.deadline = deadline
            if deadline > now:
                assert list(values) == list(session.keys) or token in reordered
                assert values == texts(session.keys)
                session.keys = {key: session.keys[key] for key in values}
        self.model.live_until(now)
        self.open(store)
        found, _ = store.read()
        for row, packed in found:
            token = row[0] % 2**64
            expiry, deadline, _ = sessions[token]
            self.durable.engine.restore_session(token, Session(expiry, deadline, packed), now)
        self.durable.engine.restore_keys(store.read()[1])
        store.start()

    # What holds after every step

    @invariant()
    def the_counters_count(self) -> None:
        engine = self.durable.engine
        sessions, keys = engine.everything()
        walked = sum(len(unpack(session.keys)) for session in sessions.values())
        assert engine.totals == (len(sessions), walked, len(keys))
        taken = sum(SESSION_BYTES + keys_size(one.keys) for one in sessions.values())
        assert engine.memory == taken + keys_size(keys)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)


def stored(settings: Settings | None) -> Expiry | None:
    return None if settings is None or settings.duration == 0 else Expiry(**vars(settings))


def texts(keys: Keys) -> dict[str, bytes]:
    return {key: text(value) for key, value in keys.items()}


def wire(name: str, value: Any) -> Any:
    """Return a parameter of the model as it goes over the wire."""
    if name == "key" or (name == "keys" and isinstance(value, list)):
        return value
    if isinstance(value, dict):
        return {key: json.loads(text(tree)) for key, tree in value.items()}
    return json.loads(text(value))


def same(reply: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Tell whether a reply says what the model does, in the same order."""
    said = {name: of for name, of in reply.items() if name != "m"}
    if expected["st"] == 22:
        said.pop("cnt", None)
    keys = expected.get("keys", [])
    if keys and isinstance(keys[0], tuple):
        pairs = [(key, json.loads(value)) for key, value in keys]
        return {**said, "keys": list(said["keys"].items())} == {**expected, "keys": pairs}
    if not keys and "keys" in said:
        return not said["keys"]
    return said == expected


@rounds(few=50, many=500)
def test_what_was_acknowledged_is_there_and_what_was_refused_is_not(
    monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    # Each session and each map of keys is a step of a compaction.
    monkeypatch.setattr("ndb_server.storage.compaction._SESSIONS_PER_STEP", 1)
    monkeypatch.setattr("ndb_server.storage.log.RECORD_SIZE", 4096)
    run_state_machine_as_test(
        DurableMachine,
        settings=settings(max_examples=rounds, stateful_step_count=50),
    )
