"""Connects the components, and runs the process: start, serve, shut down."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from ..access.admission import AdmissionControl, Policy
from ..access.credentials import Credentials, CredentialsError, read_entries
from ..access.tls import CertificateExpiry, Certificates, TlsError, report_failed_handshakes
from ..access.token_guessing import TokenThrottle
from ..addresses import is_loopback, parse_address
from ..clock import Clock
from ..dispatch.dispatcher import NOT_TEXT, Dispatcher
from ..dispatch.permissions import permitted
from ..engine.batch import ChangeSet
from ..engine.engine import Engine
from ..engine.journal import Journal
from ..engine.record import deadline_of, expiry_of, unsigned
from ..engine.session import Session, deadline_after
from ..errors import RefusedError, StoreError, trace_of
from ..gates import finished
from ..http.routes import Routes, upgrade_required
from ..interfaces import Handler, Respond
from ..limits import (
    Limits,
    descriptor_limit,
    few_descriptors,
    for_clients,
    for_operators,
)
from ..path_size import MAX_PATH_DEPTH, MAX_PATH_LENGTH
from ..storage.dataset_commands import DatasetCommands
from ..storage.store import Durability, Store
from ..storage.tables import READ_ERRORS, DamageError
from ..websocket.connection import Connection, Timeouts, Traffic
from .acceptor import RAISE_THE_LIMIT, Acceptor, AcceptPause, TlsSettings
from .exposure import FIXED_HASHES, check_exposure, has_fixed_hashes
from .listeners import (
    Address,
    ListenError,
    SocketFile,
    exposed_addresses,
    listen,
    listen_unix,
    resolve,
    url_of,
)
from .metrics import DELAYS, SIZES, Histogram, RequestMetrics
from .metrics_page import count_open, metrics_page, resident_bytes
from .slowlog import with_slow_log
from .systemd import OPS_SOCKET, notify, passed_sockets

logger = logging.getLogger("ndb_server.server")

VERSION = version("ndb-server")

FEATURES = [
    "arr_append",
    "exact-expiry",
    "exact-values",
    "find",
    "ndb.v1.text",
    "update",
]
"""The features that NemesisDB 0.7 does not have, for SV_INFO."""

LOOPBACK = "127.0.0.1"
"""The default address on which the server listens."""

_TO_STOP = (signal.SIGINT, signal.SIGTERM)
_GRACE = 1.0
"""Seconds for work to end if the server must stop soon."""
_REAP_INTERVAL = 0.1
_CLOCK_INTERVAL = 1.0
_STEP = 60_000
"""Milliseconds by which the wall clock has to be set to be worth a line in the log."""
_TROUBLED = 10.0
"""Seconds after which something is done again that failed."""
_RESTORE_SLICE = 4096
_REAP_SLICE = 128
_A_DAY = 86_400.0


class StartError(Exception):
    """The server can't start; says why and what to do."""


class BrokenError(Exception):
    """The server failed with an error after which it can't continue; the log has the cause."""


NO_THREAD = (
    "cannot start a thread: allow the process more threads (ulimit -u, pids.max of its control "
    "group) or more memory"
)

NO_MEMORY = "out of memory: allow the process more (ulimit -v, memory.max), or store less data"


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the server.

    Attributes:
        host: addresses and host names to listen on; empty to use only a Unix socket.
        port: port to listen on; 0 for any free one.
        unix: path of a Unix socket to listen on.
        data_dir: folder for all data; without it the data is lost when the process ends.
        durability: what the reply to a change guarantees.
        load: name of a dataset to load before connections are accepted.
        timeouts: how long to wait for clients.
        shutdown_timeout: seconds that connections have to end when the server is told to stop.
        metrics: whether to count requests and serve the counters.
        ops_port: port for health and metrics; None answers them on `port`.
        slow_ms: log commands that take at least this many ms; None logs none.
        limits: the limits for clients.
        auth_file: file of credentials; without it every client may connect.
        certificates: the certificates for TLS; without them, connections are not encrypted.
        origins: the origins whose pages may connect.
        hosts: names of this server beside those in `host`.
        behind_proxy: whether all connections come through a proxy, which may terminate TLS.
        insecure: whether to listen on any address without credentials and TLS.
    """

    host: tuple[str, ...] = (LOOPBACK,)
    port: int = DEFAULT_PORT
    unix: Path | None = None
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


class Server:
    """Accepts connections and answers them.

    Args:
        options: how to run.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._begin = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._store: Store | None = None
        self._journal: Journal | None = None
        if options.data_dir is not None:
            store = Store(options.data_dir, options.durability, self._lost, self._store_failed)
            self._store = store
            self._journal = Journal(self._write, self._later, lambda: store.needs_rewrite)
        self._clock = Clock(None if self._store is None else self._store.anchor)
        self._engine = Engine(journal=self._journal, limits=options.limits)
        if self._journal is not None:
            self._journal.engine = self._engine
        self._datasets = DatasetCommands(
            self._engine,
            options.data_dir,
            self._clock,
            self._store,
            self._journal,
            options.limits,
        )
        self._handlers: Mapping[str, Handler] = {
            **self._engine.handlers,
            **self._datasets.handlers,
            "SV_INFO": self._info_for_admin,
        }
        # One for all clients with the same roles.
        self._dispatchers: dict[frozenset[Role], Dispatcher] = {}
        self._token_throttle = TokenThrottle(self._engine, self._loop.time, self._clock)
        self._admission = AdmissionControl(_policy(options), options.limits, self._respond_for)
        self._tls: ssl.SSLContext | None = None
        self._certificate_expiry = CertificateExpiry()
        self._descriptors = descriptor_limit()
        self._pause = AcceptPause()
        # Whether it is said to be insecure, and is not.
        self._needless = False
        self._reported: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._traffic = Traffic()
        self._loop_delay = Histogram(DELAYS)
        self._batch_delay = Histogram(DELAYS)
        self._batch_sizes = Histogram(SIZES)
        self._requests: RequestMetrics | None = None
        page = None
        if options.metrics:
            self._requests = RequestMetrics(lambda: self._traffic.binary, self._held)
            page = metrics_page(
                self._engine,
                self._requests,
                lambda: self.reached,
                self._admission.refused,
                self._traffic,
                self._connections,
                self._loop_delay,
                self._batch_delay,
                self._batch_sizes,
                lambda: self._pause.seconds,
                self._certificate_expiry.ends,
            )
        self._routes = Routes(self._why_not_ready, page)
        self._operators: set[Connection] = set()
        # What the server can't go on after.
        self.broken: asyncio.Future[BrokenError] = self._loop.create_future()
        self._state: str | None = "starting"
        self._acceptors: list[Acceptor] = []
        self._ops_acceptors: list[Acceptor] = []
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        # How long it is waited when the server stops: in all, and now.
        self._until = math.inf
        self._limit: asyncio.Timeout | None = None

    def _why_not_ready(self) -> str | None:
        if (
            self._state is None
            and self._journal is not None
            and self._journal.last_error is not None
        ):
            return f"changes can't be made durable: {self._journal.last_error}"
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

    def _write(self, changed: ChangeSet, written: Callable[[str | None], None]) -> None:
        assert self._store is not None

        self._follow_wall_clock()
        begin = time.monotonic()
        self._batch_sizes.observe(len(changed.rows) + len(changed.ended) + len(changed.maps))

        def done(trouble: str | None) -> None:
            self._batch_delay.observe(time.monotonic() - begin)
            self._step(lambda: written(trouble))

        def done_here(trouble: str | None) -> None:
            self._loop.call_soon_threadsafe(done, trouble)

        self._store.write(changed, done_here)

    def _lost(self, reason: str) -> None:
        assert self._journal is not None
        # A loop that is closed has nobody left to answer.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(
                self._step, partial(self._journal.report_store_lost, reason)
            )

    def _follow_wall_clock(self) -> None:
        moved = self._clock.follow()
        if abs(moved) >= _STEP:
            logger.warning(
                "the clock of the machine was set %s by %d s; this does not affect sessions",
                "forward" if moved > 0 else "back",
                round(abs(moved) / 1000),
                extra={"seconds": moved / 1000},
            )
        if moved and self._store is not None:
            self._store.set_anchor(self._clock.anchor)

    def _store_failed(self) -> None:
        """Stop: nothing is written any more. The store's thread calls it."""
        self._loop.call_soon_threadsafe(self._break, "the store failed; the log has the cause")

    def _held(self) -> Iterator[Histogram]:
        """Yield what was noted of requests whose replies wait until a change is durable."""
        if self._journal is not None:
            for hold in self._journal.gates():
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
            for number, (row, keymap) in enumerate(sessions):
                # A wall clock that was put back hides how much time has passed. Nobody gains by it.
                expiry = expiry_of(row)
                deadline = min(deadline_of(row), deadline_after(expiry, now))
                self._engine.restore_session(
                    unsigned(row[0]), Session(expiry, deadline, keymap), now
                )
                if number % _RESTORE_SLICE == 0:
                    # Operators are answered meanwhile.
                    await asyncio.sleep(0)
            self._engine.restore_keys(keys)
        except (*READ_ERRORS, DamageError) as error:
            raise StartError(store.describe_error(error)) from error
        store.set_anchor(self._clock.anchor)
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
        return self._token_throttle.throttled(client, gone, respond)

    def _dispatcher(self, roles: frozenset[Role]) -> Dispatcher:
        handlers = dict(self._handlers)
        if Role.ADMIN not in roles:
            handlers["SV_INFO"] = self._info
        if self._options.slow_ms is not None:
            handlers = with_slow_log(handlers, self._options.slow_ms)
        handlers = permitted(handlers, roles)
        depth, steps = self._options.limits.depth, self._engine.steps
        if self._requests is None:
            return Dispatcher(
                handlers, self._journal, depth=depth, steps=steps, counting=self._engine
            )
        note, amend = self._requests.note, self._requests.amend
        return Dispatcher(handlers, self._journal, note, amend, depth, steps, self._engine)

    @property
    def reached(self) -> Counter[str]:
        """How often a client came to a limit, by the limit."""
        found = self._engine.limits_reached + self._admission.reached
        found["steps"] = self._engine.steps.exceeded
        found["depth"] += sum(one.too_deep for one in self._dispatchers.values())
        found["process_memory"] += sum(one.out_of_memory for one in self._dispatchers.values())
        for one in self._dispatchers.values():
            found += one.large_paths
        found["unknown_tokens"] = self._token_throttle.delayed
        return found

    def _report(self) -> None:
        """Log which limits were reached since the last time."""
        reached = self.reached
        reached["evicted"] = self._engine.evictions
        news = reached - self._reported
        if news:
            self._reported = reached
            shown = ", ".join(f"{limit} {count}" for limit, count in sorted(news.items()))
            logger.warning("limits reached, with the number of times: %s", shown)

    def reload(self) -> None:
        """Read the credentials and certificates again; what can't be used leaves them as they were.

        Connections whose credentials are none any more are closed.
        """
        auth_file, certificates = self._options.auth_file, self._options.certificates
        if auth_file is not None:
            with _read_again("credentials"):
                self._admission.credentials = Credentials(read_entries(auth_file).values())
                for connection in list(self._connections):
                    connection.withdraw()
        if certificates is not None and self._tls is not None:
            with _read_again("certificates"):
                certificates.reload(self._tls)
                self._certificate_expiry.read(certificates)
        if auth_file is None and certificates is None:
            logger.info("there are no credentials and no certificates to read again")

    def _check_certificates(self) -> None:
        # A server may run for longer than they are valid.
        self._certificate_expiry.warn()
        self._again(_A_DAY, self._check_certificates)

    def _protect(self, where: Iterable[tuple[str, str]]) -> None:
        """Prepare what keeps others out, and see that there is enough of it.

        Args:
            where: where to listen: each host, as it was given, with one of its addresses.

        Raises:
            StartError: there isn't, or it can't be used.
        """
        options = self._options
        try:
            if options.auth_file is not None:
                self._admission.credentials = Credentials(read_entries(options.auth_file).values())
            if options.certificates is not None:
                self._tls = options.certificates.context()
                report_failed_handshakes(self._tls, self._refuse_tls)
                self._certificate_expiry.read(options.certificates)
        except (CredentialsError, TlsError) as error:
            raise StartError(str(error)) from error
        certificates = options.certificates
        self._needless = options.insecure and not options.behind_proxy
        for host, address in where:
            reason = check_exposure(
                host,
                loopback=is_loopback(address),
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
        if few := few_descriptors(self._descriptors, options.limits.connections):
            logger.warning(few)

    def _refuse_tls(self, reason: str) -> None:
        self._admission.refused["tls"] += 1
        logger.info("TLS handshake refused: %s", reason, extra={"reason": reason})

    async def start(self) -> str:
        """Restore what is on disk, load what is to be loaded, accept connections.

        Whatever comes of it, `stop` has to follow.

        Returns:
            The server's URL; of several, the first.

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
            raise StartError(f"{error}; check ListenStream= in the socket unit") from error
        for_operators = [one for name, one in passed if name == OPS_SOCKET]
        for_clients = [one for name, one in passed if name != OPS_SOCKET]
        # Where clients have a Unix socket alone, operators have this machine.
        hosts = () if for_clients else options.host
        ops_hosts = () if for_operators or options.ops_port is None else options.host or (LOOPBACK,)
        addresses = await self._resolve(hosts or ops_hosts)
        self._protect(exposed_addresses(addresses, for_clients))
        if for_operators or ops_hosts:
            # Before anything else: that the server is starting is worth knowing.
            self._meet_operators(for_operators, addresses)
        begin = time.monotonic()
        if self._store is not None:
            await self._restore(self._store)
        restored, duration = self._engine.totals, round((time.monotonic() - begin) * 1000)
        if options.load is not None:
            await self._load(options.load)
        urls = self._meet_clients(for_clients, addresses if hosts else [])
        if self._store is None:
            logger.info(
                "data is kept in memory only: without --data-dir it is lost when the process ends"
            )
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
                "--insecure has no effect: every address is protected, or only this machine can "
                "reach it; leave it out, so that it can't expose the server later"
            )
        self._state = None
        self._reap()
        self._check_alive()
        self._check_clock()
        self._again(_A_DAY, self._check_certificates)
        return urls[0]

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
            _never_opened,
            self._clock,
            NOT_TEXT,
            self._connections,
            self._options.timeouts,
            self._traffic,
            # Where they have a port of their own, these pages are on no other.
            upgrade_required if self._ops_acceptors else self._routes.answer,
            self._admission.admit_client,
            self._options.limits,
        )

    def _meet_operator(self) -> Connection:
        # It never becomes a WebSocket connection; and clients' traffic is counted without it.
        return Connection(
            _never_opened,
            self._clock,
            NOT_TEXT,
            self._operators,
            self._options.timeouts,
            answer_http=self._routes.answer_all,
            admit_client=self._admission.admit_operator,
        )

    async def _resolve(self, hosts: Iterable[str]) -> list[Address]:
        """Return the addresses of `hosts` to listen on."""
        try:
            return await resolve(hosts, self._options.port)
        except ListenError as error:
            raise StartError(
                f"{error}; choose another address or port with --host and --port"
            ) from error

    def _meet_operators(self, passed: list[socket.socket], addresses: Sequence[Address]) -> None:
        """Accept connections of operators, where clients connect too but on another port."""
        try:
            sockets = passed or listen(addresses, self._options.ops_port or 0)
        except ListenError as error:
            raise StartError(
                f"{error}; choose another address or port with --host and --ops-port"
            ) from error
        most = for_operators(self._descriptors)
        self._ops_acceptors = [
            Acceptor(one, self._meet_operator, self._pause, most) for one in sockets
        ]
        urls = [url_of(one, "http") for one in sockets]
        logger.info("health and metrics are at %s", ", ".join(urls), extra={"url": urls[0]})

    def _meet_clients(self, passed: list[socket.socket], addresses: Sequence[Address]) -> list[str]:
        """Accept connections of clients; return the URLs at which they connect."""
        options, timeouts = self._options, self._options.timeouts
        tls = None
        if self._tls is not None:
            tls = TlsSettings(self._tls, timeouts.handshake, timeouts.close)
        try:
            sockets = passed or listen(addresses, options.port)
        except ListenError as error:
            raise StartError(
                f"{error}; choose another address or port with --host and --port"
            ) from error
        files: dict[socket.socket, SocketFile] = {}
        if options.unix is not None and not passed:
            try:
                one, files[one] = listen_unix(options.unix)
            except ListenError as error:
                for listening in sockets:
                    listening.close()
                raise StartError(f"{error}; choose another path with --unix") from error
            sockets.append(one)
        most = for_clients(self._descriptors)
        urls: list[str] = []
        for one in sockets:
            # What never leaves the machine needs no encryption.
            encryption = None if one.family == socket.AF_UNIX else tls
            acceptor = Acceptor(
                one, self._meet_client, self._pause, most, encryption, files.get(one)
            )
            self._acceptors.append(acceptor)
            urls.append(url_of(one, "ws" if encryption is None else "wss"))
        if not self._acceptors[0].has_room(len(self._operators)):
            raise StartError(
                f"none of the {self._descriptors} descriptors is left for clients; "
                f"{RAISE_THE_LIMIT}"
            )
        if len(urls) > 1:
            logger.info("listening at %s", ", ".join(urls), extra={"urls": urls})
        return urls

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
        self._token_throttle.close()
        patience = _GRACE if self.broken.done() else self._options.shutdown_timeout
        self._until = min(self._until, self._loop.time() + patience)
        await _stop_accepting(self._acceptors)
        ending = [self._loop.create_task(one.shut_down()) for one in self._connections]
        if late := await self._late(ending):
            logger.warning("connections cut because they did not end in time: %d", len(late))
            for connection in list(self._connections):
                connection.cut()
            await asyncio.wait(late)
        await _stop_accepting(self._ops_acceptors)
        for operator in list(self._operators):
            operator.cut()
        for timer in self._timers.values():
            timer.cancel()
        self._report()

    async def _end_files(self) -> bool:
        """Close the store and end the threads, if they do so in time; return whether they did."""
        # A thread with nothing to do needs a moment too.
        self._until = max(self._until, self._loop.time() + _GRACE)
        closing = self._loop.create_task(self._close_files())
        if await self._late([closing]):
            logger.warning("a save or a load did not end in time and is abandoned")
            return False
        closing.result()
        return True

    def hurry(self) -> None:
        """Give up soon what `stop` still waits for, or will wait for."""
        soon = self._loop.time() + _GRACE
        if soon < self._until:
            logger.warning(
                "told to stop again: work that does not end within %g s is abandoned", _GRACE
            )
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
            if (newest := self._journal.newest_batch()) is not None:
                await finished(newest)
            # If the files are lost, the first attempt detects it, and the second writes all data.
            for _ in range(2):
                if (again := self._journal.write_again()) is not None:
                    await finished(again)
            # The later the anchor, the less a wall clock that is put back meanwhile gives away.
            self._store.set_anchor(self._clock.renew())
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
            logger.error("a periodic task failed\n%s", trace_of(error))
            self._again(_TROUBLED, action)

    def _reap(self) -> None:
        # In slices, so that a million sessions expiring at once delay nobody's request for long.
        more = self._engine.reap(self._clock(), _REAP_SLICE)
        self._again(0 if more else _REAP_INTERVAL, self._reap)

    def _check_clock(self) -> None:
        self._follow_wall_clock()
        self._again(_CLOCK_INTERVAL, self._check_clock)

    def _check_alive(self) -> None:
        for connection in list(self._connections):
            connection.check_alive()
        self._report()
        self._again(self._options.timeouts.ping, self._check_alive)


@contextmanager
def _read_again(what: str) -> Iterator[None]:
    """Log whether `what` was read again; one file that can't be read hides no other."""
    try:
        yield
    except (CredentialsError, TlsError) as error:
        logger.error("%s could not be read again: %s", what, error)
    else:
        logger.info("%s were read again", what)


async def _stop_accepting(acceptors: Sequence[Acceptor]) -> None:
    for acceptor in acceptors:
        await acceptor.stop()
    # Meanwhile what the sockets hold by now is read.
    await asyncio.sleep(0)


def _never_opened(
    messages: Sequence[bytes], now: int, text_tokens: bool
) -> tuple[list[bytes], None]:
    """Answer nobody: whoever comes in gets what answers them at the door."""
    raise AssertionError


def _policy(options: Options) -> Policy:
    # With DNS rebinding, pages use what a server lets anybody do; secrets they have none.
    checked = options.auth_file is None or options.hosts
    own = {host for host in options.host if parse_address(host) is None}
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
        pathLength=MAX_PATH_LENGTH,
        pathDepth=MAX_PATH_DEPTH,
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
                logger.info("stopped by a signal before connections were accepted")
        except MemoryError as error:
            failure = StartError(NO_MEMORY)
            failure.__cause__ = error
        except Exception as error:  # Whatever it is, the server's threads are not to go on.
            failure = error
        if server.broken.done():
            failure = server.broken.result()
            starting.cancel()
            await asyncio.wait([starting])
        try:
            try:
                notify("STOPPING=1")
            finally:
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
