"""The rooms put together, and the life of the process: open, serve, shut down."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sqlite3
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from ndb_protocol import DEFAULT_PORT, PROTOCOL_VERSION
from ndb_protocol import messages as m
from ndb_protocol.commands import Role
from ndb_protocol.stdio import OutputError

from .addresses import bind, look_up
from .admission import Door, Policy
from .batches import Changed
from .clock import Clock
from .credentials import Credentials, CredentialsError, read_entries
from .datasets import Datasets
from .dispatch import NOT_TEXT, Dispatcher, Handler
from .engine import Engine
from .errors import RefusedError, trace_of
from .guesses import Guesses
from .handshake import is_loopback, parse_address
from .journal import Journal
from .limits import Limits
from .measures import count_open, page_of, resident_bytes
from .metrics import DELAYS, SIZES, Histogram, Requests
from .notify import notify, passed_sockets
from .ops import Operations
from .protection import FIXED_HASHES, check_exposure, has_fixed_hashes
from .roles import permitted
from .rows import deadline_of, settings_of, unsigned
from .sessions import Session, deadline_after
from .slow import watched
from .store import Durability, Store, StoreError
from .tables import DamageError
from .tls import Certificates, TlsError, report_refusals
from .transport import Connection, Respond, Timeouts, Traffic, no_http

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

_TO_STOP = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 4096
_GRACE = 1.0
"""Seconds for what is to end when it is to end soon."""
_REAP_INTERVAL = 0.1
_TROUBLED = 10.0
"""Seconds after which something is done again that failed."""
_RESTORE_SLICE = 4096
_REAP_SLICE = 128


class StartError(Exception):
    """The server can't start; says why and what to do."""


class BrokenError(Exception):
    """The server failed at something that it can't go on after; the log has the cause."""


NO_THREAD = (
    "cannot start a thread: let the process have more of them (ulimit -u, pids.max of its control "
    "group) or more memory"
)

NO_MEMORY = "memory ran out: let the process have more of it (ulimit -v, memory.max), or keep less"


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
        limits: how much of everything there may be.
        auth_file: who may come in; without it, everybody.
        certificates: those for TLS; without them, connections are not encrypted.
        origins: the origins whose pages may connect.
        hosts: names of this server beside `host`.
        behind_proxy: whether all connections come through a proxy, which may terminate TLS.
        insecure: whether to listen wherever told to without credentials and TLS.
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
    limits: Limits = Limits()
    auth_file: Path | None = None
    certificates: Certificates | None = None
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    behind_proxy: bool = False
    insecure: bool = False


_DEFAULTS = Options()


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
            self._store.failed = self._store_failed
            self._journal = Journal(self._write, self._later)
        self._engine = Engine(journal=self._journal, limits=options.limits)
        if self._journal is not None:
            self._journal.memory = self._engine
        self._datasets = Datasets(
            self._engine, options.data_dir, self._clock, self._store, self._journal
        )
        self._handlers: Mapping[str, Handler] = {
            **self._engine.handlers,
            **self._datasets.handlers,
            "SV_INFO": self._info_for_admin,
        }
        # One for all clients with the same roles.
        self._dispatchers: dict[frozenset[Role], Dispatcher] = {}
        self._guesses = Guesses(self._engine, self._loop.time, self._clock)
        self._door = Door(_policy(options), options.limits, self._respond_for)
        self._tls: ssl.SSLContext | None = None
        # Whether it is said to be insecure, and is not.
        self._needless = False
        self._reported: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._traffic = Traffic()
        self._loop_delay = Histogram(DELAYS)
        self._batch_delay = Histogram(DELAYS)
        self._batch_sizes = Histogram(SIZES)
        self._requests: Requests | None = None
        page = None
        if options.metrics:
            self._requests = Requests(lambda: self._traffic.binary, self._held)
            page = page_of(
                self._engine,
                self._requests,
                lambda: self.reached,
                self._door.refused,
                self._traffic,
                self._connections,
                self._loop_delay,
                self._batch_delay,
                self._batch_sizes,
            )
        self._operations = Operations(self._why_not_ready, page)
        self._operators: set[Connection] = set()
        # What the server can't go on after.
        self.broken: asyncio.Future[BrokenError] = self._loop.create_future()
        self._state: str | None = "starting"
        self._listeners: list[asyncio.Server] = []
        self._ops_listeners: list[asyncio.Server] = []
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        # How long it is waited when the server stops: in all, and now.
        self._until = math.inf
        self._limit: asyncio.Timeout | None = None

    def _why_not_ready(self) -> str | None:
        if self._state is None and self._journal is not None and self._journal.trouble is not None:
            return f"changes can't be made durable: {self._journal.trouble}"
        return self._state

    def _info(self, _: m.Empty, __: int) -> m.ServerInfoReply:
        return m.ServerInfoReply(
            serverVersion=VERSION,
            persistEnabled=self._options.data_dir is not None,
            protocol=PROTOCOL_VERSION,
            limits=_shown(self._options),
            features=FEATURES,
        )

    def _info_for_admin(self, params: m.Empty, now: int) -> m.ServerInfoReply:
        reply = self._info(params, now)
        reply.stats = self._stats()
        return reply

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
            self._step(lambda: written(trouble))

        def done_here(trouble: str | None) -> None:
            self._loop.call_soon_threadsafe(done, trouble)

        self._store.write(changed, done_here)

    def _store_failed(self) -> None:
        """Stop: nothing is written any more. The store's thread calls it."""
        self._loop.call_soon_threadsafe(self._break, "the store failed; the log has the cause")

    def _held(self) -> Iterator[Histogram]:
        """Yield what was noted of requests whose replies wait until a change is durable."""
        if self._journal is not None:
            for hold in self._journal.holds():
                assert hold.notes is not None
                yield from hold.notes[hold.first :]

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        if delay:
            self._loop.call_later(delay, self._step, action)
        else:
            self._loop.call_soon(self._step, action)

    def _step(self, action: Callable[[], None]) -> None:
        """Have the journal go on; where it can't, memory and disk may not be the same any more."""
        try:
            action()
        except Exception as error:
            logger.critical("the journal failed\n%s", trace_of(error))
            self._break("the journal failed; the log has the cause")

    def _break(self, reason: str) -> None:
        """Have the server end: it can't go on."""
        if not self.broken.done():
            self.broken.set_result(BrokenError(reason))

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
        # All threads that there will ever be start here: later there may be no room for one.
        self._datasets.start()
        store.start()

    def _respond_for(
        self, roles: frozenset[Role], client: str, gone: asyncio.Future[None]
    ) -> Respond:
        dispatcher = self._dispatchers.get(roles)
        if dispatcher is None:
            dispatcher = self._dispatcher(roles)
            self._dispatchers[roles] = dispatcher
        respond: Respond = dispatcher.dispatch
        if self._requests is not None:
            respond = self._requests.counting(dispatcher)
        return self._guesses.slowing(client, gone, respond)

    def _dispatcher(self, roles: frozenset[Role]) -> Dispatcher:
        handlers = dict(self._handlers)
        if Role.ADMIN not in roles:
            handlers["SV_INFO"] = self._info
        if self._options.slow_ms is not None:
            handlers = watched(handlers, self._options.slow_ms)
        handlers = permitted(handlers, roles)
        depth, steps = self._options.limits.depth, self._engine.steps
        if self._requests is None:
            return Dispatcher(handlers, self._journal, depth=depth, steps=steps)
        note, amend = self._requests.note, self._requests.amend
        return Dispatcher(handlers, self._journal, note, amend, depth, steps)

    @property
    def reached(self) -> Counter[str]:
        """How often a client came to a limit, by the limit."""
        found = self._engine.reached + self._door.reached
        found["steps"] = self._engine.steps.exceeded
        found["depth"] = sum(one.too_deep for one in self._dispatchers.values())
        found["process_memory"] += sum(one.out_of_memory for one in self._dispatchers.values())
        found["unknown_tokens"] = self._guesses.slowed
        return found

    def _report(self) -> None:
        """Log which limits were reached since the last time."""
        reached = self.reached
        reached["evicted"] = self._engine.evicted
        news = reached - self._reported
        if news:
            self._reported = reached
            shown = ", ".join(f"{limit} {count}" for limit, count in sorted(news.items()))
            logger.warning("limits were reached, so often each: %s", shown)

    def reload(self) -> None:
        """Read the credentials and certificates again; what can't be used leaves them as they were.

        Connections whose credentials are none any more are closed.
        """
        options = self._options
        try:
            if options.auth_file is not None:
                self._door.credentials = Credentials(read_entries(options.auth_file).values())
                for connection in list(self._connections):
                    connection.withdraw()
            if options.certificates is not None and self._tls is not None:
                options.certificates.reload(self._tls)
        except (CredentialsError, TlsError) as error:
            logger.error("not read again: %s", error)
        else:
            logger.info("credentials and certificates were read again")

    async def _protect(self, passed: Sequence[socket.socket]) -> None:
        """Prepare what keeps others out, and see that there is enough of it.

        Args:
            passed: where to listen, if not on what the options say.

        Raises:
            StartError: there isn't, or it can't be used.
        """
        options = self._options
        try:
            if options.auth_file is not None:
                self._door.credentials = Credentials(read_entries(options.auth_file).values())
                self._door.start()
            if options.certificates is not None:
                self._tls = options.certificates.context()
                report_refusals(self._tls, self._refuse_tls)
        except (CredentialsError, TlsError) as error:
            raise StartError(str(error)) from error
        certificates = options.certificates
        self._needless = options.insecure and not options.behind_proxy
        for host in [_host(one) for one in passed] or [options.host]:
            reason = check_exposure(
                host,
                loopback=await self._is_loopback(host),
                guarded=options.auth_file is not None
                or (certificates is not None and certificates.client_ca is not None),
                encrypted=certificates is not None,
                waived=options.behind_proxy,
            )
            if reason is not None and not options.insecure:
                raise StartError(reason)
            self._needless &= reason is None
        if has_fixed_hashes():
            logger.warning(FIXED_HASHES)

    def _refuse_tls(self, reason: str) -> None:
        self._door.refused["tls"] += 1
        logger.info("TLS handshake refused: %s", reason, extra={"reason": reason})

    async def _is_loopback(self, host: str) -> bool:
        """Tell whether only this machine can reach `host`; what is no address is none."""
        try:
            return all(is_loopback(str(address[0])) for _, address in await look_up(host))
        except (OSError, ValueError):
            return True

    async def start(self) -> str:
        """Restore what is on disk, load what is to be loaded, accept connections.

        Whatever comes of it, `stop` has to follow.

        Returns:
            The server's URL.

        Raises:
            StartError: it can't.
        """
        try:
            return await self._start()
        except RuntimeError as error:
            if "thread" not in str(error):
                raise
            raise StartError(NO_THREAD) from error

    async def _start(self) -> str:
        options = self._options
        try:
            passed = passed_sockets()
        except ValueError as error:
            raise StartError(f"{error}; look at the ListenStream= of the socket unit") from error
        for_operators = [one for name, one in passed if name == OPS_SOCKET]
        for_clients = [one for name, one in passed if name != OPS_SOCKET]
        if for_clients and (options.host, options.port) != (_DEFAULTS.host, _DEFAULTS.port):
            logger.warning("--host and --port have no effect: a socket was passed to listen on")
        if for_operators and options.ops_port is not None:
            logger.warning("--ops-port has no effect: a socket was passed for health and metrics")
        await self._protect(for_clients)
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
            self._meet_client, for_clients, options.port, "--host and --port", self._tls
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
        if self._needless:
            logger.warning(
                "--insecure has no effect: what is listened on is protected, or of this machine "
                "alone; leave it out, before it lets in somebody one day"
            )
        self._state = None
        self._reap()
        self._check_alive()
        scheme = "ws" if self._tls is None else "wss"
        return f"{scheme}://{_address(self._listeners[0])}/"

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
            _unheard,
            self._clock,
            NOT_TEXT,
            self._connections,
            self._options.timeouts,
            self._traffic,
            # Where they have a port of their own, these pages are on no other.
            no_http if self._ops_listeners else self._operations.answer,
            self._door.arrive,
            self._options.limits,
        )

    def _meet_operator(self) -> Connection:
        # It never becomes a WebSocket connection; and clients' traffic is counted without it.
        return Connection(
            _unheard,
            self._clock,
            NOT_TEXT,
            self._operators,
            self._options.timeouts,
            answer_http=self._operations.answer_all,
            arrive=self._door.arrive_as_operator,
        )

    async def _listen(
        self,
        meet: Callable[[], Connection],
        passed: list[socket.socket],
        port: int,
        chosen_with: str,
        tls: ssl.SSLContext | None = None,
    ) -> list[asyncio.Server]:
        """Accept connections on the sockets that were `passed`, or else on `port`."""
        host, timeouts = self._options.host, self._options.timeouts
        listen = partial(
            self._loop.create_server,
            meet,
            # Many clients may come back at once, after a network was down.
            backlog=_BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=timeouts.handshake if tls else None,
            ssl_shutdown_timeout=timeouts.close if tls else None,
        )
        try:
            return [await listen(sock=one) for one in passed or await bind(host, port)]
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

        What has not ended after `Options.shutdown_timeout` is given up. Where the server is broken,
        nobody's changes are waited for.

        Returns:
            Whether all has ended; if not, a thread is at work still and may never end.
        """
        self._state = "stopping"
        try:
            await self._end_connections()
        finally:
            # Whatever it was: a thread that goes on holds the process, and that the folder.
            ended = await self._end_files()
        return ended

    async def _end_connections(self) -> None:
        self._guesses.close()
        patience = _GRACE if self.broken.done() else self._options.shutdown_timeout
        self._until = min(self._until, self._loop.time() + patience)
        await self._stop_accepting(self._listeners)
        ending = [self._loop.create_task(one.shut_down()) for one in self._connections]
        if late := await self._late(ending):
            logger.warning("connections cut, which did not end in time: %d", len(late))
            for connection in list(self._connections):
                connection.cut()
            await asyncio.wait(late)
        await self._stop_accepting(self._ops_listeners)
        for operator in list(self._operators):
            operator.cut()
        for timer in self._timers.values():
            timer.cancel()
        self._report()

    async def _end_files(self) -> bool:
        """Close the store and end the threads, if they do so in time; return whether they did."""
        self._door.close()
        # A thread with nothing to do needs a moment too.
        self._until = max(self._until, self._loop.time() + _GRACE)
        closing = self._loop.create_task(self._close_files())
        if await self._late([closing]):
            logger.warning("a save or a load did not end in time and is given up")
            return False
        closing.result()
        return True

    async def _stop_accepting(self, listeners: Sequence[asyncio.Server]) -> None:
        # asyncio fails at connections that it has accepted in the turn of the loop in which their
        # server closes (https://github.com/python/cpython/issues/109564).
        for listener in listeners:
            for listening in listener.sockets:
                self._loop.remove_reader(listening)
        await asyncio.sleep(0)
        for listener in listeners:
            listener.close()
        # Meanwhile they are met, and what the sockets hold by now is read.
        await asyncio.sleep(0)

    def hurry(self) -> None:
        """Give up soon what `stop` still waits for, or will wait for."""
        soon = self._loop.time() + _GRACE
        if soon < self._until:
            logger.warning("told to stop again: what does not end in %g s is given up", _GRACE)
            self._until = soon
            if self._limit is not None and not self._limit.expired():
                self._limit.reschedule(soon)

    async def _late(self, ending: Sequence[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        """Wait until all tasks have ended, or the time is over; return those that have not."""
        if ending:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._until) as self._limit:
                    await asyncio.wait(ending)
            self._limit = None
        return [task for task in ending if not task.done()]

    async def _close_files(self) -> None:
        if self._journal is None or self._store is None:
            return
        if not self._datasets.started:
            self._store.close()
            return
        await self._datasets.finish()
        if not self.broken.done():
            await self._journal.flush()
        # Its thread has nothing else to do, and a new one may not be had.
        await self._datasets.finish(self._store.close)
        self._datasets.close()

    def _again(self, delay: float, action: Callable[[], None]) -> None:
        due = time.monotonic() + delay
        self._timers[action] = self._loop.call_later(delay, self._run_due, due, action)

    def _run_due(self, due: float, action: Callable[[], None]) -> None:
        # The event loop may run it a little early.
        self._loop_delay.observe(max(0.0, time.monotonic() - due))
        try:
            action()
        except Exception as error:  # Once it can't be done, later it can.
            logger.error("what is done now and then failed\n%s", trace_of(error))
            self._again(_TROUBLED, action)

    def _reap(self) -> None:
        # In slices, so that a million sessions expiring at once delay nobody's request for long.
        more = self._engine.reap(self._clock(), _REAP_SLICE)
        self._again(0 if more else _REAP_INTERVAL, self._reap)

    def _check_alive(self) -> None:
        for connection in list(self._connections):
            connection.check_alive()
        self._report()
        self._again(self._options.timeouts.ping, self._check_alive)


def _host(one: socket.socket) -> str:
    """Return the address of a socket; that of this machine for one that is no network's."""
    name = one.getsockname()
    return str(name[0]) if isinstance(name, tuple) else "localhost"


def _address(listener: asyncio.Server) -> str:
    host, port = listener.sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unheard(messages: Sequence[bytes], now: int, text_tokens: bool) -> tuple[list[bytes], None]:
    """Answer nobody: whoever comes in gets what answers them at the door."""
    raise AssertionError


def _policy(options: Options) -> Policy:
    # With DNS rebinding, pages use what a server lets anybody do; secrets they have none.
    checked = options.auth_file is None or options.hosts
    own = {options.host} if parse_address(options.host) is None else set[str]()
    return Policy(
        options.origins,
        frozenset(name.lower() for name in options.hosts | own) if checked else None,
        options.behind_proxy,
    )


def _shown(options: Options) -> m.Limits:
    limits, timeouts = options.limits, options.timeouts
    return m.Limits(
        messageSize=limits.message_size,
        writeTimeout=timeouts.write,
        depth=limits.depth,
        inFlight=limits.in_flight,
        steps=limits.steps,
        keys=limits.keys,
        keyLength=limits.key_length,
        sessions=limits.sessions,
        memory=limits.memory,
        connections=limits.connections,
        connectionsPerAddress=limits.connections_per_address,
        handshakeTimeout=timeouts.handshake,
        idleTimeout=timeouts.idle,
    )


_print = partial(print, flush=True)


async def serve(options: Options, ready: Callable[[str], Any] = _print) -> None:
    """Run a server until SIGINT or SIGTERM; at the second of them, wait for nothing any more.

    At SIGHUP it reads credentials and certificates again.

    Args:
        options: how to run.
        ready: called with the server's URL once connections are accepted.

    Raises:
        StartError: the server can't start.
        BrokenError: it can't go on.
    """
    stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def told_to_stop() -> None:
        # The loop calls it, and does nothing before it is waited for the start.
        if stopping.done():
            server.hurry()
        else:
            stopping.set_result(None)
        starting.cancel()

    def told_to_reload() -> None:
        server.reload()

    with _told({**dict.fromkeys(_TO_STOP, told_to_stop), signal.SIGHUP: told_to_reload}):
        try:
            server = Server(options)
        except StoreError as error:
            raise StartError(str(error)) from error
        except MemoryError as error:
            raise StartError(NO_MEMORY) from error
        starting = asyncio.create_task(server.start())
        failure: Exception | None = None
        try:
            await _first(starting, server.broken)
            if not server.broken.done() and not starting.cancelled():
                _accept(starting.result(), ready)
                await _first(stopping, server.broken)
            elif not server.broken.done():
                logger.info("told to stop before connections were accepted")
        except MemoryError as error:
            failure = StartError(NO_MEMORY)
            failure.__cause__ = error
        except Exception as error:  # Whatever it is, the server's threads are not to go on.
            failure = error
        if server.broken.done():
            failure = server.broken.result()
            starting.cancel()
            await asyncio.wait([starting])
        notify("STOPPING=1")
        try:
            ended = await server.stop()
        except Exception as error:  # As above.
            ended, failure = False, failure or error
        if server.broken.done():
            failure = failure or server.broken.result()
        if not ended:
            _leave(failure)
        if failure is not None:
            raise failure


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _leave(failure: Exception | None) -> NoReturn:
    """End the process now: leaving as usual would wait for a thread.

    A save that is not done leaves no dataset.
    """
    if failure is not None:
        logger.critical("%s\n%s", failure, trace_of(failure))
    logging.shutdown()
    os._exit(0 if failure is None else 2 if isinstance(failure, StartError) else 1)


@contextmanager
def _told(actions: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """Have the event loop do at each signal what `actions` say, and ignore them from then on.

    The loop has handlers of its own. Closed, it has none, and a signal would end a process that has
    nothing left to do but to end, with another status.
    """
    loop = asyncio.get_running_loop()
    for number in actions:
        signal.signal(number, lambda told, _: loop.call_soon_threadsafe(actions[told]))
    try:
        yield
    finally:
        for number in actions:
            signal.signal(number, signal.SIG_IGN)


def _accept(url: str, ready: Callable[[str], Any]) -> None:
    """Tell everybody that connections are accepted at `url`."""
    # Each signal writes into a pipe that wakes the loop. A full one will wake it; no need to warn.
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    # What is here by now stays: the collector need not walk through it. Sessions it never sees.
    gc.collect()
    gc.freeze()
    try:
        ready(url)
    except OutputError as error:
        # Who closed it did not want to be told.
        if not error.closed:
            raise StartError(f"cannot print the URL on standard output: {error.reason}") from error
    logger.info(
        "ndb-server %s accepts connections at %s",
        VERSION,
        url,
        extra={"version": VERSION, "url": url},
    )
    notify("READY=1")
