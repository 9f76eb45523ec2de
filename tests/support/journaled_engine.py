"""An engine with its journal, whose way to disk the test holds in its hands."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from msgspec import Raw
from ndb_protocol import new_token
from ndb_protocol.messages import Expiry
from ndb_server.dispatch.dispatcher import Dispatcher
from ndb_server.engine.batch import ChangeSet
from ndb_server.engine.engine import Engine
from ndb_server.engine.journal import Journal
from ndb_server.engine.keymap import unpack
from ndb_server.engine.record import deadline_of, expiry_of, unsigned
from ndb_server.interfaces import CommitGate
from ndb_server.limits import UNLIMITED, Limits
from ndb_server.storage.store import Store

from tests.support.waiting import BOUND

START = 1_700_000_000_000

OnDisk = tuple[dict[int, tuple[Expiry | None, int, dict[str, bytes]]], dict[str, bytes]]
"""Sessions (settings, deadline and keys), and the independent keys."""


class Disk:
    """What the journal writes to: a batch stays on its way until the test says what became of it.

    Attributes:
        writing: the batch on its way, and whom to tell.
        soon: what is to be done once the turn is over.
        retries: what is to be done in a while.
    """

    def __init__(self) -> None:
        self.writing: tuple[ChangeSet, Callable[[str | None], None]] | None = None
        self.soon: list[Callable[[], None]] = []
        self.retries: list[Callable[[], None]] = []

    def write(self, changed: ChangeSet, written: Callable[[str | None], None]) -> None:
        assert self.writing is None, "one batch is written at a time"
        self.writing = changed, written

    def later(self, delay: float, action: Callable[[], None]) -> None:
        (self.retries if delay else self.soon).append(action)

    def end_turn(self) -> None:
        soon, self.soon = self.soon, []
        for action in soon:
            action()

    def retry(self) -> None:
        retries, self.retries = self.retries, []
        for action in retries:
            action()

    def done(self, trouble: str | None = None, store: Store | None = None) -> ChangeSet:
        """Let the batch on its way be written, to `store` if given, or not for `trouble`."""
        assert self.writing is not None
        (changed, written), self.writing = self.writing, None
        if store is not None and trouble is None:
            trouble = write(store, changed)
        written(trouble)
        return changed


class Durable:
    """The commands of a server that keeps what it is told, answered at once."""

    def __init__(
        self, make_token: Callable[[], int] = new_token, limits: Limits = UNLIMITED
    ) -> None:
        self.now = START
        self.disk = Disk()
        self.journal = Journal(self.disk.write, self.disk.later)
        self.engine = Engine(make_token=make_token, journal=self.journal, limits=limits)
        self.journal.engine = self.engine
        self.dispatcher = Dispatcher(self.engine.handlers, self.journal)

    def ask_held(self, command: str, /, **params: Any) -> tuple[dict[str, Any], CommitGate | None]:
        """Return the body of the reply to a request, and what the reply has to wait for."""
        message = json.dumps({command: params}, ensure_ascii=False, separators=(",", ":"))
        [reply], hold = self.dispatcher.dispatch([message.encode()], self.now)
        assert not isinstance(reply, Awaitable)
        return body(reply), hold

    def ask(self, command: str, /, **params: Any) -> dict[str, Any]:
        return self.ask_held(command, **params)[0]

    def new(self, **expiry: Any) -> int:
        token: int = self.ask("SH_NEW", **({"expiry": expiry} if expiry else {}))["tkn"]
        return token

    def settle(self, trouble: str | None = None, store: Store | None = None) -> None:
        """Write all that has changed, or let it fail."""
        self.disk.end_turn()
        while self.disk.writing is not None:
            self.disk.done(trouble, store)
            self.disk.end_turn()


def body(reply: bytes) -> dict[str, Any]:
    [of] = json.loads(reply).values()
    assert isinstance(of, dict)
    return of


def write(store: Store, changed: ChangeSet) -> str | None:
    """Have a batch written, and return what came of it."""
    answers: SimpleQueue[str | None] = SimpleQueue()
    store.write(changed, answers.put)
    return answers.get(timeout=BOUND)


def raw(**keys: str) -> dict[str, Raw]:
    return {key: Raw(value.encode()) for key, value in keys.items()}


def on_disk(folder: Path) -> OnDisk:
    """Return all that a server would find in a folder, and leave it as a server that was killed."""
    store = Store(folder)
    try:
        return content(store)
    finally:
        store.start()
        store.close()


def content(store: Store) -> OnDisk:
    sessions, keys = store.read()
    return (
        {
            unsigned(row[0]): (expiry_of(row), deadline_of(row), values(packed))
            for row, packed in sessions
        },
        values(keys),
    )


def values(packed: Any) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in unpack(packed).items()}
