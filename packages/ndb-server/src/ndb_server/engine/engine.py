"""The in-memory engine: it executes the commands on sessions and keys.

The engine does no I/O and reads no clock. Every call passes `now`, in milliseconds since the epoch,
which never goes back.

A session expires exactly at its deadline, because every lookup of a session first compares its
deadline with `now` (`_live_session`). `reap` frees the memory of expired sessions that no command
looks up.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from msgspec import UNSET, Raw
from ndb_protocol import COMMANDS, NO_TOKEN, Extends, Status, new_token
from ndb_protocol import messages as m
from ndb_protocol.messages import Expiry

from ..errors import RefusedError
from ..limits import UNLIMITED, Limits
from .batch import Batch
from .edits import Edit
from .eviction import EvictionQueue
from .expiry import Deadlines
from .journal import Journal
from .key_commands import COSTLY, READS, WRITES, TooDeepError
from .keymap import EMPTY, MAX_PACKED_SIZE, apply_edit, copy_keymap, unpack
from .loading import PendingLoad
from .paths import quoted
from .session import NEVER, Session, deadline_after, intern_expiry
from .size_estimate import SESSION_BYTES, growth, keys_size
from .steps import Steps

_T = TypeVar("_T")

_OK = int(Status.OK)

_UNBOUNDED = 2**62
"""More bytes, or steps, than there can be."""

_MEMORY_FULL = "the server's memory limit is reached; remove data, or raise --max-memory"

_Handler = Callable[[Any, int], m.Reply]
"""Runs a command, given its parameters and `now`."""

_DEADLINE_WRITES = 8
"""How often per duration an extended deadline is written: not every read causes a write."""


class Totals(NamedTuple):
    """The numbers of sessions, of their keys, and of independent keys."""

    sessions: int
    sessionKeys: int
    keys: int


class Engine:
    """All sessions and the independent keys.

    Args:
        make_token: returns a random token.
        journal: records every change; without it, changes are not durable.
        limits: the limits on sessions and keys.

    Attributes:
        handlers: the function that runs each command, by the command's name.
        expirations: how many session deadlines have passed.
        unknown_tokens: how many tokens were asked for that no session has.
        limits_reached: how often a request was refused because of a limit, by limit, except for
            `steps`, which counts its own refusals.
        steps: counts and limits the steps of requests through values.
        evictions: how many sessions were evicted to make room for other data.
    """

    def __init__(
        self,
        *,
        make_token: Callable[[], int] = new_token,
        journal: Journal | None = None,
        limits: Limits = UNLIMITED,
    ) -> None:
        self._make_token = make_token
        self._journal = journal
        self._sessions: dict[int, Session] = {}
        self._keys: dict[str, Raw] = {}
        self._session_key_count = 0
        self.expirations = 0
        self._deadlines = Deadlines(self._deadline_of)
        self._limits = limits
        self.steps = Steps(limits.steps)
        # Estimated bytes of the sessions, and of the independent keys.
        self._session_memory = 0
        self._key_memory = 0
        # Up to so many bytes no request can exceed the memory limit, and none is checked: a key of
        # a few bytes takes thirty times as many, and a step of a path makes 64 bytes.
        self._memory_unchecked = _UNBOUNDED
        if limits.memory:
            self._memory_unchecked = limits.memory - max(
                32 * limits.message_size, 64 * (limits.steps or _UNBOUNDED)
            )
        self._checks_packed = (
            0 < limits.key_length < MAX_PACKED_SIZE or 0 < limits.keys < MAX_PACKED_SIZE
        )
        self._eviction_queue = self._new_eviction_queue()
        self.unknown_tokens = 0
        self.limits_reached: Counter[str] = Counter()
        self.evictions = 0
        self.handlers: Mapping[str, _Handler] = {
            "SH_NEW": self._new,
            "SH_END": self._end,
            "SH_END_ALL": self._end_all,
            "SH_EXISTS": self._exists,
            "SH_INFO": self._info,
            "SH_INFO_ALL": self._info_all,
            **{f"SH_{name}": self._session_reader(name) for name in READS},
            **{f"SH_{name}": self._session_writer(name) for name in WRITES},
            **{
                f"KV_{name}": partial(self._read_keys, self._with_steps(name, READS[name]))
                for name in READS
            },
            **{
                f"KV_{name}": partial(self._write_keys, self._write_command(name))
                for name in WRITES
            },
        }

    # Sessions

    def _live_session(self, token: int, now: int) -> Session:
        session = self._sessions.get(token)
        if session is not None and session.deadline <= now:
            session = self._expire(token, session, now)
        if session is None:
            self.unknown_tokens += 1
            raise RefusedError(
                Status.SESSION_NOT_EXIST,
                "no session has this 'tkn': it never existed, has ended or has expired",
            )
        return session

    def _expire(self, token: int, session: Session, now: int) -> Session | None:
        """Delete or empty a session whose deadline has passed; return it if it lives on."""
        expiry = session.expiry
        assert expiry is not None
        self.expirations += 1
        if self._journal is not None:
            self._journal.record_deadline(token)
        if expiry.deleteSession:
            self._remove_session(token, session)
            return None
        self._session_key_count -= len(unpack(session.keys))
        self._session_memory -= keys_size(session.keys) - keys_size(EMPTY)
        session.keys = EMPTY
        # The next period began at the deadline, and more periods may have passed since.
        period = expiry.duration * 1000
        periods = (now - session.deadline) // period + 1
        session.deadline += periods * period
        return session

    def _extend(self, token: int, session: Session, expiry: Expiry, now: int) -> None:
        period = expiry.duration * 1000
        before = session.deadline
        session.deadline = now + period
        if self._journal is not None and session.deadline * _DEADLINE_WRITES // period > (
            before * _DEADLINE_WRITES // period
        ):
            self._journal.record_deadline(token)

    def _new_eviction_queue(self) -> EvictionQueue | None:
        if not self._limits.memory or not self._limits.evict:
            return None
        return EvictionQueue(self._deadline_of, lambda: len(self._sessions))

    def _deadline_of(self, token: int) -> int | None:
        session = self._sessions.get(token)
        return None if session is None or session.expiry is None else session.deadline

    @property
    def totals(self) -> Totals:
        """The numbers of sessions and keys."""
        return Totals(len(self._sessions), self._session_key_count, len(self._keys))

    def reap(self, now: int, limit: int | None = None) -> bool:
        """Expire the sessions whose deadline has passed.

        Args:
            now: the time in ms.
            limit: the most deadline entries to process; None for all that are due.

        Returns:
            Whether more entries may be due at `now`.
        """
        while limit is None or limit > 0:
            token = self._deadlines.pop(now)
            if token is None:
                return False
            if token != NO_TOKEN:
                session = self._expire(token, self._sessions[token], now)
                if session is not None:
                    self._deadlines.add(token, session.deadline, now)
            if limit is not None:
                limit -= 1
        return True

    def _create_session(self, token: int, session: Session, now: int) -> None:
        if self._journal is not None:
            self._journal.record_change(token, None)
        self._add_session(token, session, now)

    def _add_session(self, token: int, session: Session, now: int) -> None:
        self._sessions[token] = session
        self._session_key_count += len(unpack(session.keys))
        self._session_memory += SESSION_BYTES + keys_size(session.keys)
        if session.expiry is not None:
            self._deadlines.add(token, session.deadline, now)
            if self._eviction_queue is not None:
                self._eviction_queue.add(token, session.deadline)

    def _remove_session(self, token: int, session: Session) -> None:
        del self._sessions[token]
        self._session_key_count -= len(unpack(session.keys))
        self._session_memory -= SESSION_BYTES + keys_size(session.keys)

    def _edit_session(
        self, token: int, session: Session, values: dict[str, Raw], edit: Edit
    ) -> None:
        """Apply `edit` to the keys of a session.

        Args:
            token: its token.
            session: the session.
            values: its keys, unpacked.
            edit: the change.

        Raises:
            RefusedError: it would exceed a limit (status 201).
        """
        keymap = session.keys
        if type(keymap) is dict and not edit.clear:
            self._edit_session_map(token, session, keymap, edit)
            return
        count = len(values)
        after = apply_edit(keymap, values, edit)
        kept = len(edit.put if edit.clear else values)
        # Packed keys can exceed no limit but one that is smaller than `MAX_PACKED_SIZE`.
        if type(after) is dict or self._checks_packed:
            self._check_names(edit)
            self._check_count(kept)
        grown = keys_size(after) - keys_size(keymap)
        self._check_memory(grown, token)
        if self._journal is not None:
            self._journal.record_change(token, session)
        session.keys = after
        self._session_memory += grown
        self._session_key_count += kept - count

    def _edit_session_map(
        self, token: int, session: Session, values: dict[str, Raw], edit: Edit
    ) -> None:
        """Apply `edit`, which must not clear, to the keys of a session that are a dict."""
        count = len(values)
        self._check_names(edit)
        if edit.put and count + len(edit.put) > self._limits.keys:
            self._check_count(len(edit.put.keys() | values.keys()))
        grown = growth(values, edit)
        self._check_memory(grown, token)
        edit = edit.copy_values()
        if self._journal is not None:
            self._journal.record_change(token, session, edit)
        apply_edit(values, values, edit)
        self._session_memory += grown
        self._session_key_count += len(values) - count

    # Limits

    @property
    def memory(self) -> int:
        """The estimated bytes of all sessions and keys."""
        return self._session_memory + self._key_memory

    def _refuse(self, status: Status, limit: str, sentence: str) -> RefusedError:
        self.limits_reached[limit] += 1
        return RefusedError(status, sentence)

    def _check_names(self, edit: Edit) -> None:
        limit = self._limits.key_length
        if limit and edit.put and max(map(len, edit.put)) > limit:
            longest = max(edit.put, key=len)
            raise self._refuse(
                Status.LIMIT_EXCEEDED,
                "key_length",
                f"key {quoted(longest)} has {len(longest)} characters; {limit} are allowed",
            )

    def _check_count(self, count: int) -> None:
        limit = self._limits.keys
        if limit and count > limit:
            raise self._refuse(
                Status.LIMIT_EXCEEDED,
                "keys",
                f"'keys' would make {count} keys in the session; {limit} are allowed",
            )

    def _check_memory(self, needed: int, token: int) -> None:
        if self.memory > self._memory_unchecked and not self._make_room(needed, token):
            raise self._refuse(Status.LIMIT_EXCEEDED, "memory", _MEMORY_FULL)

    def _make_room(self, needed: int, token: int = NO_TOKEN) -> bool:
        """Evict sessions until there is memory for new data, if eviction is on.

        Args:
            needed: the bytes of the new data.
            token: a session that must not be evicted.

        Returns:
            Whether there is memory for the new data.
        """
        limit = self._limits.memory
        if needed <= 0 or self.memory + needed <= limit:
            return True
        if self._eviction_queue is None:
            return False
        spared = False
        while self.memory + needed > limit:
            candidate = self._eviction_queue.pop()
            if candidate is None:
                break
            if candidate == token:
                spared = True
                continue
            self._end_session(candidate, self._sessions[candidate])
            self.evictions += 1
        if spared:
            self._eviction_queue.add(token, self._sessions[token].deadline)
        return self.memory + needed <= limit

    # Commands on sessions

    def _new(self, params: m.NewSession, now: int) -> m.TokenReply:
        expiry = None if params.expiry is UNSET else intern_expiry(params.expiry)
        limits = self._limits
        if limits.sessions and len(self._sessions) >= limits.sessions:
            self.reap(now)
            if len(self._sessions) >= limits.sessions:
                raise self._refuse(
                    Status.SESSION_NEW_FAIL,
                    "sessions",
                    f"there are {limits.sessions} sessions already, and no more are allowed",
                )
        if self.memory > self._memory_unchecked and not self._make_room(SESSION_BYTES):
            raise self._refuse(Status.SESSION_NEW_FAIL, "memory", _MEMORY_FULL)
        token = self._make_token()
        while token in self._sessions:
            token = self._make_token()
        self._create_session(token, Session(expiry, deadline_after(expiry, now), EMPTY), now)
        return m.TokenReply(tkn=token)

    def _end(self, params: m.OfSession, now: int) -> m.TokenReply:
        self._end_session(params.tkn, self._live_session(params.tkn, now))
        return m.TokenReply(tkn=params.tkn)

    def _end_session(self, token: int, session: Session) -> None:
        if self._journal is not None:
            self._journal.record_change(token, session)
        self._remove_session(token, session)

    def _end_all(self, _: m.Empty, now: int) -> m.CountReply:
        self.reap(now)
        count = len(self._sessions)
        if self._journal is not None:
            self._journal.record_end_all(
                (
                    self._sessions,
                    self._session_key_count,
                    self._session_memory,
                    self._deadlines,
                    self._eviction_queue,
                )
            )
        self._sessions = {}
        self._session_key_count = 0
        self._session_memory = 0
        self._deadlines = Deadlines(self._deadline_of)
        self._eviction_queue = self._new_eviction_queue()
        return m.CountReply(cnt=count)

    def _exists(self, params: m.Sessions, now: int) -> m.ExistReply:
        found: list[int | str] = [token for token in params.tkns if self._is_live(token, now)]
        self.unknown_tokens += len(params.tkns) - len(found)
        return m.ExistReply(exist=found)

    def _is_live(self, token: int, now: int) -> bool:
        session = self._sessions.get(token)
        return session is not None and (
            session.deadline > now or self._expire(token, session, now) is not None
        )

    def _info(self, params: m.OfSession, now: int) -> m.InfoReply:
        session = self._live_session(params.tkn, now)
        expiry = session.expiry
        return m.InfoReply(
            tkn=params.tkn,
            keyCnt=len(unpack(session.keys)),
            expires=expiry is not None,
            expiry=UNSET
            if expiry is None
            else m.ExpiryInfo(
                duration=expiry.duration,
                deleteSession=expiry.deleteSession,
                extendOnSetAdd=expiry.extendOnSetAdd,
                extendOnGet=expiry.extendOnGet,
                remaining=-((now - session.deadline) // 1000),
            ),
        )

    def _info_all(self, _: m.Empty, now: int) -> m.InfoAllReply:
        self.reap(now)
        return m.InfoAllReply(totalSessions=len(self._sessions), totalKeys=self._session_key_count)

    # Commands on keys

    def _with_steps(self, name: str, command: Callable[..., _T]) -> Callable[..., _T]:
        if name not in COSTLY:
            return command
        steps = self.steps

        def run(values: Any, params: Any) -> _T:
            try:
                return command(values, params, steps)
            finally:
                steps.end_request()

        return run

    def _session_reader(self, name: str) -> _Handler:
        read = self._with_steps(name, READS[name])
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_GET

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live_session(params.tkn, now)
            reply = read(session.keys, params)
            if extends:
                expiry = session.expiry
                if expiry is not None and expiry.extendOnGet:
                    self._extend(params.tkn, session, expiry, now)
            return reply

        return run

    def _write_command(self, name: str) -> Callable[[Any, Any], tuple[m.Reply, Edit]]:
        if name != "UPDATE":
            return self._with_steps(name, WRITES[name])
        write = self._with_steps(name, partial(WRITES[name], depth=self._limits.depth))

        def run(values: Any, params: Any) -> tuple[m.Reply, Edit]:
            try:
                return write(values, params)
            except TooDeepError:
                self.limits_reached["depth"] += 1
                raise

        return run

    def _session_writer(self, name: str) -> _Handler:
        write = self._write_command(name)
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_SET_ADD

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live_session(params.tkn, now)
            values = unpack(session.keys)
            reply, edit = write(values, params)
            if reply.st != _OK:
                return reply
            self._edit_session(params.tkn, session, values, edit)
            if extends:
                expiry = session.expiry
                if expiry is not None and expiry.extendOnSetAdd:
                    self._extend(params.tkn, session, expiry, now)
            return reply

        return run

    def _read_keys(self, read: Callable[..., m.Reply], params: Any, _: int) -> m.Reply:
        return read(self._keys, params)

    def _write_keys(
        self, write: Callable[..., tuple[m.Reply, Edit]], params: Any, _: int
    ) -> m.Reply:
        reply, edit = write(self._keys, params)
        if reply.st == _OK:
            self._check_names(edit)
            self._check_memory(self._key_growth(edit), NO_TOKEN)
            self.edit_keys(edit)
        return reply

    # For saving and loading

    def snapshot(self, now: int, tokens: list[int] | None = None) -> list[tuple[int, Session]]:
        """Return copies of all sessions, or of the sessions of `tokens`."""
        self.reap(now)
        sessions = self._sessions
        chosen: Iterable[int] = sessions
        if tokens is not None:
            # No token from a client becomes a key of a dict before it is known: a client can choose
            # tokens whose hashes collide.
            known = [token for token in tokens if token in sessions]
            self.unknown_tokens += len(tokens) - len(known)
            chosen = dict.fromkeys(known)
        return [
            (token, Session(session.expiry, session.deadline, copy_keymap(session.keys)))
            for token in chosen
            for session in [sessions[token]]
        ]

    def snapshot_keys(self) -> dict[str, Raw]:
        """Return a copy of the independent keys."""
        return self._keys.copy()

    def drop_existing(self, pending: PendingLoad, now: int) -> list[int]:
        """Remove sessions that exist already from a load; return their tokens."""
        known = [
            token
            for token in pending.sessions.keys() & self._sessions.keys()
            if self._is_live(token, now)
        ]
        for token in known:
            pending.drop(token)
        return known

    def check_room(self, pending: PendingLoad, now: int) -> None:
        """Check that a load exceeds no limit; nothing is evicted for it.

        Raises:
            RefusedError: it would exceed a limit (status 142).
        """
        limits = self._limits
        if pending.exceeded is not None:
            raise self._refuse(Status.LOAD_ERROR, *pending.exceeded)
        if limits.sessions and len(self._sessions) + len(pending.sessions) > limits.sessions:
            self.reap(now)
            count = len(self._sessions) + len(pending.sessions)
            if count > limits.sessions:
                raise self._refuse(
                    Status.LOAD_ERROR,
                    "sessions",
                    f"there would be {count} sessions; {limits.sessions} are allowed",
                )
        if limits.memory:
            needed = pending.memory + growth(self._keys, Edit(pending.keys))
            if self.memory + needed > limits.memory:
                raise self._refuse(Status.LOAD_ERROR, "memory", _MEMORY_FULL)

    def load(
        self, pending: PendingLoad, now: int, staged: tuple[int, int] | None = None
    ) -> Batch[Any] | None:
        """Load sessions, with their full duration, and independent keys: all of them or none.

        A session that exists already is left unchanged. An independent key is overwritten.

        Args:
            pending: the data to load. Sessions that exist already are removed from it.
            now: the time in ms.
            staged: the number of the load and the number of its parts, if there is a store.

        Returns:
            The batch of the load; None if there is no journal, or nothing to load.

        Raises:
            RefusedError: the load would exceed a limit (status 142).
        """
        known = self.drop_existing(pending, now)
        self.check_room(pending, now)
        sessions, edit = pending.sessions, Edit(pending.keys)
        if not sessions and not edit.put:
            return None
        for session in sessions.values():
            session.deadline = deadline_after(session.expiry, now)
        expiring = [token for token, session in sessions.items() if session.expiry is not None]
        # First, as memory may run out in what follows: entries without a session do no harm.
        self._deadlines.add_all(expiring)
        if self._eviction_queue is not None:
            for token in expiring:
                self._eviction_queue.add(token, sessions[token].deadline)
        grown = growth(self._keys, edit)
        if self._journal is not None:
            load = None if staged is None else pending.commit(*staged, now, known, self._keys)
            self._journal.begin_load(load, sessions, edit, self._keys)
        try:
            # Each allocates first. After that it can't fail.
            self._sessions.update(sessions)
            self._keys.update(pending.keys)
        except MemoryError:
            for token in sessions:
                self._sessions.pop(token, None)
            if self._journal is not None:
                self._journal.cancel_load()
            raise
        self._session_key_count += pending.session_keys
        self._session_memory += pending.memory
        self._key_memory += grown
        return None if self._journal is None else self._journal.finish_load()

    def edit_keys(self, edit: Edit) -> None:
        """Change the independent keys."""
        edit = edit.copy_values()
        if self._journal is not None:
            self._journal.record_change(NO_TOKEN, Session(None, NEVER, self._keys), edit)
        self._key_memory += self._key_growth(edit)
        if edit.clear:
            self._keys = dict(edit.put)
        else:
            edit.apply(self._keys)

    def _key_growth(self, edit: Edit) -> int:
        return growth({}, edit) - self._key_memory if edit.clear else growth(self._keys, edit)

    # For the store and the journal

    def restore_session(self, token: int, session: Session, now: int) -> None:
        """Add a session that was read from disk: it is no change for the journal."""
        self._add_session(token, session, now)

    def restore_keys(self, keys: dict[str, Raw]) -> None:
        """Set the independent keys that were read from disk: they are no change for the journal."""
        self._keys = keys
        self._key_memory = keys_size(keys)

    def everything(self) -> tuple[Mapping[int, Session], dict[str, Raw]]:
        """Return the sessions by their tokens, and the independent keys, without copying."""
        return self._sessions, self._keys

    def undo(self, batch: Batch[Any]) -> None:
        """Restore the state before `batch`. Deadlines that have passed since take effect again."""
        self._restore_images(batch, batch.before_images)
        if batch.all_sessions_image is not None:
            (
                self._sessions,
                self._session_key_count,
                self._session_memory,
                self._deadlines,
                self._eviction_queue,
            ) = batch.all_sessions_image
            self._restore_images(batch, batch.images_before_end_all)

    def _restore_images(self, batch: Batch[Any], before: Mapping[int, Session | None]) -> None:
        # Remove all first, to subtract their sizes before their maps are restored.
        deadlines: dict[int, int] = {}
        for token in before:
            session = self._sessions.get(token)
            if session is not None:
                deadlines[token] = session.deadline
                self._remove_session(token, session)
        for token, image in batch.restored_images(before):
            if token == NO_TOKEN:
                assert image is not None
                self.restore_keys(image.keys)  # type: ignore[arg-type]
            elif image is not None:
                self._sessions[token] = image
                self._session_key_count += len(unpack(image.keys))
                self._session_memory += SESSION_BYTES + keys_size(image.keys)
                # A session that was there has an entry, unless its deadline has moved.
                if image.expiry is not None and deadlines.get(token) != image.deadline:
                    began = deadlines.get(token, image.deadline) - image.expiry.duration * 1000
                    self._deadlines.add(token, image.deadline, began)
                    if self._eviction_queue is not None and token not in deadlines:
                        self._eviction_queue.add(token, image.deadline)
