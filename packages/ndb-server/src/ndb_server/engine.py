"""The in-memory engine: what the commands do to sessions and keys.

Pure: it opens nothing and asks no clock. Every call brings `now`, in milliseconds since the epoch,
which never goes back.

A session expires at its deadline, to the millisecond, because whoever looks a session up compares
its deadline with `now` first (`_live`). `reap` gives back the memory of those nobody looks up.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from msgspec import UNSET, Raw
from ndb_protocol import COMMANDS, NO_TOKEN, Extends, Status, new_token
from ndb_protocol import messages as m
from ndb_protocol.messages import Expiry

from .batches import Batch
from .deadlines import Deadlines
from .edits import Edit
from .errors import RefusedError
from .journal import Journal
from .keyspace import READS, WRITES
from .packing import EMPTY, Packed, copied, edited, unpack
from .sessions import NEVER, Session, deadline_after, settings

_OK = int(Status.OK)

Handler = Callable[[Any, int], m.Reply]
"""Runs a command, given its parameters and `now`."""


_STEPS = 8
"""How often in a duration a deadline that moves is told to the journal: reading is no writing."""


class Totals(NamedTuple):
    """How much there is of sessions, of their keys, and of independent keys."""

    sessions: int
    sessionKeys: int
    keys: int


class Engine:
    """All sessions and the independent keys.

    Args:
        make_token: returns a random token.
        journal: told of every change, if given.

    Attributes:
        handlers: runs each command, by its name.
        expirations: how many times a session's deadline has come.
    """

    def __init__(
        self, *, make_token: Callable[[], int] = new_token, journal: Journal | None = None
    ) -> None:
        self._make_token = make_token
        self._journal = journal
        self._sessions: dict[int, Session] = {}
        self._keys: dict[str, Raw] = {}
        self._session_keys = 0
        self.expirations = 0
        self._deadlines = Deadlines(self._deadline_of)
        self.handlers: Mapping[str, Handler] = {
            "SH_NEW": self._new,
            "SH_END": self._end,
            "SH_END_ALL": self._end_all,
            "SH_EXISTS": self._exists,
            "SH_INFO": self._info,
            "SH_INFO_ALL": self._info_all,
            **{f"SH_{name}": self._session_read(name) for name in READS},
            **{f"SH_{name}": self._session_write(name) for name in WRITES},
            **{f"KV_{name}": partial(self._keys_read, READS[name]) for name in READS},
            **{f"KV_{name}": partial(self._keys_write, WRITES[name]) for name in WRITES},
        }

    # Sessions

    def _live(self, token: int, now: int) -> Session:
        session = self._sessions.get(token)
        if session is not None and session.deadline <= now:
            session = self._expire(token, session, now)
        if session is None:
            raise RefusedError(
                Status.SESSION_NOT_EXIST,
                "no session has this 'tkn': it never was, has ended or has expired",
            )
        return session

    def _expire(self, token: int, session: Session, now: int) -> Session | None:
        """Do what the deadline of `session` demands; return it if it lives on."""
        expiry = session.expiry
        assert expiry is not None
        self.expirations += 1
        if self._journal is not None:
            self._journal.timed(token)
        if expiry.deleteSession:
            self._remove(token, session)
            return None
        self._session_keys -= len(unpack(session.packed))
        session.packed = EMPTY
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
            self._journal.timed(token)

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
            self._journal.changing(token, None)
        self._put_in(token, session, now)

    def _put_in(self, token: int, session: Session, now: int) -> None:
        self._sessions[token] = session
        self._session_keys += len(unpack(session.packed))
        if session.expiry is not None:
            self._deadlines.add(token, session.deadline, now)

    def _remove(self, token: int, session: Session) -> None:
        del self._sessions[token]
        self._session_keys -= len(unpack(session.packed))

    def _edit(self, token: int, session: Session, values: dict[str, Raw], edit: Edit) -> None:
        if type(session.packed) is dict:
            edit = edit.owned()
        if self._journal is not None:
            self._journal.changing(token, session, edit)
        before = len(values)
        session.packed = edited(session.packed, values, edit)
        self._session_keys += len(edit.put if edit.clear else values) - before

    # Commands on sessions

    def _new(self, params: m.NewSession, now: int) -> m.TokenReply:
        expiry = None if params.expiry is UNSET else settings(params.expiry)
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
            self._journal.changing(token, session)
        self._remove(token, session)

    def _end_all(self, _: m.Empty, now: int) -> m.CountReply:
        self.reap(now)
        count = len(self._sessions)
        if self._journal is not None:
            self._journal.ending_all((self._sessions, self._session_keys, self._deadlines))
        self._sessions = {}
        self._session_keys = 0
        self._deadlines = Deadlines(self._deadline_of)
        return m.CountReply(cnt=count)

    def _exists(self, params: m.Sessions, now: int) -> m.ExistReply:
        return m.ExistReply(exist=[token for token in params.tkns if self._is_live(token, now)])

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
            keyCnt=len(unpack(session.packed)),
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

    def _session_read(self, name: str) -> Handler:
        read = READS[name]
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_GET

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live(params.tkn, now)
            reply = read(session.packed, params)
            if extends:
                expiry = session.expiry
                if expiry is not None and expiry.extendOnGet:
                    self._extend(params.tkn, session, expiry, now)
            return reply

        return run

    def _session_write(self, name: str) -> Handler:
        write = WRITES[name]
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_SET_ADD

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live(params.tkn, now)
            values = unpack(session.packed)
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
            self.edit_keys(edit)
        return reply

    # For saving and loading

    def snapshot(self, now: int, tokens: list[int] | None = None) -> list[tuple[int, Session]]:
        """Return the sessions of this moment, all or those of `tokens`, as copies."""
        self.reap(now)
        chosen = self._sessions if tokens is None else dict.fromkeys(tokens)
        return [
            (token, Session(session.expiry, session.deadline, copied(session.packed)))
            for token in chosen
            if (session := self._sessions.get(token)) is not None
        ]

    def snapshot_keys(self) -> dict[str, Raw]:
        """Return the independent keys of this moment, as a copy."""
        return self._keys.copy()

    def restore(self, token: int, expiry: Expiry | None, packed: Packed, now: int) -> bool:
        """Begin a session that was saved, with its full duration; not if it exists already.

        Returns:
            Whether it did not exist.
        """
        if self._is_live(token, now):
            return False
        kept = None if expiry is None else settings(expiry)
        self._insert(token, Session(kept, deadline_after(kept, now), packed), now)
        return True

    def edit_keys(self, edit: Edit) -> None:
        """Change the independent keys."""
        edit = edit.owned()
        if self._journal is not None:
            self._journal.changing(NO_TOKEN, Session(None, NEVER, self._keys), edit)
        if edit.clear:
            self._keys = dict(edit.put)
        else:
            edit.apply(self._keys)

    # What is taken back because the disk failed must not come back when it fails again: it goes to
    # disk when it can, and is never undone.

    def take_back(self, tokens: Iterable[int]) -> None:
        """End those of `tokens` that exist."""
        for token in tokens:
            session = self._sessions.get(token)
            if session is not None:
                self._remove(token, session)
                if self._journal is not None:
                    self._journal.timed(token)

    def take_back_keys(self, loaded: Mapping[str, Raw], before: Mapping[str, Raw]) -> None:
        """Make of the keys that are as they were loaded what they were before."""
        for key in [key for key, value in loaded.items() if self._keys.get(key) == value]:
            if key in before:
                self._keys[key] = before[key]
            else:
                del self._keys[key]
        if self._journal is not None:
            self._journal.rewritten(NO_TOKEN)

    # For what is on disk

    def resume(self, token: int, session: Session, now: int) -> None:
        """Go on with a session that is on disk; whatever its deadline, it is not in the journal."""
        self._put_in(token, session, now)

    def resume_keys(self, keys: dict[str, Raw]) -> None:
        """Go on with the independent keys that are on disk."""
        self._keys = keys

    def everything(self) -> tuple[Mapping[int, Session], dict[str, Raw]]:
        """Return the sessions by their tokens, and the independent keys, as they are."""
        return self._sessions, self._keys

    def undo(self, batch: Batch[Any]) -> None:
        """Put back what `batch` found. What time has done to it meanwhile, it does again."""
        self._put_back(batch, batch.before)
        if batch.all_before is not None:
            self._sessions, self._session_keys, self._deadlines = batch.all_before
            self._put_back(batch, batch.before_all)

    def _put_back(self, batch: Batch[Any], before: Mapping[int, Session | None]) -> None:
        # Out first, all of them: a map that is put back is the one that is counted out.
        deadlines: dict[int, int] = {}
        for token in before:
            session = self._sessions.get(token)
            if session is not None:
                deadlines[token] = session.deadline
                self._remove(token, session)
        for token, image in batch.images(before):
            if token == NO_TOKEN:
                assert image is not None
                self._keys = image.packed  # type: ignore[assignment]
            elif image is not None:
                self._sessions[token] = image
                self._session_keys += len(unpack(image.packed))
                # One that stayed has its entry, unless that has moved on.
                if image.expiry is not None and deadlines.get(token) != image.deadline:
                    began = deadlines.get(token, image.deadline) - image.expiry.duration * 1000
                    self._deadlines.add(token, image.deadline, began)
