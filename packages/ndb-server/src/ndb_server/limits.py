"""The limits of the server."""

from dataclasses import dataclass

try:
    import resource
except ImportError:
    # Where there is no such limit, on Windows.
    resource = None  # type: ignore[assignment]


CONNECTIONS_BEYOND = 256
"""Connections beyond a limit that get an answer; further ones are cut at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for clients; 0 means no limit.

    Attributes:
        message_size: bytes of a message.
        depth: how deep arrays and objects of a message nest.
        in_flight: requests of one connection that are answered together; more wait.
        steps: steps that one request may take through values, to follow its JSONPath or to append.
        keys: keys of a session.
        key_length: characters of a key's name.
        sessions: sessions there are.
        memory: bytes of memory for sessions and keys, as estimated; and as many again for data in
            transit to or from clients.
        evict: whether sessions are evicted to make room for new data, in the order of their expiry.
        connections: connections there are.
        connections_per_address: connections of one address.
    """

    message_size: int = 4 * 2**20
    depth: int = 512
    in_flight: int = 1024
    steps: int = 50_000
    keys: int = 10_000
    key_length: int = 1024
    sessions: int = 10_000_000
    memory: int = 2**30
    evict: bool = False
    connections: int = 10_000
    connections_per_address: int = 1000


UNLIMITED = Limits(
    in_flight=0, steps=0, keys=0, key_length=0, sessions=0, memory=0, connections=0,
    connections_per_address=0,
)  # fmt: skip
"""Nothing but what keeps messages readable."""


DESCRIPTORS_KEPT = 64
"""Descriptors that the server keeps for itself: for its files, for operators, for what it listens
on. Where there are few, it is a quarter of them."""


def raise_file_limit() -> None:
    """Let the process have as many files and connections open as the system lets it at all."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def descriptor_limit() -> int | None:
    """Return how many descriptors the process may have; None if the system sets no limit."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def for_clients(limit: int | None) -> int | None:
    """Return how many descriptors there may be before clients have to wait for one.

    Args:
        limit: how many the process may have; None for any number.
    """
    return None if limit is None else limit - _kept(limit)


def for_operators(limit: int | None) -> int | None:
    """Return how many descriptors there may be before operators have to wait for one.

    They have half of those that clients leave.

    Args:
        limit: how many the process may have; None for any number.
    """
    return None if limit is None else limit - _kept(limit) // 2


def _kept(limit: int) -> int:
    return min(DESCRIPTORS_KEPT, limit // 4)


def few_descriptors(limit: int | None, connections: int) -> str | None:
    """Return what to say if there are not as many descriptors as connections are promised.

    Args:
        limit: descriptors that the process may have; None for any number.
        connections: the most connections that are let in; 0 promises no number.
    """
    # Those beyond the limit are told so: they need one too.
    needed = connections + CONNECTIONS_BEYOND + DESCRIPTORS_KEPT
    if limit is None or not connections or needed <= limit:
        return None
    return (
        f"the system allows this process {limit} descriptors (ulimit -n, LimitNOFILE= of "
        f"systemd), but --max-connections {connections} needs {needed}: raise the limit or lower "
        "--max-connections, or clients will have to wait"
    )
