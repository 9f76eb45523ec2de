"""The command line, the environment and the configuration file of ``ndb-server``."""

import asyncio
import logging
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal, NoReturn, get_args, get_type_hints

from cyclopts import App, CoercionError, CycloptsError, Parameter, Token
from cyclopts.config import Dict, Env
from cyclopts.validators import Number
from ndb_protocol import DEFAULT_PORT

from . import data_commands
from .errors import DataError
from .logs import LogFormat, log_to_stderr
from .parameters import Text
from .salvage import salvage as salvage_store
from .server import VERSION, Options, StartError, serve
from .store import Durability, StoreError

FAILED = 1
"""Exit status when data can't be read or imported."""

logger = logging.getLogger(__name__)

USAGE_ERROR = 2
"""Exit status when the server can't be started, or a command not done, as asked."""

app = App(
    name="ndb-server",
    version=VERSION,
    help="Keep sessions: small maps of JSON values with a lifetime, over WebSocket.",
    help_epilogue=(
        "Every option is also an environment variable (NDB_PORT) and a key of the configuration "
        "file (port). The command line wins over the environment, the environment over the file."
    ),
)

_ENVIRONMENT = Env("NDB_", command=False)
app.config = app.meta.config = [_ENVIRONMENT]
app.command(data_commands.datasets)
app.command(data_commands.check)
app.command(data_commands.export)
app.command(data_commands.import_, name="import")


def _whole_number(_: object, tokens: Sequence[Token]) -> int:
    # The conversion of cyclopts would round 1.5.
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


Port = Annotated[int, Parameter(converter=_whole_number, validator=Number(gte=0, lte=65535))]
Whole = Annotated[int, Parameter(converter=_whole_number, validator=Number(gte=0))]
Switch = Literal["on", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
Loop = Literal["auto", "uvloop", "asyncio"]


@app.default
def run(
    *,
    host: Text = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    log_level: LogLevel = "info",
    log_format: LogFormat = "text",
    data_dir: Text | None = None,
    durability: Durability = "strict",
    load: Text | None = None,
    salvage: Annotated[bool, Parameter(negative="")] = False,
    loop: Loop = "auto",
    metrics: Switch = "on",
    ops_port: Port | None = None,
    slow_ms: Whole | None = None,
    shutdown_timeout: Whole = 10,
) -> None:
    """Run the server until SIGINT or SIGTERM.

    When it accepts connections, its URL is printed on stdout; logs go to stderr.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        log_level: Least severe level to log.
        log_format: Text for people, or JSON, one object a line, for machines.
        data_dir: Folder that keeps everything, made if it does not exist; without it all data goes
            with the process, and saving is disabled.
        durability: What the reply to a change promises, with a data folder: strict, that it is
            there after a power cut; relaxed, that it is there after the process is killed, and
            after a power cut if it was a second ago.
        load: Name of a saved dataset to load before connections are accepted.
        salvage: If the store in the data folder is damaged, make a new one of what can be read; the
            damaged one is kept beside it.
        loop: Event loop: uvloop, asyncio's own, or by default uvloop where it is installed.
        metrics: Count requests, and show what is counted at /metrics.
        ops_port: Port for /healthz, /readyz and /metrics; without it they are on the main one.
        slow_ms: Log commands that take at least this many milliseconds; without it none.
        shutdown_timeout: Seconds that connections get to end when the server is told to stop.
    """
    log_to_stderr(log_level, log_format)
    folder = None if data_dir is None else _prepare(Path(data_dir))
    if salvage and folder is not None:
        for line in salvage_store(folder):
            logger.warning(line)
    options = Options(
        host=host,
        port=port,
        data_dir=folder,
        durability=durability,
        load=load,
        shutdown_timeout=shutdown_timeout,
        metrics=metrics == "on",
        ops_port=ops_port,
        slow_ms=slow_ms,
    )
    with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        runner.run(serve(options))


def _loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - it is there or it is not
    except ImportError:
        if loop == "uvloop":
            raise StartError(
                "uvloop is not installed; pip install uvloop or leave out --loop"
            ) from None
        return None
    return uvloop.new_event_loop


def _prepare(data_dir: Path) -> Path:
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
    return data_dir


_KINDS = {int: (int, "an integer"), bool: (bool, "true or false")}

_IN_FILE = {
    name.replace("_", "-"): next(
        (_KINDS[kind] for kind in (hint, *get_args(hint)) if kind in _KINDS), (str, "a string")
    )
    for name, hint in get_type_hints(run).items()
    if name != "return"
}
"""Of which type each key of the configuration file is, and what to call it."""


def _read(config: Path) -> dict[str, Any]:
    """Return the options in the file `config`.

    cyclopts would take ``5`` for a path, and pass over keys that are options of its own.
    """
    try:
        options = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read configuration {config}: {error}") from error
    for key, value in options.items():
        if key not in _IN_FILE:
            raise StartError(f"unknown option [{key}] in {config}; there are {', '.join(_IN_FILE)}")
        kind, must_be = _IN_FILE[key]
        if type(value) is not kind:
            raise StartError(f"[{key}] in {config} must be {must_be}, not {value}")
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
    if config is not None:
        file = Dict(
            _read(Path(config)), source=config, use_commands_as_keys=False, allow_unknown=True
        )
        app.config = [_ENVIRONMENT, file]
    status: int | None = app(arguments, exit_on_error=False, print_error=False)
    return status


def main(arguments: list[str] | None = None) -> None:
    """Run ``ndb-server``; exit with status 2 and one line on stderr if it can't start as asked.

    Args:
        arguments: the command line; by default that of the process.
    """
    try:
        app.meta(arguments, exit_on_error=False, print_error=False)
    except (CycloptsError, StartError, StoreError) as error:
        _fail(error, USAGE_ERROR)
    except DataError as error:
        _fail(error, FAILED)


def _fail(error: Exception, status: int) -> NoReturn:
    # An error of cyclopts can have several lines.
    print("ndb-server:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(status)
