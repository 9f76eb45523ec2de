"""How a client behaves when there are faults: what it waits for, and for how long.

Pure: random numbers and the time come from the caller.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPolicy:
    """The timeouts and delays of a client, all in seconds.

    `math.inf` means no limit, or never. A server that has vanished is detected within
    `ping_interval` + `ping_timeout`, by default 20 seconds.

    Attributes:
        request_timeout: the default timeout of a request, including reconnecting. A timeout of
            the request or of the client takes precedence.
        connect_timeout: the timeout of one attempt to connect to one server, from the lookup of
            its name to the end of the opening handshake.
        reconnect_timeout: how long the client tries to reconnect before the requests that wait
            for a connection fail. The next request starts a new attempt. 0 = the client does not
            reconnect until `open` is called.
        initial_backoff: the maximum delay before the first attempt to reconnect. It doubles with
            each round in which no server answers. The actual delay is random, from 0 to this
            maximum (full jitter), so that not all clients of a restarted server reconnect at the
            same moment.
        max_backoff: the upper limit of that maximum.
        ping_interval: how long the server may be silent before the client sends a ping.
        ping_timeout: how long the server may stay silent after the ping before the client gives
            up the connection. Data on its way to the server, and the ping after it, must arrive
            within this time.

    Raises:
        ValueError: a time is negative or not a number, or is 0 and not `reconnect_timeout`.
    """

    request_timeout: float = 30.0
    connect_timeout: float = 10.0
    reconnect_timeout: float = 60.0
    initial_backoff: float = 0.1
    max_backoff: float = 5.0
    ping_interval: float = 10.0
    ping_timeout: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "reconnect_timeout":
                if not value >= 0:
                    raise ValueError(f"{field.name} is {value}; 0 means never to reconnect")
            elif not value > 0:
                raise ValueError(f"{field.name} is {value}; it must be a time above 0, in seconds")


DEFAULT_POLICY = ConnectionPolicy()


def limit(seconds: float) -> float | None:
    """Return what asyncio is told for a time that may be `math.inf`."""
    return None if seconds == math.inf else seconds


class Backoff:
    """Exponential back-off with full jitter.

    `AWS <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>`_ compares it
    with other kinds.

    Args:
        policy: its bounds.
        random: returns a number from 0 to 1.
    """

    def __init__(self, policy: ConnectionPolicy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self.reset()

    def reset(self) -> None:
        """Start over: the last attempt led to a connection that was of use."""
        self._most = min(self._policy.initial_backoff, self._policy.max_backoff)

    def delay(self) -> float:
        """Return how long to wait before the next attempt, in seconds."""
        delay = self._random() * self._most
        self._most = min(self._most * 2, self._policy.max_backoff)
        return delay


class Verdict(Enum):
    """What a silence means."""

    ALIVE = auto()
    PING = auto()
    DEAD = auto()


class Keepalive:
    """Tells a silent server from a dead one.

    It is asked after each `delay` whether anything was heard meanwhile. It asks twice as often as
    it needs to: an event loop that was held up finds what was heard behind the timer that is due,
    and so does not take its own silence for the server's.
    """

    def __init__(self, policy: ConnectionPolicy) -> None:
        self._policy = policy
        self._silences = 0

    @property
    def delay(self) -> float:
        """How long until the next look, in seconds."""
        whole = self._policy.ping_timeout if self._silences else self._policy.ping_interval
        return whole / 2

    def look(self, heard: bool) -> Verdict:
        """Return what to do, given whether anything was heard since the last look."""
        self._silences = 0 if heard else self._silences + 1
        if self._silences == 1:
            return Verdict.PING
        return Verdict.DEAD if self._silences == 3 else Verdict.ALIVE
