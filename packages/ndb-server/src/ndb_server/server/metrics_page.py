"""The metrics of the server: what is measured, and the names."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ..engine.engine import Engine
from ..http.routes import MetricsPage
from ..websocket.connection import Connection, Traffic
from .metrics import Histogram, Metrics, RequestMetrics


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


def metrics_page(
    engine: Engine,
    requests: RequestMetrics,
    reached: Callable[[], Mapping[str, int]],
    refused: Mapping[str, int],
    traffic: Traffic,
    connections: Collection[Connection],
    loop_delay: Histogram,
    batch_delay: Histogram,
    batch_sizes: Histogram,
    paused: Callable[[], float],
    ends: Callable[[], Mapping[str, float]],
) -> MetricsPage:
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
    gauge("sessions", "Existing sessions.", lambda: engine.totals.sessions)
    gauge("session_keys", "Keys of all sessions.", lambda: engine.totals.sessionKeys)
    gauge("keys", "Independent keys.", lambda: engine.totals.keys)
    counter(
        "expirations",
        "Session deadlines that have passed, each of which deleted a session or its keys.",
        lambda: engine.expirations,
    )
    gauge("stored_bytes", "Memory used by sessions and keys.", lambda: engine.memory)
    counter("evictions", "Sessions evicted to make room for other data.", lambda: engine.evictions)
    metrics.counters("limits_reached", "How often clients reached a limit.", "limit", reached)
    gauge("connections", "Open WebSocket connections.", lambda: count_open(connections))
    counter("connections_opened", "WebSocket connections opened.", lambda: traffic.opened)
    metrics.counters(
        "refusals", "Handshakes, HTTP requests and connections refused.", "reason", lambda: refused
    )
    counter(
        "accept_paused_seconds",
        "Seconds in which no connections were accepted, because the system refused them.",
        paused,
    )
    metrics.gauges(
        "certificate_expiration_timestamp_seconds",
        "When the first of the certificates expires, in seconds since the epoch.",
        "certificate",
        ends,
    )
    counter("received_bytes", "Bytes read from connections.", lambda: traffic.received)
    counter("sent_bytes", "Bytes written to connections.", lambda: traffic.sent)
    gauge("tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks()))
    metrics.histogram("event_loop_delay_seconds", "Delay of timers in the event loop.", loop_delay)
    metrics.histogram(
        "journal_delay_seconds",
        "Time until a batch of changes was durable or undone.",
        batch_delay,
    )
    metrics.histogram("journal_batch_size", "How many sessions a batch changed.", batch_sizes)
    return metrics.page
