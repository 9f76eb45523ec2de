"""Loading into an engine, without a dataset."""

from collections.abc import Mapping

from msgspec import Raw
from ndb_protocol.messages import Expiry
from ndb_server.engine.engine import Engine
from ndb_server.engine.keymap import KeyMap
from ndb_server.engine.loading import PendingLoad
from ndb_server.engine.record import row_of
from ndb_server.engine.session import NEVER, Session
from ndb_server.limits import UNLIMITED, Limits


def pending_load(
    sessions: Mapping[int, tuple[Expiry | None, KeyMap]],
    keys: Mapping[str, Raw] | None = None,
    limits: Limits = UNLIMITED,
) -> PendingLoad:
    """Return sessions and independent keys as they are read from datasets."""
    found = PendingLoad(limits)
    for token, (expiry, packed) in sessions.items():
        found.add_session(row_of(token, Session(expiry, NEVER, packed)), packed)
    found.add_keys(keys or {})
    return found


def load_session(
    engine: Engine, token: int, expiry: Expiry | None, packed: KeyMap, now: int
) -> bool:
    """Load one session; tell whether it did not exist."""
    to_load = pending_load({token: (expiry, packed)})
    engine.load(to_load, now)
    return token in to_load.sessions
