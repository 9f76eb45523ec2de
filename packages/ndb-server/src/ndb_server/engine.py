"""The in-memory engine: what the commands do to sessions and keys.

Pure: it opens nothing and asks no clock. Every call brings `now`, in milliseconds since the epoch,
which never goes back.

A session expires at its deadline, to the millisecond, because whoever looks a session up compares
its deadline with `now` first (`_live`). `reap` gives back the memory of those nobody looks up.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

from msgspec import UNSET, Raw, Struct
from ndb_protocol import COMMANDS, NO_TOKEN, Extends, Status, new_token
from ndb_protocol import messages as m
from ndb_protocol.messages import Expiry

from .deadlines import Deadlines
from .edits import Edit
from .errors import RefusedError
from .journal import Journal
from .keyspace import READS, WRITES
from .packing import EMPTY, Packed, copied, edited, pack, unpack

_OK = int(Status.OK)

NEVER = 2**62
"""The deadline of a session that does not expire: later than any `now`."""

Handler = Callable[[Any, int], m.Reply]
"""Runs a command, given its parameters and `now`."""


class Session(Struct, gc=False):
    """A session: its settings (None if it never expires), its deadline and its keys, packed."""

    expiry: Expiry | None
    deadline: int
    packed: Packed


class Totals(NamedTuple):
    """How much there is of sessions, of their keys, and of independent keys."""

    sessions: int
    sessionKeys: int
    keys: int


@lru_cache(maxsize=1024)
def _shared(
    duration: int, delete_session: bool, extend_on_set_add: bool, extend_on_get: bool
) -> Expiry:
    return Expiry(
        duration=duration,
        deleteSession=delete_session,
        extendOnSetAdd=extend_on_set_add,
        extendOnGet=extend_on_get,
    )


def settings(expiry: Expiry) -> Expiry | None:
    """Return `expiry` as a session holds it: None if it says never, else shared by those alike.

    A service makes its sessions with few different settings, and an object of its own for each
    session would be a fifth of its memory.
    """
    if expiry.duration == 0:
        return None
    return _shared(expiry.duration, expiry.deleteSession, expiry.extendOnSetAdd, expiry.extendOnGet)


def deadline_after(expiry: Expiry | None, now: int) -> int:
    """Return the deadline in ms of a period of `expiry` that begins at `now`."""
    return NEVER if expiry is None else now + expiry.duration * 1000


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
        if expiry.deleteSession:
            self._drop(token, session)
            return None
        if session.packed != EMPTY:
            self._edit(token, session, unpack(session.packed), Edit(clear=True))
        # The next period began at the deadline, and perhaps others have passed since.
        period = expiry.duration * 1000
        periods = (now - session.deadline) // period + 1
        self._move_deadline(token, session, session.deadline + periods * period)
        return session

    def _move_deadline(self, token: int, session: Session, deadline: int) -> None:
        session.deadline = deadline
        if self._journal is not None:
            self._journal.extended(token, deadline)

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
        self._sessions[token] = session
        values = unpack(session.packed)
        self._session_keys += len(values)
        if session.expiry is not None:
            self._deadlines.add(token, session.deadline, now)
        if self._journal is not None:
            self._journal.created(token, session.expiry, session.deadline)
            if values:
                # A journal may keep what it is told; the session's own keys go on changing.
                self._journal.edited(token, Edit(values.copy()))

    def _drop(self, token: int, session: Session) -> None:
        del self._sessions[token]
        self._session_keys -= len(unpack(session.packed))
        if self._journal is not None:
            self._journal.ended(token)

    def _edit(self, token: int, session: Session, values: dict[str, Raw], edit: Edit) -> None:
        before = len(values)
        session.packed = edited(session.packed, values, edit)
        self._session_keys += len(values) - before
        if self._journal is not None:
            self._journal.edited(token, edit)

    # Commands on sessions

    def _new(self, params: m.NewSession, now: int) -> m.TokenReply:
        expiry = None if params.expiry is UNSET else settings(params.expiry)
        token = self._make_token()
        while token in self._sessions:
            token = self._make_token()
        self._insert(token, Session(expiry, deadline_after(expiry, now), EMPTY), now)
        return m.TokenReply(tkn=token)

    def _end(self, params: m.OfSession, now: int) -> m.TokenReply:
        self._drop(params.tkn, self._live(params.tkn, now))
        return m.TokenReply(tkn=params.tkn)

    def _end_all(self, _: m.Empty, now: int) -> m.CountReply:
        self.reap(now)
        count = len(self._sessions)
        self._sessions.clear()
        self._session_keys = 0
        self._deadlines.clear()
        if self._journal is not None:
            self._journal.ended_all()
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
                    self._move_deadline(params.tkn, session, now + expiry.duration * 1000)
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
                    self._move_deadline(params.tkn, session, now + expiry.duration * 1000)
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

    def restore(self, token: int, expiry: Expiry | None, values: dict[str, Raw], now: int) -> bool:
        """Begin a session that was saved, with its full duration; not if it exists already.

        Returns:
            Whether it did not exist.
        """
        if self._is_live(token, now):
            return False
        kept = None if expiry is None else settings(expiry)
        self._insert(token, Session(kept, deadline_after(kept, now), pack(values)), now)
        return True

    def edit_keys(self, edit: Edit) -> None:
        """Change the independent keys."""
        edit = edit.owned()
        edit.apply(self._keys)
        if self._journal is not None:
            self._journal.edited(NO_TOKEN, edit)
