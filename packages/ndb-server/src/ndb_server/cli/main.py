"""The command line, the environment and the configuration file of ``ndb-server``."""

import asyncio
import logging
import os
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from cyclopts import App, CoercionError, CycloptsError, Parameter, Token
from cyclopts.config import Dict, Env
from cyclopts.validators import Number
from ndb_protocol import DEFAULT_PORT
from ndb_protocol.stdio import OutputError, all_output, open_missing_descriptors

from ..access.credentials import CredentialsError
from ..access.request_checks import parse_allowed_host, parse_origin
from ..access.tls import Certificates
from ..errors import DataError, StoreError, trace_of
from ..limits import Limits, raise_file_limit
from ..maintenance.salvage import salvage as salvage_store
from ..server.logs import LogFormat, log_to_stderr
from ..server.server import LOOPBACK, NO_MEMORY, VERSION, BrokenError, Options, StartError, serve
from ..server.systemd import passed_names
from ..storage.store import Durability
from ..websocket.connection import Timeouts
from . import auth as auth_command
from . import data as data_commands
from .arguments import Text, not_empty
from .combinations import contradiction, options_without_effect
from .environment import PREFIX, UnknownVariables, remove_unknown_variables

FAILED = 1
"""Exit status when data can't be read or imported, or the server fails while it runs."""

logger = logging.getLogger("ndb_server.cli")

_GROUP_AND_OTHERS = 0o077
"""What the users that don't own a file may do with it."""

USAGE_ERROR = 2
"""Exit status when the server can't be started, or a command not done, as asked."""

app = App(
    name="ndb-server",
    version=VERSION,
    help="Session store: keeps small maps of JSON values with a lifetime, over WebSocket.",
    help_epilogue=(
        "Every option can also be set as an environment variable (NDB_PORT) or as a key of the "
        "configuration file (port). The command line takes precedence over the environment, and "
        "the environment over the file."
    ),
)

_ENVIRONMENT = Env(PREFIX, command=False)
app.config = app.meta.config = [_ENVIRONMENT]
app.command(data_commands.datasets)
app.command(data_commands.check)
app.command(data_commands.export)
app.command(data_commands.import_, name="import")
app.command(auth_command.app)


def _whole_number(_: object, tokens: Sequence[Token]) -> int:
    # The conversion of cyclopts would round 1.5.
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


_SUFFIXES = {"k": 2**10, "m": 2**20, "g": 2**30}


def _size(_: object, tokens: Sequence[Token]) -> int:
    text = tokens[0].value.lower()
    try:
        return int(text[:-1]) * _SUFFIXES[text[-1]] if text[-1:] in _SUFFIXES else int(text)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


def _each(parse: Callable[[str], object]) -> Callable[[object, Sequence[str]], None]:
    def validate(_: object, values: Sequence[str]) -> None:
        for value in values:
            parse(value)

    return validate


Port = Annotated[int, Parameter(converter=_whole_number, validator=Number(gte=0, lte=65535))]
Switch = Literal["on", "off"]
Count = Annotated[int, Parameter(converter=_whole_number, validator=Number(gte=0))]
PositiveCount = Annotated[int, Parameter(converter=_whole_number, validator=Number(gte=1))]
Size = Annotated[int, Parameter(converter=_size, validator=Number(gte=0))]
Addresses = Annotated[
    tuple[str, ...],
    # What is empty has no words in it, and would go unseen.
    Parameter(
        negative=(),
        validator=_each(not_empty),
        env_var_split=lambda _, value, **__: value.split() or [value],
    ),
]
Origins = Annotated[tuple[str, ...], Parameter(negative=(), validator=_each(parse_origin))]
Hosts = Annotated[tuple[str, ...], Parameter(negative=(), validator=_each(parse_allowed_host))]
Flag = Annotated[bool, Parameter(negative=())]
LogLevel = Literal["debug", "info", "warning", "error"]
Loop = Literal["auto", "uvloop", "asyncio"]
WhenFull = Literal["refuse", "evict"]

_LIMITS = Limits()
_TIMEOUTS = Timeouts()


@app.default
def run(
    *,
    host: Addresses = (),
    port: Port = DEFAULT_PORT,
    unix: Text | None = None,
    log_level: LogLevel = "info",
    log_format: LogFormat = "text",
    data_dir: Text | None = None,
    durability: Durability = "strict",
    load: Text | None = None,
    salvage: Flag = False,
    loop: Loop = "auto",
    metrics: Switch = "on",
    ops_port: Port | None = None,
    slow_ms: Count | None = None,
    shutdown_timeout: Count = 10,
    auth_file: Text | None = None,
    tls_cert: Text | None = None,
    tls_key: Text | None = None,
    tls_client_ca: Text | None = None,
    allow_origin: Origins = (),
    allow_host: Hosts = (),
    behind_proxy: Flag = False,
    insecure: Flag = False,
    max_memory: Size = _LIMITS.memory,
    when_full: WhenFull = "refuse",
    max_sessions: Count = _LIMITS.sessions,
    max_keys: Count = _LIMITS.keys,
    max_key_length: Count = _LIMITS.key_length,
    max_message_size: Size = _LIMITS.message_size,
    max_depth: PositiveCount = _LIMITS.depth,
    max_steps: Count = _LIMITS.steps,
    max_in_flight: Count = _LIMITS.in_flight,
    max_connections: Count = _LIMITS.connections,
    max_connections_per_address: Count = _LIMITS.connections_per_address,
    handshake_timeout: PositiveCount = int(_TIMEOUTS.handshake),
    idle_timeout: Count = int(_TIMEOUTS.idle),
) -> None:
    """Run the server until SIGINT or SIGTERM.

    When it accepts connections, it prints its URL on stdout. The log goes to stderr.

    Args:
        host: Address or host name to listen on; by default 127.0.0.1. Can be given several times.
            :: also listens on all IPv4 addresses, unless an IPv4 address is given too.
        port: Port to listen on; 0 uses any free port.
        unix: Path of a Unix socket to listen on, for its owner and its group. Without --host the
            server listens on nothing else.
        log_level: Least severe level to log.
        log_format: Text, or JSON with one object per line.
        data_dir: Folder for all data, created if it does not exist. Without it, all data is lost
            when the process ends, and saving is disabled.
        durability: What the reply to a change guarantees, with a data folder. strict: the change
            survives a power cut. relaxed: the change survives if the process is killed, and
            survives a power cut if it was made at least a second before.
        load: Name of a saved dataset to load before connections are accepted.
        salvage: If the store in the data folder is damaged, make a new store from the data that
            can be read. The damaged store is kept beside it.
        loop: Event loop: uvloop or asyncio's own; by default uvloop if it is installed.
        metrics: Count requests, and serve the counters at /metrics.
        ops_port: Port for /healthz, /readyz and /metrics; without it they are on the main port.
        slow_ms: Log commands that take at least this many milliseconds; without it, none.
        shutdown_timeout: Seconds that connections have to end when the server is told to stop.
        auth_file: File of credentials, created by ndb-server auth; without it, every client may
            connect.
        tls_cert: PEM file with the server's certificate, followed by the intermediate certificates.
        tls_key: PEM file with the private key of the certificate.
        tls_client_ca: PEM file with the CA certificates for client certificates; without it,
            clients need no certificate.
        allow_origin: Origin whose web pages may connect, such as https://app.example. Can be given
            several times; without it, no web page may connect.
        allow_host: Host name that clients use for the server. Can be given several times.
        behind_proxy: All connections come through a proxy that terminates TLS and adds
            X-Forwarded-For.
        insecure: Listen on any address without credentials and TLS.
        max_memory: Bytes of memory for sessions and keys, with k, m or g for powers of 1024; 0
            means no limit, here and below.
        when_full: What to do when memory is full: refuse new data, or evict the sessions that
            expire first.
        max_sessions: Maximum number of sessions.
        max_keys: Maximum number of keys in a session.
        max_key_length: Maximum number of characters in a key's name.
        max_message_size: Maximum size of a message in bytes, with k, m or g.
        max_depth: Maximum nesting depth of arrays and objects in a message.
        max_steps: Maximum number of steps through values for one request.
        max_in_flight: Maximum number of requests of one connection that are answered together.
        max_connections: Maximum number of connections.
        max_connections_per_address: Maximum number of connections from one address.
        handshake_timeout: Seconds within which the opening handshake must be complete.
        idle_timeout: Seconds after which a connection without a request is closed; 0 for never.
    """
    # What is wrong with these is found before anything is made or changed.
    certificates = _certificates(tls_cert, tls_key, tls_client_ca)
    loop_factory = _loop_factory(loop)
    folder = None if data_dir is None else _prepare_data_dir(Path(data_dir))
    options = Options(
        host=host or (() if unix else (LOOPBACK,)),
        port=port,
        unix=None if unix is None else Path(unix).absolute(),
        data_dir=folder,
        durability=durability,
        load=load,
        shutdown_timeout=shutdown_timeout,
        metrics=metrics == "on",
        ops_port=ops_port,
        slow_ms=slow_ms,
        timeouts=replace(_TIMEOUTS, handshake=handshake_timeout, idle=idle_timeout),
        limits=Limits(
            message_size=max_message_size,
            depth=max_depth,
            in_flight=max_in_flight,
            steps=max_steps,
            keys=max_keys,
            key_length=max_key_length,
            sessions=max_sessions,
            memory=max_memory,
            evict=when_full == "evict",
            connections=max_connections,
            connections_per_address=max_connections_per_address,
        ),
        auth_file=None if auth_file is None else Path(auth_file),
        certificates=certificates,
        origins=frozenset(map(parse_origin, allow_origin)),
        hosts=frozenset(map(parse_allowed_host, allow_host)),
        behind_proxy=behind_proxy,
        insecure=insecure,
    )
    if salvage and folder is not None:
        for line in salvage_store(folder):
            logger.warning(line)
    raise_file_limit()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(options))


def _loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - it is there or it is not
    except ImportError:
        if loop == "uvloop":
            raise StartError(
                "uvloop is not installed; run pip install uvloop, or leave out --loop"
            ) from None
        return None
    return uvloop.new_event_loop


def _certificates(chain: str | None, key: str | None, client_ca: str | None) -> Certificates | None:
    if chain is None and key is None and client_ca is None:
        return None
    if chain is None or key is None:
        raise StartError("TLS needs both --tls-cert and --tls-key")
    return Certificates(Path(chain), Path(key), None if client_ca is None else Path(client_ca))


def _prepare_data_dir(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        next(data_dir.iterdir(), None)
        with TemporaryFile(dir=data_dir):
            pass
    except (OSError, ValueError) as error:
        # A path with a null character is a ValueError.
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(
            f"cannot use data folder {data_dir}: {reason}; it must be readable and writable"
        ) from error
    if data_dir.stat().st_mode & _GROUP_AND_OTHERS:
        logger.warning(
            "other users of this machine may read %s, which contains tokens; remove their access: "
            "chmod -R go-rwx %s",
            data_dir,
            shlex.quote(str(data_dir)),
        )
    return data_dir


def _toml_types(hint: Any) -> tuple[tuple[type, ...], str]:
    """Return of which types an option may be in the configuration file, and what to call that."""
    if hint == Addresses:
        return (str, list), "a string, or an array of strings"
    if hint == Size:
        return (int, str), "an integer, or a string such as '64m'"
    # An option that may be left out is the union of its type and None.
    plain = get_args(hint)[0] if NoneType in get_args(hint) else hint
    if get_origin(plain) is Annotated:
        plain = get_args(plain)[0]
    if plain is int:
        return (int,), "an integer"
    if plain is bool:
        return (bool,), "true or false"
    if get_origin(plain) is tuple:
        return (list,), "an array of strings"
    return (str,), "a string"


_OPTION_TYPES = {
    name.replace("_", "-"): _toml_types(hint)
    for name, hint in get_type_hints(run, include_extras=True).items()
    if name != "return"
}
"""Of which types each key of the configuration file may be, and what to call that."""


def _read(config: Path) -> dict[str, Any]:
    """Return the options in the file `config`.

    cyclopts would take ``5`` for a path, and pass over keys that are options of its own.
    """
    try:
        options = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read configuration {config}: {error}") from error
    for key, value in options.items():
        if key not in _OPTION_TYPES:
            raise StartError(
                f"unknown option [{key}] in {config}; the options are {', '.join(_OPTION_TYPES)}"
            )
        kinds, must_be = _OPTION_TYPES[key]
        if type(value) not in kinds or (type(value) is list and {*map(type, value)} - {str}):
            raise StartError(f"[{key}] in {config} must be {must_be}, not {value}")
        if value == []:
            raise StartError(f"[{key}] in {config} must not be empty; leave it out for the default")
    return options


@app.meta.default
def configure(
    *arguments: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Text | None = None,
) -> int | None:
    """Read the configuration, then run.

    Args:
        arguments: The rest of the command line.
        config: TOML file with options.

    Returns:
        the exit status of a command.
    """
    app.config = [_ENVIRONMENT]
    if config is not None:
        file = Dict(
            _read(Path(config)), source=config, use_commands_as_keys=False, allow_unknown=True
        )
        app.config = [_ENVIRONMENT, file]
    strangers = remove_unknown_variables(os.environ, _variables())
    if app.parse_commands(arguments)[0]:
        for line in strangers.unknown:
            print("ndb-server:", line, file=sys.stderr)
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    if command is run:
        _prepare_run(bound.arguments, strangers)
    status: int | None = app(arguments, exit_on_error=False, print_error=False)
    return status


def _prepare_run(given: Mapping[str, Any], strangers: UnknownVariables) -> None:
    """Begin to log, and say which options and variables have no effect.

    Raises:
        StartError: what is asked for can't be had.
    """
    log_to_stderr(given.get("log_level", "info"), given.get("log_format", "text"))
    if strangers.of_services:
        logger.log(
            logging.WARNING if strangers.hidden else logging.INFO,
            "ignoring variables that Kubernetes or Docker have set for a Service: %s%s",
            ", ".join(strangers.of_services),
            "; set the options of these names in another way" if strangers.hidden else "",
        )
    for line in strangers.unknown:
        logger.warning(line)
    try:
        passed = passed_names()
    except ValueError as error:
        raise StartError(f"the service manager's LISTEN_FDS is not a number: {error}") from error
    reason = contradiction(given)
    if reason is not None:
        raise StartError(reason)
    for line in options_without_effect(given, passed):
        logger.warning(line)


def _variables() -> set[str]:
    """Return the names of the variables that are options, of the server or of a command."""
    named = {"--config"}
    for one in _programs(app):
        named |= {name for each in one.assemble_argument_collection() for name in each.names}
    return {PREFIX + name.lstrip("-").upper().replace("-", "_") for name in named}


def _programs(one: App) -> Iterator[App]:
    """Yield what can be run: the server and each command."""
    if one.default_command is not None:
        yield one
    for name in one:
        if not name.startswith("-"):
            yield from _programs(one[name])


def main(arguments: list[str] | None = None) -> None:
    """Run ``ndb-server``; exit with status 2 and one line on stderr if it can't start as asked.

    Args:
        arguments: the command line; by default that of the process.
    """
    # Files and folders are for this user alone, whatever makes them, SQLite among others.
    os.umask(_GROUP_AND_OTHERS)
    try:
        open_missing_descriptors()
        with all_output():
            app.meta(arguments, exit_on_error=False, print_error=False)
    except (CycloptsError, StartError, StoreError, CredentialsError) as error:
        _fail(error, USAGE_ERROR)
    except (DataError, OutputError, BrokenError) as error:
        _fail(error, FAILED)
    except MemoryError:
        _fail(NO_MEMORY, FAILED)
    except Exception as error:  # Nobody has thought of it; whoever is to find it has the trace.
        logger.critical("unexpected error\n%s", trace_of(error))
        _fail(f"unexpected error {type(error).__name__}; the log has the details", FAILED)


def _fail(error: object, status: int) -> NoReturn:
    # An error of cyclopts can have several lines. One that can't be said still has its status.
    with suppress(OSError):
        print("ndb-server:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(status)
