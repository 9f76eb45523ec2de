"""The rooms put together, and the life of the process: open, serve, shut down."""

import asyncio
import gc
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ndb_protocol import DEFAULT_PORT, PROTOCOL_VERSION
from ndb_protocol import messages as m

from .batches import Changed
from .clock import Clock
from .datasets import Datasets
from .dispatch import NOT_TEXT, Dispatcher
from .engine import Engine
from .errors import RefusedError
from .journal import Journal
from .rows import deadline_of, settings_of, unsigned
from .sessions import Session, deadline_after
from .store import Durability, Store, StoreError
from .tables import DamageError
from .transport import MAX_MESSAGE_SIZE, Connection, Timeouts

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

_REAP_INTERVAL = 0.1
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
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    data_dir: Path | None = None
    durability: Durability = "strict"
    load: str | None = None
    timeouts: Timeouts = Timeouts()


class Server:
    """Accepts connections and answers them.

    Args:
        options: how to run.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
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
        self._dispatcher = Dispatcher(
            {**self._engine.handlers, **self._datasets.handlers, "SV_INFO": self._info},
            self._journal,
        )
        self._connections: set[Connection] = set()
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    def _info(self, _: m.Empty, __: int) -> m.ServerInfoReply:
        return m.ServerInfoReply(
            serverVersion=VERSION,
            persistEnabled=self._options.data_dir is not None,
            protocol=PROTOCOL_VERSION,
            limits=m.Limits(
                messageSize=MAX_MESSAGE_SIZE, writeTimeout=self._options.timeouts.write
            ),
            features=FEATURES,
        )

    def _write(self, changed: Changed, written: Callable[[str | None], None]) -> None:
        assert self._store is not None

        def written_here(trouble: str | None) -> None:
            self._loop.call_soon_threadsafe(written, trouble)

        self._store.write(changed, written_here)

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        if delay:
            self._loop.call_later(delay, action)
        else:
            self._loop.call_soon(action)

    def _restore(self, store: Store) -> None:
        """Go on with what is on disk."""
        now = self._clock()
        try:
            sessions, keys = store.read()
            for row, packed in sessions:
                # The clock may have been put back since.
                expiry = settings_of(row)
                deadline = min(deadline_of(row), deadline_after(expiry, now))
                self._engine.resume(unsigned(row[0]), Session(expiry, deadline, packed), now)
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
        begin = time.monotonic()
        try:
            if self._store is not None:
                self._restore(self._store)
            url = await self._listen()
        except StartError:
            if self._store is not None:
                self._store.close()
            raise
        if self._store is None:
            logger.info("data is kept in memory only: without --data-dir it goes with the process")
        else:
            sessions, keys, independent = self._engine.totals()
            logger.info(
                "restored %d sessions with %d keys, and %d independent keys, from %s in %.2f s",
                *(sessions, keys, independent, self._store.path, time.monotonic() - begin),
            )
        self._reap()
        self._check_alive()
        return url

    async def _listen(self) -> str:
        options = self._options
        if options.load is not None:
            try:
                await self._datasets.load(options.load)
            except RefusedError as error:
                raise StartError(f"cannot load '{options.load}': {error.message}") from error
        try:
            self._listener = await self._loop.create_server(
                lambda: Connection(
                    self._dispatcher.dispatch,
                    self._clock,
                    NOT_TEXT,
                    self._connections,
                    options.timeouts,
                ),
                options.host,
                options.port,
            )
        except (OSError, ValueError) as error:
            # A host that no resolver can be asked for is a ValueError.
            reason: object = error
            if isinstance(error, OSError):
                # asyncio's own text repeats the address; name look-ups have no errno text.
                number = error.errno or 0
                reason = os.strerror(number) if number > 0 else error.strerror
            raise StartError(
                f"cannot listen on {options.host} port {options.port}: {reason}; "
                "choose others with --host and --port"
            ) from error
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"ws://[{host}]:{port}/" if ":" in host else f"ws://{host}:{port}/"

    async def stop(self) -> None:
        """Stop accepting, answer what has arrived, close every connection with 1001."""
        self._listener.close()
        # One turn of the loop reads what the sockets hold by now.
        await asyncio.sleep(0)
        await asyncio.gather(*(connection.shut_down() for connection in self._connections))
        for timer in self._timers.values():
            timer.cancel()
        self._datasets.close()
        if self._journal is not None and self._store is not None:
            await self._journal.flush()
            await self._loop.run_in_executor(None, self._store.close)

    def _again(self, delay: float, action: Callable[[], None]) -> None:
        self._timers[action] = self._loop.call_later(delay, action)

    def _reap(self) -> None:
        # In slices, so that a million sessions expiring at once delay nobody's request for long.
        more = self._engine.reap(self._clock(), _REAP_SLICE)
        self._again(0 if more else _REAP_INTERVAL, self._reap)

    def _check_alive(self) -> None:
        for connection in list(self._connections):
            connection.check_alive()
        self._again(self._options.timeouts.ping, self._check_alive)


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
    await stopping.wait()
    await server.stop()
