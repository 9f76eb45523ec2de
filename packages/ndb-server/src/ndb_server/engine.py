"""The in-memory engine: what the commands do to sessions and keys.

Pure: it opens nothing and asks no clock. Every call brings `now`, in milliseconds since the epoch,
which never goes back.

A session expires at its deadline, to the millisecond, because whoever looks a session up compares
its deadline with `now` first (`_live`). `reap` gives back the memory of those nobody looks up.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, TypeVar

from msgspec import UNSET, Raw, Struct
from ndb_protocol import COMMANDS, NO_TOKEN, Extends, Status, new_token
from ndb_protocol import messages as m
from ndb_protocol.messages import Expiry

from .deadlines import Deadlines
from .edits import Edit
from .errors import RefusedError
from .eviction import Nearest
from .journal import Journal
from .keyspace import BOUNDED, READS, WRITES
from .limits import UNLIMITED, Limits
from .memory import SESSION_BYTES, growth, of_keys
from .packing import EMPTY, Packed, copied, edited, pack, unpack
from .paths import show
from .queries import Steps

_T = TypeVar("_T")

_OK = int(Status.OK)

NEVER = 2**62
"""The deadline of a session that does not expire: later than any `now`."""

_MUCH = 2**62
"""More bytes than there are."""

_FULL = "no memory is left for it; remove something, or let the server have more with --max-memory"

Handler = Callable[[Any, int], m.Reply]
"""Runs a command, given its parameters and `now`."""


class Session(Struct, gc=False):
    """A session: its settings (None if it never expires), its deadline and its keys, packed."""

    expiry: Expiry | None
    deadline: int
    packed: Packed


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
        limits: how much there may be of sessions and keys.

    Attributes:
        handlers: runs each command, by its name.
        unknown_tokens: how many tokens were asked for that no session has.
        reached: how often something was refused for a limit, by the limit; those of `steps` are
            counted by these.
        steps: what following the JSONPath of a request may take.
        evicted: how many sessions have made room for other data.
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
        self._nearest: Nearest | None = None
        if limits.memory and limits.evict:
            self._nearest = Nearest(self._deadline_of, self._sessions.__len__)
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
            **{
                f"KV_{name}": partial(self._keys_write, self._bounded(name, WRITES[name]))
                for name in WRITES
            },
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
                "no session has this 'tkn': it never was, has ended or has expired",
            )
        return session

    def _expire(self, token: int, session: Session, now: int) -> Session | None:
        """Do what the deadline of `session` demands; return it if it lives on."""
        expiry = session.expiry
        assert expiry is not None
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
        self._session_memory += SESSION_BYTES + of_keys(session.packed)
        if session.expiry is not None:
            self._deadlines.add(token, session.deadline, now)
            if self._nearest is not None:
                self._nearest.add(token, session.deadline)
        if self._journal is not None:
            self._journal.created(token, session.expiry, session.deadline)
            if values:
                # A journal may keep what it is told; the session's own keys go on changing.
                self._journal.edited(token, Edit(values.copy()))

    def _drop(self, token: int, session: Session) -> None:
        del self._sessions[token]
        self._session_keys -= len(unpack(session.packed))
        self._session_memory -= SESSION_BYTES + of_keys(session.packed)
        if self._journal is not None:
            self._journal.ended(token)

    def _edit(self, token: int, session: Session, values: dict[str, Raw], edit: Edit) -> None:
        before = len(values)
        packed = session.packed
        if type(packed) is dict and not edit.clear:
            self._session_memory += growth(values, edit)
            session.packed = edited(packed, values, edit)
        else:
            taken = of_keys(packed)
            session.packed = edited(packed, values, edit)
            self._session_memory += of_keys(session.packed) - taken
        self._session_keys += len(values) - before
        if self._journal is not None:
            self._journal.edited(token, edit)

    # Limits

    @property
    def memory(self) -> int:
        """How many bytes sessions and keys take, estimated."""
        return self._session_memory + self._key_memory

    def _refuse(self, status: Status, limit: str, sentence: str) -> RefusedError:
        self.reached[limit] += 1
        return RefusedError(status, sentence)

    def _check_edit(self, values: dict[str, Raw], edit: Edit, kept: int | None, token: int) -> None:
        """Refuse (201) an edit that goes beyond a limit.

        Args:
            values: the keys it is to be made in.
            edit: the edit.
            kept: how many keys may be there after it; None for any number.
            token: whose keys they are, or `NO_TOKEN`.
        """
        limits = self._limits
        put = edit.put
        if limits.key_length and max(map(len, put)) > limits.key_length:
            longest = max(put, key=len)
            raise self._refuse(
                Status.LIMIT_EXCEEDED,
                "key_length",
                f"key {show(longest)} has {len(longest)} characters; "
                f"{limits.key_length} are allowed",
            )
        if kept and len(put) + (0 if edit.clear else len(values)) > kept:
            count = len(put.keys() if edit.clear else put.keys() | values.keys())
            if count > kept:
                raise self._refuse(
                    Status.LIMIT_EXCEEDED,
                    "keys",
                    f"'keys' would make {count} keys in the session; {kept} are allowed",
                )
        if self.memory > self._nearly_full:
            needed = growth({}, edit) - of_keys(values) if edit.clear else growth(values, edit)
            if not self._has_room(needed, token):
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
            self._drop(nearest, self._sessions[nearest])
            self.evicted += 1
        if spared:
            self._nearest.add(token, self._sessions[token].deadline)
        return self.memory + needed <= limit

    # Commands on sessions

    def _new(self, params: m.NewSession, now: int) -> m.TokenReply:
        expiry = None if params.expiry is UNSET else settings(params.expiry)
        limits = self._limits
        if limits.sessions and len(self._sessions) >= limits.sessions:
            self.reap(now)
            if len(self._sessions) >= limits.sessions:
                raise self._refuse(
                    Status.SESSION_NEW_FAIL,
                    "sessions",
                    f"there are {limits.sessions} sessions already, the most allowed",
                )
        if self.memory > self._nearly_full and not self._has_room(SESSION_BYTES):
            raise self._refuse(Status.SESSION_NEW_FAIL, "memory", _FULL)
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
        self._session_memory = 0
        self._deadlines.clear()
        if self._nearest is not None:
            self._nearest.clear()
        if self._journal is not None:
            self._journal.ended_all()
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

    def _bounded(self, name: str, command: Callable[..., _T]) -> Callable[..., _T]:
        return partial(command, steps=self.steps) if name in BOUNDED else command

    def _session_read(self, name: str) -> Handler:
        read = self._bounded(name, READS[name])
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
        write = self._bounded(name, WRITES[name])
        extends = COMMANDS[f"SH_{name}"].extends is Extends.ON_SET_ADD
        limits = self._limits

        def run(params: Any, now: int) -> m.Reply:
            session = self._sessions.get(params.tkn)
            if session is None or session.deadline <= now:
                session = self._live(params.tkn, now)
            values = unpack(session.packed)
            reply, edit = write(values, params)
            if reply.st != _OK:
                return reply
            if edit.put and limits is not UNLIMITED:
                self._check_edit(values, edit, limits.keys, params.tkn)
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
            if edit.put:
                self._check_edit(self._keys, edit, None, NO_TOKEN)
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
        if edit.clear:
            self._key_memory = growth({}, edit)
        else:
            self._key_memory += growth(self._keys, edit)
        edit.apply(self._keys)
        if self._journal is not None:
            self._journal.edited(NO_TOKEN, edit)
