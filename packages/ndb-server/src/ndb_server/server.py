"""The rooms put together, and the life of the process: open, serve, shut down."""

import asyncio
import gc
import logging
import os
import signal
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ndb_protocol import DEFAULT_PORT, PROTOCOL_VERSION
from ndb_protocol import messages as m
from ndb_protocol.commands import Role

from .admission import EVERY_ROLE, Door, Policy
from .clock import Clock
from .credentials import Credentials, CredentialsError, read_entries
from .datasets import Datasets
from .dispatch import NOT_TEXT, Dispatcher, Handler
from .engine import Engine
from .errors import RefusedError
from .guesses import Guesses
from .handshake import is_loopback, parse_address
from .limits import Limits
from .protection import check_exposure
from .roles import permitted
from .tls import Certificates, TlsError
from .transport import Connection, Respond, Timeouts

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

_BACKLOG = 4096
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
        data_dir: folder for datasets; without it saving is disabled.
        load: name of a dataset to load before connections are accepted.
        timeouts: how long to wait for clients.
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
    load: str | None = None
    timeouts: Timeouts = Timeouts()
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
        self._clock = Clock()
        self._engine = Engine(limits=options.limits)
        self._datasets = Datasets(self._engine, options.data_dir, self._clock)
        self._handlers: dict[str, Handler] = {
            **self._engine.handlers,
            **self._datasets.handlers,
            "SV_INFO": self._info,
        }
        # One for all clients with the same roles.
        self._dispatchers: dict[frozenset[Role], Dispatcher] = {}
        self._guesses = Guesses(self._engine, asyncio.get_running_loop().time)
        self._door = Door(_policy(options), options.limits, self._respond_for)
        self._tls: ssl.SSLContext | None = None
        self._reported: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    def _info(self, _: m.Empty, __: int) -> m.ServerInfoReply:
        return m.ServerInfoReply(
            serverVersion=VERSION,
            persistEnabled=self._options.data_dir is not None,
            protocol=PROTOCOL_VERSION,
            limits=_shown(self._options),
            features=FEATURES,
        )

    def _respond_for(
        self, roles: frozenset[Role], client: str, gone: asyncio.Future[None]
    ) -> Respond:
        dispatcher = self._dispatchers.get(roles)
        if dispatcher is None:
            handlers = self._handlers if roles == EVERY_ROLE else permitted(self._handlers, roles)
            dispatcher = Dispatcher(handlers, self._options.limits.depth)
            self._dispatchers[roles] = dispatcher
        return self._guesses.slowing(client, gone, dispatcher.dispatch)

    @property
    def reached(self) -> Counter[str]:
        """How often a client came to a limit, by the limit."""
        found = self._engine.reached + self._door.reached
        found["steps"] = self._engine.steps.exceeded
        found["depth"] = sum(one.too_deep for one in self._dispatchers.values())
        found["unknown_tokens"] = self._guesses.slowed
        found["evicted"] = self._engine.evicted
        return found

    def _report(self) -> None:
        """Log which limits were reached since the last time."""
        reached = self.reached
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

    async def _protect(self) -> None:
        """Prepare what keeps others out, and see that there is enough of it.

        Raises:
            StartError: there isn't, or it can't be used.
        """
        options = self._options
        try:
            if options.auth_file is not None:
                self._door.credentials = Credentials(read_entries(options.auth_file).values())
            if options.certificates is not None:
                self._tls = options.certificates.context()
        except (CredentialsError, TlsError) as error:
            raise StartError(str(error)) from error
        certificates = options.certificates
        reason = check_exposure(
            options.host,
            loopback=await self._is_loopback(),
            guarded=options.auth_file is not None
            or (certificates is not None and certificates.client_ca is not None),
            encrypted=certificates is not None,
            waived=options.behind_proxy or options.insecure,
        )
        if reason is not None:
            raise StartError(reason)

    async def _is_loopback(self) -> bool:
        """Tell whether only this machine can reach where to listen; what is no address is none."""
        try:
            found = await self._loop.getaddrinfo(self._options.host, None)
        except (OSError, ValueError):
            return True
        return all(is_loopback(str(address[0])) for *_, address in found)

    async def start(self) -> str:
        """Load what is to be loaded, accept connections, and return the server's URL.

        Raises:
            StartError: it can't.
        """
        options = self._options
        await self._protect()
        if options.load is not None:
            try:
                await self._datasets.load(options.load)
            except RefusedError as error:
                raise StartError(f"cannot load '{options.load}': {error.message}") from error
        try:
            self._listener = await self._loop.create_server(
                lambda: Connection(
                    _unheard,
                    self._clock,
                    NOT_TEXT,
                    self._connections,
                    options.timeouts,
                    self._door.arrive,
                    options.limits,
                ),
                options.host,
                options.port,
                # Many clients may come back at once, after a network was down.
                backlog=_BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=options.timeouts.handshake if self._tls else None,
                ssl_shutdown_timeout=options.timeouts.close if self._tls else None,
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
        self._reap()
        self._check_alive()
        host, port = self._listener.sockets[0].getsockname()[:2]
        scheme = "ws" if self._tls is None else "wss"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

    async def stop(self) -> None:
        """Stop accepting, answer what has arrived, close every connection with 1001."""
        self._listener.close()
        self._guesses.close()
        # One turn of the loop reads what the sockets hold by now.
        await asyncio.sleep(0)
        await asyncio.gather(*(connection.shut_down() for connection in self._connections))
        for timer in self._timers.values():
            timer.cancel()
        self._report()
        self._door.close()
        self._datasets.close()

    def _again(self, delay: float, action: Callable[[], None]) -> None:
        self._timers[action] = self._loop.call_later(delay, action)

    def _reap(self) -> None:
        # In slices, so that a million sessions expiring at once delay nobody's request for long.
        more = self._engine.reap(self._clock(), _REAP_SLICE)
        self._again(0 if more else _REAP_INTERVAL, self._reap)

    def _check_alive(self) -> None:
        for connection in list(self._connections):
            connection.check_alive()
        self._report()
        self._again(self._options.timeouts.ping, self._check_alive)


def _unheard(messages: Sequence[bytes], now: int, text_tokens: bool) -> list[bytes]:
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
    server = Server(options)
    url = await server.start()
    loop.add_signal_handler(signal.SIGHUP, server.reload)
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
