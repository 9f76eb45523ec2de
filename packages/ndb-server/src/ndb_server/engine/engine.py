"""The in-memory engine: it executes the commands on sessions and keys.

Pure: it opens no files and reads no clock. Every call passes `now`, in milliseconds since the
epoch, which never goes back.

A session expires exactly at its deadline, because every lookup of a session first compares its
deadline with `now` (`_live`). `reap` frees the memory of expired sessions that nobody looks up.
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
from .eviction import Nearest
from .expiry import Deadlines
from .journal import Journal
from .key_commands import COSTLY, READS, WRITES, TooDeepError
from .keymap import EMPTY, MAX_PACKED_SIZE, apply_edit, copy_keys, unpack
from .loading import Coming
from .paths import show
from .session import NEVER, Session, deadline_after, intern_expiry
from .size_estimate import SESSION_BYTES, growth, keys_size
from .steps import Steps

_T = TypeVar("_T")

_OK = int(Status.OK)

_MUCH = 2**62
"""More bytes than there are."""

_FULL = "the server's memory limit is reached; remove data, or raise --max-memory"

Handler = Callable[[Any, int], m.Reply]
"""Runs a command, given its parameters and `now`."""


_STEPS = 8
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
        journal: told of every change, if given.
        limits: the limits on sessions and keys.

    Attributes:
        handlers: the function that runs each command, by the command's name.
        expirations: how many session deadlines have passed.
        unknown_tokens: how many tokens were asked for that no session has.
        reached: how often a request was refused because of a limit, by limit; `steps` counts its
            own refusals.
        steps: counts the steps that a request takes through values.
        evicted: how many sessions were evicted to make room for other data.
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
        self._session_keys = 0
        self.expirations = 0
        self._deadlines = Deadlines(self._deadline_of)
        self._limits = limits
        self.steps = Steps(limits.steps)
        # Bytes that sessions take, and independent keys.
        self._session_memory = 0
        self._key_memory = 0
        # Below this, no request can need more than there is: a key of a few bytes takes thirty
        # times as many, and following a path makes 64 bytes with each step.
        self._nearly_full = _MUCH
        if limits.memory:
            self._nearly_full = limits.memory - max(
                32 * limits.message_size, 64 * (limits.steps or _MUCH)
            )
        self._is_narrow = (
            0 < limits.key_length < MAX_PACKED_SIZE or 0 < limits.keys < MAX_PACKED_SIZE
        )
        self._nearest = self._no_nearest()
        self.unknown_tokens = 0
        self.reached: Counter[str] = Counter()
        self.evicted = 0
        self.handlers: Mapping[str, Handler] = {
            "SH_NEW": self._new,
            "SH_END": self._end,
            "SH_END_ALL": self._end_all,
            "SH_EXISTS": self._exists,
            "SH_INFO": self._info,
            "SH_INFO_ALL": self._info_all,
            **{f"SH_{name}": self._session_read(name) for name in READS},
            **{f"SH_{name}": self._session_write(name) for name in WRITES},
            **{
                f"KV_{name}": partial(self._keys_read, self._bounded(name, READS[name]))
                for name in READS
            },
            **{f"KV_{name}": partial(self._keys_write, self._write(name)) for name in WRITES},
        }

    # Sessions

    def _live(self, token: int, now: int) -> Session:
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
        """Do what the deadline of `session` demands; return it if it lives on."""
        expiry = session.expiry
        assert expiry is not None
        self.expirations += 1
        if self._journal is not None:
            self._journal.record_deadline(token)
        if expiry.deleteSession:
            self._remove(token, session)
            return None
        self._session_keys -= len(unpack(session.keys))
        self._session_memory -= keys_size(session.keys) - keys_size(EMPTY)
        session.keys = EMPTY
        # The next period began at the deadline, and perhaps others have passed since.
        period = expiry.duration * 1000
        periods = (now - session.deadline) // period + 1
        session.deadline += periods * period
        return session

    def _extend(self, token: int, session: Session, expiry: Expiry, now: int) -> None:
        period = expiry.duration * 1000
        before = session.deadline
        session.deadline = now + period
        if self._journal is not None and session.deadline * _STEPS // period > (
            before * _STEPS // period
        ):
            self._journal.record_deadline(token)

    def _no_nearest(self) -> Nearest | None:
        if not self._limits.memory or not self._limits.evict:
            return None
        return Nearest(self._deadline_of, lambda: len(self._sessions))

    def _deadline_of(self, token: int) -> int | None:
        session = self._sessions.get(token)
        return None if session is None or session.expiry is None else session.deadline

    @property
    def totals(self) -> Totals:
        """How much there is."""
        return Totals(len(self._sessions), self._session_keys, len(self._keys))

    def reap(self, now: int, limit: int | None = None) -> bool:
        """Let sessions whose deadline has come expire.

        Args:
            now: the time in ms.
            limit: how many entries of deadlines to look at, at most; None = all that have come up.

        Returns:
            Whether there may be more at `now`.
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

    def _insert(self, token: int, session: Session, now: int) -> None:
        if self._journal is not None:
            self._journal.record_change(token, None)
        self._put_in(token, session, now)

    def _put_in(self, token: int, session: Session, now: int) -> None:
        self._sessions[token] = session
        self._session_keys += len(unpack(session.keys))
        self._session_memory += SESSION_BYTES + keys_size(session.keys)
        if session.expiry is not None:
            self._deadlines.add(token, session.deadline, now)
            if self._nearest is not None:
                self._nearest.add(token, session.deadline)

    def _remove(self, token: int, session: Session) -> None:
        del self._sessions[token]
        self._session_keys -= len(unpack(session.keys))
        self._session_memory -= SESSION_BYTES + keys_size(session.keys)

    def _edit(self, token: int, session: Session, values: dict[str, Raw], edit: Edit) -> None:
        """Make `edit` in the keys of a session, unpacked; refuse (201) what is beyond a limit."""
        keymap = session.keys
        if type(keymap) is dict and not edit.clear:
            self._edit_map(token, session, keymap, edit)
            return
        count = len(values)
        after = apply_edit(keymap, values, edit)
        kept = len(edit.put if edit.clear else values)
        # Packed keys can exceed no limit but one that is smaller than `MAX_PACKED_SIZE`.
        if type(after) is dict or self._is_narrow:
            self._check_names(edit)
            self._check_count(kept)
        grown = keys_size(after) - keys_size(keymap)
        self._check_memory(grown, token)
        if self._journal is not None:
            self._journal.record_change(token, session)
        session.keys = after
        self._session_memory += grown
        self._session_keys += kept - count

    def _edit_map(self, token: int, session: Session, values: dict[str, Raw], edit: Edit) -> None:
        """Make `edit`, which is not to clear, in the keys of a session that are a dict."""
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
        self._session_keys += len(values) - count

    # Limits

    @property
    def memory(self) -> int:
        """How many bytes sessions and keys take, estimated."""
        return self._session_memory + self._key_memory

    def _refuse(self, status: Status, limit: str, sentence: str) -> RefusedError:
        self.reached[limit] += 1
        return RefusedError(status, sentence)

    def _check_names(self, edit: Edit) -> None:
        most = self._limits.key_length
        if most and edit.put and max(map(len, edit.put)) > most:
            longest = max(edit.put, key=len)
            raise self._refuse(
                Status.LIMIT_EXCEEDED,
                "key_length",
                f"key {show(longest)} has {len(longest)} characters; {most} are allowed",
            )

    def _check_count(self, count: int) -> None:
        most = self._limits.keys
        if most and count > most:
            raise self._refuse(
                Status.LIMIT_EXCEEDED,
                "keys",
                f"'keys' would make {count} keys in the session; {most} are allowed",
            )

    def _check_memory(self, needed: int, token: int) -> None:
        if self.memory > self._nearly_full and not self._has_room(needed, token):
            raise self._refuse(Status.LIMIT_EXCEEDED, "memory", _FULL)

    def _has_room(self, needed: int, token: int = NO_TOKEN) -> bool:
        """Tell whether there is room for as many bytes more; make some if sessions may go.

        Args:
            needed: how many bytes.
            token: a session that must stay.
        """
        limit = self._limits.memory
        if needed <= 0 or self.memory + needed <= limit:
            return True
        if self._nearest is None:
            return False
        spared = False
        while self.memory + needed > limit:
            nearest = self._nearest.pop()
            if nearest is None:
                break
            if nearest == token:
                spared = True
                continue
            self._end_one(nearest, self._sessions[nearest])
            self.evicted += 1
        if spared:
            self._nearest.add(token, self._sessions[token].deadline)
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
        if self.memory > self._nearly_full and not self._has_room(SESSION_BYTES):
            raise self._refuse(Status.SESSION_NEW_FAIL, "memory", _FULL)
        token = self._make_token()
        while token in self._sessions:
            token = self._make_token()
        self._insert(token, Session(expiry, deadline_after(expiry, now), EMPTY), now)
        return m.TokenReply(tkn=token)

    def _end(self, params: m.OfSession, now: int) -> m.TokenReply:
        self._end_one(params.tkn, self._live(params.tkn, now))
        return m.TokenReply(tkn=params.tkn)

    def _end_one(self, token: int, session: Session) -> None:
        if self._journal is not None:
            self._journal.record_change(token, session)
        self._remove(token, session)

    def _end_all(self, _: m.Empty, now: int) -> m.CountReply:
        self.reap(now)
        count = len(self._sessions)
        if self._journal is not None:
            self._journal.record_end_all(
                (
                    self._sessions,
                    self._session_keys,
                    self._session_memory,
                    self._deadlines,
                    self._nearest,
                )
            )
        self._sessions = {}
        self._session_keys = 0
        self._session_memory = 0
        self._deadlines = Deadlines(self._deadline_of)
        self._nearest = self._no_nearest()
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
        session = self._live(params.tkn, now)
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
        return m.InfoAllReply(totalSessions=len(self._sessions), totalKeys=self._session_keys)

    # Commands on keys

    def _bounded(self, name: str, command: Callable[..., _T]) -> Callable[..., _T]:
        if name not in COSTLY:
            return command
        steps = self.steps

        def run(values: Any, params: Any) -> _T:
            try:
                return command(values, params, steps)
            finally:
                steps.end()

        return run

    def _session_read(self, name: str) -> Handler:
        read = self._bounded(name, READS[name])
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_GET

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live(params.tkn, now)
            reply = read(session.keys, params)
            if extends:
                expiry = session.expiry
                if expiry is not None and expiry.extendOnGet:
                    self._extend(params.tkn, session, expiry, now)
            return reply

        return run

    def _write(self, name: str) -> Callable[[Any, Any], tuple[m.Reply, Edit]]:
        if name != "UPDATE":
            return self._bounded(name, WRITES[name])
        write = self._bounded(name, partial(WRITES[name], depth=self._limits.depth))

        def run(values: Any, params: Any) -> tuple[m.Reply, Edit]:
            try:
                return write(values, params)
            except TooDeepError:
                self.reached["depth"] += 1
                raise

        return run

    def _session_write(self, name: str) -> Handler:
        write = self._write(name)
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_SET_ADD

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live(params.tkn, now)
            values = unpack(session.keys)
            reply, edit = write(values, params)
            if reply.st != _OK:
                return reply
            self._edit(params.tkn, session, values, edit)
            if extends:
                expiry = session.expiry
                if expiry is not None and expiry.extendOnSetAdd:
                    self._extend(params.tkn, session, expiry, now)
            return reply

        return run

    def _keys_read(self, read: Callable[..., m.Reply], params: Any, _: int) -> m.Reply:
        return read(self._keys, params)

    def _keys_write(
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
        """Return the sessions of this moment, all or those of `tokens`, as copies."""
        self.reap(now)
        sessions = self._sessions
        chosen: Iterable[int] = sessions
        if tokens is not None:
            # Only tokens that were made here become keys of a table: others may be chosen so that
            # they collide, as the hash of a number is no secret.
            known = [token for token in tokens if token in sessions]
            self.unknown_tokens += len(tokens) - len(known)
            chosen = dict.fromkeys(known)
        return [
            (token, Session(session.expiry, session.deadline, copy_keys(session.keys)))
            for token in chosen
            for session in [sessions[token]]
        ]

    def snapshot_keys(self) -> dict[str, Raw]:
        """Return the independent keys of this moment, as a copy."""
        return self._keys.copy()

    def drop_known(self, coming: Coming, now: int) -> list[int]:
        """Take out of what is to be loaded the sessions that exist already; return their tokens."""
        known = [
            token
            for token in coming.sessions.keys() & self._sessions.keys()
            if self._is_live(token, now)
        ]
        for token in known:
            coming.drop(token)
        return known

    def check_room(self, coming: Coming, now: int) -> None:
        """See that there is room for what is to be loaded; nothing makes room for it.

        Raises:
            RefusedError: there isn't.
        """
        limits = self._limits
        if coming.beyond is not None:
            raise self._refuse(Status.LOAD_ERROR, *coming.beyond)
        if limits.sessions and len(self._sessions) + len(coming.sessions) > limits.sessions:
            self.reap(now)
            there = len(self._sessions) + len(coming.sessions)
            if there > limits.sessions:
                raise self._refuse(
                    Status.LOAD_ERROR,
                    "sessions",
                    f"there would be {there} sessions; {limits.sessions} are allowed",
                )
        if limits.memory:
            needed = coming.memory + growth(self._keys, Edit(coming.keys))
            if self.memory + needed > limits.memory:
                raise self._refuse(Status.LOAD_ERROR, "memory", _FULL)

    def load(
        self, coming: Coming, now: int, staged: tuple[int, int] | None = None
    ) -> Batch[Any] | None:
        """Take in what was saved, all of it: sessions, with their full duration, and keys.

        A session that exists already stays as it is; an independent key is overwritten.

        Args:
            coming: what is to be loaded; the sessions that exist already are taken out of it.
            now: the time in ms.
            staged: the number of the load, and of how many parts it is, if there is a store.

        Returns:
            The batch that makes it durable; None if there is no journal, or nothing to load.

        Raises:
            RefusedError: there is no room for all of it.
        """
        known = self.drop_known(coming, now)
        self.check_room(coming, now)
        sessions, edit = coming.sessions, Edit(coming.keys)
        if not sessions and not edit.put:
            return None
        for session in sessions.values():
            session.deadline = deadline_after(session.expiry, now)
        expiring = [token for token, session in sessions.items() if session.expiry is not None]
        # Entries of sessions that are not there do no harm: there may be no memory for the rest.
        self._deadlines.add_all(expiring)
        if self._nearest is not None:
            for token in expiring:
                self._nearest.add(token, sessions[token].deadline)
        grown = growth(self._keys, edit)
        if self._journal is not None:
            load = None if staged is None else coming.counts(*staged, now, known, self._keys)
            self._journal.begin_load(load, sessions, edit, self._keys)
        try:
            # Each makes room first, and then can't fail.
            self._sessions.update(sessions)
            self._keys.update(coming.keys)
        except MemoryError:
            for token in sessions:
                self._sessions.pop(token, None)
            if self._journal is not None:
                self._journal.cancel_load()
            raise
        self._session_keys += coming.session_keys
        self._session_memory += coming.memory
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

    # For what is on disk

    def resume(self, token: int, session: Session, now: int) -> None:
        """Go on with a session that is on disk; whatever its deadline, it is not in the journal."""
        self._put_in(token, session, now)

    def resume_keys(self, keys: dict[str, Raw]) -> None:
        """Go on with the independent keys that are on disk."""
        self._keys = keys
        self._key_memory = keys_size(keys)

    def everything(self) -> tuple[Mapping[int, Session], dict[str, Raw]]:
        """Return the sessions by their tokens, and the independent keys, as they are."""
        return self._sessions, self._keys

    def undo(self, batch: Batch[Any]) -> None:
        """Put back what `batch` found. What time has done to it meanwhile, it does again."""
        self._put_back(batch, batch.before_images)
        if batch.all_sessions_image is not None:
            (
                self._sessions,
                self._session_keys,
                self._session_memory,
                self._deadlines,
                self._nearest,
            ) = batch.all_sessions_image
            self._put_back(batch, batch.images_before_end_all)

    def _put_back(self, batch: Batch[Any], before: Mapping[int, Session | None]) -> None:
        # Out first, all of them: a map that is put back is the one that is counted out.
        deadlines: dict[int, int] = {}
        for token in before:
            session = self._sessions.get(token)
            if session is not None:
                deadlines[token] = session.deadline
                self._remove(token, session)
        for token, image in batch.restored_images(before):
            if token == NO_TOKEN:
                assert image is not None
                self.resume_keys(image.keys)  # type: ignore[arg-type]
            elif image is not None:
                self._sessions[token] = image
                self._session_keys += len(unpack(image.keys))
                self._session_memory += SESSION_BYTES + keys_size(image.keys)
                # One that stayed has its entry, unless that has moved on.
                if image.expiry is not None and deadlines.get(token) != image.deadline:
                    began = deadlines.get(token, image.deadline) - image.expiry.duration * 1000
                    self._deadlines.add(token, image.deadline, began)
                    if self._nearest is not None and token not in deadlines:
                        self._nearest.add(token, image.deadline)
