"""The command line, the environment and the configuration file."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from ndb_server.cli import main as cli
from websockets.sync.client import connect

from tests.support.command_line import error_of
from tests.support.ipv6 import needs_ipv6
from tests.support.project_sources import ROOT
from tests.support.raw_client import Wire, opened
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

pytestmark = pytest.mark.usefixtures("nothing_configured", "signals_as_before")

NOT_OURS = "192.0.2.1"
"""An address that no machine has (RFC 5737)."""


def process_that_fails(*arguments: str, **environment: str) -> str:
    """Run the program as a process, which must not start; return the one line it says."""
    process = subprocess.run(
        [sys.executable, "-m", "ndb_server", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
        env={**os.environ, **environment},
    )
    assert (process.returncode, process.stdout) == (2, "")
    [line] = process.stderr.splitlines()
    return line


def configuration(folder: Path, text: str) -> str:
    """Write a configuration file and return its path."""
    path = folder / "ndb.toml"
    path.write_text(text)
    return str(path)


# What is wrong with an option, from each place where it can stand

BAD_VALUES = [
    ("port", "x", '"x"'),
    ("port", "-1", "-1"),
    ("port", "65536", "65536"),
    ("port", "1.5", "1.5"),
    ("port", "", '""'),
    ("log-level", "loud", '"loud"'),
    ("loop", "fast", '"fast"'),
    ("loop", "", '""'),
    ("log-format", "xml", '"xml"'),
    ("metrics", "yes", '"yes"'),
    ("ops-port", "65536", "65536"),
    ("slow-ms", "-1", "-1"),
    ("slow-ms", "", '""'),
    ("shutdown-timeout", "1.5", "1.5"),
    ("host", "", "Must not be empty"),
    ("data-dir", "", "Must not be empty"),
    ("load", "", "Must not be empty"),
    ("config", "", "Must not be empty"),
]


@pytest.mark.parametrize(("option", "value", "named"), BAD_VALUES)
def test_a_bad_value_on_the_command_line_is_named(
    capfd: pytest.CaptureFixture[str], option: str, value: str, named: str
) -> None:
    line = error_of(capfd, f"--{option}={value}")
    assert f"--{option}" in line
    assert named in line


@pytest.mark.parametrize(("option", "value", "named"), BAD_VALUES)
def test_a_bad_value_in_the_environment_is_named(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    named: str,
) -> None:
    variable = f"NDB_{option.upper().replace('-', '_')}"
    monkeypatch.setenv(variable, value)
    line = error_of(capfd)
    assert variable in line
    assert named in line


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("port", "-1", "-1"),
        ("port", "65536", "65536"),
        ("log-level", "'loud'", '"loud"'),
        ("loop", "'fast'", '"fast"'),
        ("host", "''", "Must not be empty"),
        ("data-dir", "''", "Must not be empty"),
        ("load", "''", "Must not be empty"),
        *(("port", value, "must be an integer") for value in ("1.5", "true", "'1'", "[1]", "{}")),
        ("ops-port", "'1'", "must be an integer"),
        ("slow-ms", "-1", "-1"),
        *(
            (option, value, "must be a string")
            for option in (
                "log-level",
                "log-format",
                "data-dir",
                "load",
                "loop",
                "metrics",
            )
            for value in ("5", "false", "1979-05-27", "['a']", "{a = 'b'}")
        ),
        *(
            ("host", value, "must be a string, or an array of strings")
            for value in ("5", "false", "1979-05-27", "{a = 'b'}", "['a', 5]")
        ),
        ("host", "['127.0.0.1', '']", "Must not be empty"),
        *((option, "[]", "must not be empty") for option in ("host", "allow-origin", "allow-host")),
        ("unix", "''", "Must not be empty"),
        ("unix", "['a']", "must be a string"),
    ],
)
def test_a_bad_value_in_the_file_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str, named: str
) -> None:
    config = configuration(tmp_path, f"{option} = {value}")
    line = error_of(capfd, "--config", config)
    assert f"[{option}]" in line
    assert named in line
    assert config in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bogus"], "--bogus"),
        (["serve"], "serve"),
        (["--port"], "--port"),
        (["--config"], "--config"),
        (["--host", NOT_OURS, "--port", "4321"], f"{NOT_OURS} port 4321"),
        (["--host", "nowhere.invalid"], "nowhere.invalid"),
        (["--host", "a" * 64 + ".invalid"], "label"),
        (["--load", "evening"], "'evening'"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_named(
    capfd: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert named in error_of(capfd, *arguments)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("bogus = 1", "bogus"),
        ("config = 'other.toml'", "config"),
        ("version = true", "version"),
        ("'--help' = true", "--help"),
        ("data_dir = '/tmp'", "data_dir"),
        ("[server]\nport = 1", "server"),
        ("port = x", "line 1"),
        ("port = 1\nport = 2\n", "line 2"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str, named: str
) -> None:
    config = configuration(tmp_path, text)
    line = error_of(capfd, "--config", config)
    assert named in line
    assert config in line


def test_a_file_that_is_missing_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    assert missing in error_of(capfd, "--config", missing)


def test_a_file_that_is_a_folder_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert str(tmp_path) in error_of(capfd, "--config", str(tmp_path))


def test_a_file_that_is_not_text_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "ndb.toml"
    path.write_bytes(b"host = '\xff'")
    assert str(path) in error_of(capfd, "--config", str(path))


# The folder and what is loaded from it


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user who may do less than root, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o555, 0o333])
def test_a_folder_without_permission_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, mode: int
) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    folder = tmp_path / "data"
    folder.mkdir(mode=mode)
    folder.chmod(mode)
    with nobody():
        line = error_of(capfd, "--data-dir", str(folder))
    assert str(folder) in line
    assert "Permission denied" in line


def test_a_folder_that_cannot_be_made_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    for folder in (in_the_way, in_the_way / "data", Path("/proc/data")):
        assert str(folder) in error_of(capfd, "--data-dir", str(folder))


def test_a_folder_that_takes_no_file_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    # Root may write here, says the system; but it can't be done.
    assert "/proc/self" in error_of(capfd, "--data-dir", "/proc/self")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("option", ["host", "data-dir"])
def test_a_name_that_the_system_cannot_be_told_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, option: str, loop: str
) -> None:
    config = configuration(tmp_path, f'{option} = "a\\u0000b"\nloop = "{loop}"\nport = 0')
    assert re.search("cannot (listen on|use data folder) a\0b", error_of(capfd, "--config", config))


@pytest.mark.parametrize("name", ["evening", "../evening"])
def test_a_dataset_that_cannot_be_loaded_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    line = error_of(capfd, "--data-dir", str(tmp_path), f"--load={name}", "--port=0")
    assert f"'{name}'" in line


def test_a_damaged_dataset_stops_the_start(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "datasets" / "keys" / "a"
    folder.mkdir(parents=True)
    (folder / "000001.sqlite").write_text("no dataset")
    assert "000001.sqlite" in error_of(capfd, "--data-dir", str(tmp_path), "--load=a")


# The event loop


def test_a_loop_that_is_not_installed_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert "uvloop is not installed" in error_of(capfd, "--loop", "uvloop")
    # It got as far as its address: where uvloop is missing, that of asyncio does.
    assert NOT_OURS in error_of(capfd, "--host", NOT_OURS)
    assert NOT_OURS in error_of(capfd, "--host", NOT_OURS, "--loop", "asyncio")


# Which place wins


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = configuration(tmp_path, f'host = "{NOT_OURS}"\nport = 1111')

    def port(*arguments: str) -> int:
        found = re.search(r"port ([0-9]+):", error_of(capfd, *arguments))
        assert found
        return int(found[1])

    assert port("--host", NOT_OURS) == 1987
    assert port("--config", config) == 1111
    monkeypatch.setenv("NDB_PORT", "2222")
    assert port("--config", config) == 2222
    assert port("--config", config, "--port", "3333") == 3333
    monkeypatch.setenv("NDB_CONFIG", config)
    assert port() == 2222
    monkeypatch.delenv("NDB_PORT")
    assert port() == 1111


# As a process


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = process_that_fails("--port", str(port))
    assert f"127.0.0.1 port {port}" in line
    assert "in use" in line


def test_a_process_that_cannot_start_says_one_line(tmp_path: Path) -> None:
    assert "--bogus" in process_that_fails("--bogus")
    assert "NDB_PORT" in process_that_fails(NDB_PORT="x")
    assert "'evening'" in process_that_fails("--data-dir", str(tmp_path), "--load", "evening")


def test_a_file_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "ndb.toml"
    path.write_text("data-dir = '/proc/é'", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert r"data folder /proc/\xe9" in process_that_fails("--config", str(path), **ascii_only)


def test_a_url_that_cannot_be_printed_stops_the_start() -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "ndb_server", "--port", "0"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=BOUND,
            check=False,
        )
    assert process.returncode == 2
    line = process.stderr.splitlines()[-1]
    assert line == "ndb-server: cannot print the URL on standard output: No space left on device"


OPTIONS = [
    *(
        "host",
        "port",
        "unix",
        "log-level",
        "log-format",
        "data-dir",
        "durability",
        "load",
        "salvage",
    ),
    *("loop", "metrics", "ops-port", "slow-ms", "shutdown-timeout", "config", "version", "help"),
]


def test_version_and_help_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    project = ROOT / "packages" / "ndb-server" / "pyproject.toml"
    version = tomllib.loads(project.read_text())["project"]["version"]
    run_to_success("--version")
    assert capfd.readouterr() == (f"{version}\n", "")
    run_to_success("--help")
    out, err = capfd.readouterr()
    assert err == ""
    for option in OPTIONS:
        assert f"--{option}" in out


def run_to_success(*arguments: str) -> None:
    try:
        cli.main([*arguments])
    except SystemExit as status:
        assert not status.code


def test_the_installed_program_is_the_module() -> None:
    program = Path(sys.executable).with_name("ndb-server")
    commands = [[str(program)], [sys.executable, "-m", "ndb_server"]]
    versions = {
        subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=BOUND, check=True
        ).stdout
        for command in commands
    }
    assert len(versions) == 1


def answers(server: Server) -> None:
    with connect(server.url, proxy=None) as connection:
        connection.send('{"KV_COUNT":{}}')
        assert connection.recv() == '{"KV_COUNT_RSP":{"st":1,"cnt":0}}'


def test_the_url_is_the_one_line_of_stdout(start_server: StartServer) -> None:
    server = start_server()
    assert re.fullmatch(r"ws://127\.0\.0\.1:[0-9]+/", server.url)
    answers(server)
    server.stop()
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
def test_a_server_listens_where_it_is_told_to(start_server: StartServer, host: str) -> None:
    answers(start_server("--host", host))


@needs_ipv6
def test_the_url_of_an_ipv6_address_has_brackets(start_server: StartServer) -> None:
    server = start_server("--host", "::1")
    assert server.url.startswith("ws://[::1]:")
    answers(server)


def start_with(
    start_server: StartServer, options: Mapping[str, str], place: str, folder: Path
) -> Server:
    """Start a server whose options stand in `place`."""
    if place == "command line":
        return start_server(*(f"--{option}={value}" for option, value in options.items()))
    if place == "environment":
        names = {option: f"NDB_{option.upper().replace('-', '_')}" for option in options}
        return start_server(env={names[option]: value for option, value in options.items()})
    lines = [f'{option} = "{value}"' for option, value in options.items()]
    return start_server("--config", configuration(folder, "\n".join(lines)))


@pytest.mark.parametrize("place", ["command line", "environment", "file"])
@pytest.mark.parametrize("level", ["info", "warning"])
def test_every_option_can_stand_in_every_place(
    start_server: StartServer, tmp_path: Path, place: str, level: str
) -> None:
    folder = tmp_path / "made"
    first = start_server("--data-dir", str(folder))
    with opened(first.port) as client:
        client.request("KV_SET", keys={"a": 1})
        assert client.request("KV_SAVE", name="evening")["st"] == 121
    first.stop()
    options = {
        "host": "127.0.0.3",
        "log-level": level,
        "data-dir": str(folder),
        "durability": "relaxed",
        "load": "evening",
        "loop": "asyncio",
        "log-format": "json",
        "metrics": "off",
    }
    server = start_with(start_server, options, place, tmp_path)
    assert server.url.startswith("ws://127.0.0.3:")
    with Wire(server.port, "127.0.0.3") as client:
        client.upgrade()
        assert client.request("SV_INFO")["persistEnabled"] is True
        assert client.request("KV_GET", keys=["a"])["keys"] == {"a": 1}
    with Wire(server.port, "127.0.0.3") as client:
        client.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.3\r\n\r\n")
        assert client.head()[0] == 426
    with Wire(server.port, "127.0.0.3") as client:
        client.send(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.3\r\n\r\n")
        assert client.head()[0] == 404
    server.stop()
    assert all(json.loads(line) for line in server.stderr.splitlines())
    assert ("request refused" in server.stderr) is (level == "info")
