"""The rooms put together, and the life of the process: open, serve, shut down."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ndb_protocol import DEFAULT_PORT, PROTOCOL_VERSION
from ndb_protocol import messages as m

from .batches import Changed
from .clock import Clock
from .datasets import Datasets
from .dispatch import NOT_TEXT, Dispatcher, Handler
from .engine import Engine
from .errors import RefusedError
from .journal import Journal
from .measures import count_open, page_of, resident_bytes
from .metrics import DELAYS, SIZES, Histogram, Requests
from .notify import notify, passed_sockets
from .ops import Operations
from .rows import deadline_of, settings_of, unsigned
from .sessions import Session, deadline_after
from .slow import watched
from .store import Durability, Store, StoreError
from .tables import DamageError
from .transport import MAX_MESSAGE_SIZE, Connection, Respond, Timeouts, Traffic, no_http

logger = logging.getLogger(__name__)

VERSION = version("ndb-server")

FEATURES = [
    "arr_append",
    "exact-expiry",
    "exact-values",
    "find",
    "ndb.v1.text",
    "update",
]
"""What this server does beyond NemesisDB 0.7, for SV_INFO."""

OPS_SOCKET = "ops"
"""The name of a socket, of those the service manager passes, that is for health and metrics."""

_REAP_INTERVAL = 0.1
_RESTORE_SLICE = 4096
_REAP_SLICE = 128


class StartError(Exception):
    """The server can't start; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the server.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        data_dir: folder for everything that is kept; without it all goes with the process.
        durability: what a reply promises of the change that it acknowledges.
        load: name of a dataset to load before connections are accepted.
        timeouts: how long to wait for clients.
        shutdown_timeout: seconds that connections have to end when the server is told to stop.
        metrics: whether to count requests and show what is counted.
        ops_port: port for health and metrics; None answers them on `port`.
        slow_ms: log commands that take at least as many ms; None logs none.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    data_dir: Path | None = None
    durability: Durability = "strict"
    load: str | None = None
    timeouts: Timeouts = Timeouts()
    shutdown_timeout: float = 10
    metrics: bool = True
    ops_port: int | None = None
    slow_ms: int | None = None


class Server:
    """Accepts connections and answers them.

    Args:
        options: how to run.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._begin = time.monotonic()
        self._clock = Clock()
        self._loop = asyncio.get_running_loop()
        self._store: Store | None = None
        self._journal: Journal | None = None
        if options.data_dir is not None:
            self._store = Store(options.data_dir, options.durability)
            self._journal = Journal(self._write, self._later)
        self._engine = Engine(journal=self._journal)
        if self._journal is not None:
            self._journal.memory = self._engine
        self._datasets = Datasets(
            self._engine, options.data_dir, self._clock, self._store, self._journal
        )
        handlers: Mapping[str, Handler] = {
            **self._engine.handlers,
            **self._datasets.handlers,
            "SV_INFO": self._info,
        }
        if options.slow_ms is not None:
            handlers = watched(handlers, options.slow_ms)
        self._connections: set[Connection] = set()
        self._traffic = Traffic()
        self._loop_delay = Histogram(DELAYS)
        self._batch_delay = Histogram(DELAYS)
        self._batch_sizes = Histogram(SIZES)
        self._respond: Respond
        page = None
        if options.metrics:
            requests = Requests(lambda: self._traffic.binary)
            dispatcher = Dispatcher(handlers, self._journal, requests.note)
            self._respond = requests.counting(dispatcher)
            page = page_of(
                self._engine,
                requests,
                self._traffic,
                self._connections,
                self._loop_delay,
                self._batch_delay,
                self._batch_sizes,
            )
        else:
            self._respond = Dispatcher(handlers, self._journal).dispatch
        self._operations = Operations(self._why_not_ready, page)
        self._operators: set[Connection] = set()
        self._state: str | None = "starting"
        self._listeners: list[asyncio.Server] = []
        self._ops_listeners: list[asyncio.Server] = []
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    def _why_not_ready(self) -> str | None:
        if self._state is None and self._journal is not None and self._journal.trouble is not None:
            return f"changes can't be made durable: {self._journal.trouble}"
        return self._state

    def _info(self, _: m.Empty, __: int) -> m.ServerInfoReply:
        return m.ServerInfoReply(
            serverVersion=VERSION,
            persistEnabled=self._options.data_dir is not None,
            protocol=PROTOCOL_VERSION,
            limits=m.Limits(
                messageSize=MAX_MESSAGE_SIZE, writeTimeout=self._options.timeouts.write
            ),
            features=FEATURES,
            # Without credentials, everybody is an administrator.
            stats=self._stats(),
        )

    def _stats(self) -> m.Stats:
        return m.Stats(
            uptime=int(time.monotonic() - self._begin),
            connections=count_open(self._connections),
            memory=resident_bytes(),
            **self._engine.totals._asdict(),
        )

    def _write(self, changed: Changed, written: Callable[[str | None], None]) -> None:
        assert self._store is not None

        begin = time.monotonic()
        self._batch_sizes.observe(len(changed.rows) + len(changed.ended) + len(changed.maps))

        def done(trouble: str | None) -> None:
            self._batch_delay.observe(time.monotonic() - begin)
            written(trouble)

        def done_here(trouble: str | None) -> None:
            self._loop.call_soon_threadsafe(done, trouble)

        self._store.write(changed, done_here)

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        if delay:
            self._loop.call_later(delay, action)
        else:
            self._loop.call_soon(action)

    async def _restore(self, store: Store) -> None:
        """Go on with what is on disk."""
        now = self._clock()
        try:
            sessions, keys = store.read()
            for number, (row, packed) in enumerate(sessions):
                # The clock may have been put back since.
                expiry = settings_of(row)
                deadline = min(deadline_of(row), deadline_after(expiry, now))
                self._engine.resume(unsigned(row[0]), Session(expiry, deadline, packed), now)
                if number % _RESTORE_SLICE == 0:
                    # Operators are answered meanwhile.
                    await asyncio.sleep(0)
            self._engine.resume_keys(keys)
        except (sqlite3.Error, DamageError) as error:
            raise StartError(store.damaged(error)) from error
        store.start()

    async def start(self) -> str:
        """Restore what is on disk, load what is to be loaded, accept connections.

        Returns:
            The server's URL.

        Raises:
            StartError: it can't.
        """
        try:
            return await self._start()
        except StartError:
            if self._store is not None:
                self._store.close()
            raise

    async def _start(self) -> str:
        options = self._options
        try:
            passed = passed_sockets()
        except ValueError as error:
            raise StartError(f"{error}; look at the ListenStream= of the socket unit") from error
        for_operators = [one for name, one in passed if name == OPS_SOCKET]
        for_clients = [one for name, one in passed if name != OPS_SOCKET]
        if for_operators or options.ops_port is not None:
            # Before anything else: that the server is starting is worth knowing.
            self._ops_listeners = await self._listen(
                self._meet_operator, for_operators, options.ops_port or 0, "--host and --ops-port"
            )
            url = f"http://{_address(self._ops_listeners[0])}/"
            logger.info("health and metrics are at %s", url, extra={"url": url})
        begin = time.monotonic()
        if self._store is not None:
            await self._restore(self._store)
        restored, duration = self._engine.totals, round((time.monotonic() - begin) * 1000)
        if options.load is not None:
            await self._load(options.load)
        self._listeners = await self._listen(
            self._meet_client, for_clients, options.port, "--host and --port"
        )
        if self._store is None:
            logger.info("data is kept in memory only: without --data-dir it goes with the process")
        else:
            logger.info(
                "restored from %s in %d ms: %d sessions with %d keys, %d independent keys; "
                "changes are durable: %s",
                *(self._store.path, duration, *restored, options.durability),
                extra={
                    "durability": options.durability,
                    "duration_ms": duration,
                    **restored._asdict(),
                },
            )
        self._state = None
        self._reap()
        self._check_alive()
        return f"ws://{_address(self._listeners[0])}/"

    async def _load(self, name: str) -> None:
        begin = time.monotonic()
        try:
            await self._datasets.load(name)
        except RefusedError as error:
            raise StartError(f"cannot load '{name}': {error.message}") from error
        totals = self._engine.totals
        duration = round((time.monotonic() - begin) * 1000)
        logger.info(
            "loaded '%s' in %d ms: %d sessions with %d keys, %d independent keys",
            name,
            duration,
            *totals,
            extra={"dataset": name, "duration_ms": duration, **totals._asdict()},
        )

    def _meet_client(self) -> Connection:
        return Connection(
            self._respond,
            self._clock,
            NOT_TEXT,
            self._connections,
            self._options.timeouts,
            self._traffic,
            # Where they have a port of their own, these pages are on no other.
            no_http if self._ops_listeners else self._operations.answer,
        )

    def _meet_operator(self) -> Connection:
        # It never becomes a WebSocket connection; and clients' traffic is counted without it.
        return Connection(
            self._respond,
            self._clock,
            NOT_TEXT,
            self._operators,
            self._options.timeouts,
            answer_http=self._operations.answer_all,
        )

    async def _listen(
        self,
        meet: Callable[[], Connection],
        passed: list[socket.socket],
        port: int,
        chosen_with: str,
    ) -> list[asyncio.Server]:
        """Accept connections on the sockets that were `passed`, or else on `port`."""
        host = self._options.host
        try:
            if passed:
                return [await self._loop.create_server(meet, sock=one) for one in passed]
            return [await self._loop.create_server(meet, host, port)]
        except (OSError, ValueError) as error:
            # A host that no resolver can be asked for is a ValueError.
            reason: object = error
            if isinstance(error, OSError):
                # asyncio's own text repeats the address; name look-ups have no errno text.
                number = error.errno or 0
                reason = os.strerror(number) if number > 0 else error.strerror
            raise StartError(
                f"cannot listen on {host} port {port}: {reason}; choose others with {chosen_with}"
            ) from error

    async def stop(self) -> bool:
        """Stop accepting, answer what has arrived, close every connection with 1001.

        What has not ended after `Options.shutdown_timeout` is given up.

        Returns:
            Whether all has ended; if not, a thread is at work still and may never end.
        """
        self._state = "stopping"
        until = self._loop.time() + self._options.shutdown_timeout
        for listener in self._listeners:
            listener.close()
        # One turn of the loop reads what the sockets hold by now.
        await asyncio.sleep(0)
        ending = [self._loop.create_task(one.shut_down()) for one in self._connections]
        if ending:
            _, late = await asyncio.wait(ending, timeout=self._options.shutdown_timeout)
            if late:
                logger.warning("connections cut, which did not end in time: %d", len(late))
                for connection in list(self._connections):
                    connection.cut()
                await asyncio.wait(late)
        for listener in self._ops_listeners:
            listener.close()
        for operator in list(self._operators):
            operator.cut()
        for timer in self._timers.values():
            timer.cancel()
        # A thread with nothing to do needs a moment too.
        saving = self._loop.create_task(self._close_files())
        _, lasting = await asyncio.wait([saving], timeout=max(1.0, until - self._loop.time()))
        if lasting:
            logger.warning("a save or a load did not end in time and is given up")
        return not lasting

    async def _close_files(self) -> None:
        await self._loop.run_in_executor(None, self._datasets.close)
        if self._journal is not None and self._store is not None:
            await self._journal.flush()
            await self._loop.run_in_executor(None, self._store.close)

    def _again(self, delay: float, action: Callable[[], None]) -> None:
        due = time.monotonic() + delay
        self._timers[action] = self._loop.call_later(delay, self._run_due, due, action)

    def _run_due(self, due: float, action: Callable[[], None]) -> None:
        # The event loop may run it a little early.
        self._loop_delay.observe(max(0.0, time.monotonic() - due))
        action()

    def _reap(self) -> None:
        # In slices, so that a million sessions expiring at once delay nobody's request for long.
        more = self._engine.reap(self._clock(), _REAP_SLICE)
        self._again(0 if more else _REAP_INTERVAL, self._reap)

    def _check_alive(self) -> None:
        for connection in list(self._connections):
            connection.check_alive()
        self._again(self._options.timeouts.ping, self._check_alive)


def _address(listener: asyncio.Server) -> str:
    host, port = listener.sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(options: Options, ready: Callable[[str], Any] = print) -> None:
    """Run a server until SIGINT or SIGTERM.

    Args:
        options: how to run.
        ready: called with the server's URL once connections are accepted.

    Raises:
        StartError: the server can't start.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    try:
        server = Server(options)
    except StoreError as error:
        raise StartError(str(error)) from error
    url = await server.start()
    # What is here by now stays: the collector need not walk through it. Sessions it never sees.
    gc.collect()
    gc.freeze()
    try:
        ready(url)
        sys.stdout.flush()
    except OSError as error:
        await server.stop()
        # Python tries again to write it when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StartError(f"cannot print the URL on standard output: {error.strerror}") from error
    logger.info(
        "ndb-server %s accepts connections at %s",
        VERSION,
        url,
        extra={"version": VERSION, "url": url},
    )
    notify("READY=1")
    await stopping.wait()
    notify("STOPPING=1")
    if not await server.stop():
        # Leaving as usual would wait for the thread. A save that is not done leaves no dataset.
        logging.shutdown()
        os._exit(0)
