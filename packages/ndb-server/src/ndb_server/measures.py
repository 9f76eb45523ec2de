"""Which parts of the server are measured, and under which names."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from .engine import Engine
from .metrics import Histogram, Metrics, Requests
from .ops import Page
from .transport import Connection, Traffic


def resident_bytes() -> int:
    """Return how much memory of this process is resident; 0 where the system doesn't say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def count_open(connections: Collection[Connection]) -> int:
    """Return how many of `connections` are open WebSocket connections."""
    return sum(connection.is_open for connection in connections)


def page_of(
    engine: Engine,
    requests: Requests,
    reached: Callable[[], Mapping[str, int]],
    refused: Mapping[str, int],
    traffic: Traffic,
    connections: Collection[Connection],
    loop_delay: Histogram,
    batch_delay: Histogram,
    batch_sizes: Histogram,
    paused: Callable[[], float],
    ends: Callable[[], Mapping[str, float]],
) -> Page:
    """Return what makes the page of a server's metrics.

    Args:
        engine: whose sessions and keys.
        requests: the requests that were counted.
        reached: returns how often a client came to a limit, by the limit.
        refused: how many clients were refused, by the reason.
        traffic: what is counted on the connections.
        connections: those there are.
        loop_delay: how late the event loop runs what is due, in seconds.
        batch_delay: how long batches of changes took until they were durable, in seconds.
        batch_sizes: how many sessions and maps of keys a batch changed.
        paused: returns for how many seconds no connections were accepted.
        ends: returns when certificates end, in seconds since the epoch, by what they are for.
    """
    metrics = Metrics()
    metrics.register(requests)
    gauge, counter = metrics.gauge, metrics.counter
    gauge("sessions", "Sessions there are.", lambda: engine.totals.sessions)
    gauge("session_keys", "Keys of all sessions.", lambda: engine.totals.sessionKeys)
    gauge("keys", "Independent keys there are.", lambda: engine.totals.keys)
    counter(
        "expirations",
        "Deadlines of sessions that have come, each the end of a session or of its keys.",
        lambda: engine.expirations,
    )
    gauge("stored_bytes", "Memory that sessions and keys take.", lambda: engine.memory)
    counter("evictions", "Sessions that made room for other data.", lambda: engine.evicted)
    metrics.counters("limits_reached", "Clients that came to a limit.", "limit", reached)
    gauge("connections", "Open WebSocket connections.", lambda: count_open(connections))
    counter("connections_opened", "WebSocket connections opened.", lambda: traffic.opened)
    metrics.counters(
        "refusals", "Handshakes, pages and connections refused.", "reason", lambda: refused
    )
    counter(
        "accept_paused_seconds",
        "Seconds in which no connections were accepted, as the system let none in.",
        paused,
    )
    metrics.gauges(
        "certificate_expiration_timestamp_seconds",
        "When the first of the certificates ends, in seconds since the epoch.",
        "certificate",
        ends,
    )
    counter("received_bytes", "Bytes read from connections.", lambda: traffic.received)
    counter("sent_bytes", "Bytes written to connections.", lambda: traffic.sent)
    gauge("tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks()))
    metrics.histogram("event_loop_delay_seconds", "How late what was due was run.", loop_delay)
    metrics.histogram(
        "journal_delay_seconds",
        "How long a batch of changes took until it was durable, or undone.",
        batch_delay,
    )
    metrics.histogram("journal_batch_size", "How many sessions a batch changed.", batch_sizes)
    return metrics.page
