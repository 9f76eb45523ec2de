"""What is packaged to run a server with speaks of things that are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ndb_server.cli.main import app

from tests.support.project_sources import ROOT

PACKAGING = ROOT / "packaging"
OPTIONS = {name for argument in app.assemble_argument_collection() for name in argument.names}


@pytest.mark.parametrize(
    "file", ["Containerfile", "systemd/ndb-server.service", "prometheus/prometheus.yml"]
)
def test_a_file_names_options_of_the_server(file: str) -> None:
    text = (PACKAGING / file).read_text()
    servers = re.findall(r"(?:bin/ndb-server|started with) (--.*)", text)
    named = {option for line in servers for option in re.findall(r"--[a-z-]+", line)}
    named |= {f"--{name.lower().replace('_', '-')}" for name in re.findall(r"NDB_(\w+)=", text)}
    assert named
    # It is read before the others.
    assert named - {"--config"} <= OPTIONS


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    asked = set(re.findall(r"\bndb_\w+", (PACKAGING / "prometheus" / "alerts.yml").read_text()))
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    shown = set(re.findall(r"^\| `(ndb_\w+)`", page, re.M))
    parts = {f"{name}{part}" for name in shown for part in ("_bucket", "_sum", "_count")}
    assert asked
    assert asked <= shown | parts


def test_a_unit_lets_the_server_call_what_it_calls() -> None:
    """systemd ends a process at a call that is not allowed; of a list, the last line counts."""
    unit = (PACKAGING / "systemd" / "ndb-server.service").read_text()
    *_, without, last = re.findall("^SystemCallFilter=(.*)", unit, re.M)
    assert "@resources" in without
    # What raises the limit of files, and what has a thread give way to others (os.setpriority).
    assert set(last.split()) == {"setrlimit", "prlimit64", "setpriority"}


def test_a_unit_has_the_folders_that_the_documentation_speaks_of() -> None:
    unit = (PACKAGING / "systemd" / "ndb-server.service").read_text()
    assert re.findall("^(?:State|Runtime)Directory=(.*)", unit, re.M) == ["ndb", "ndb"]


def test_a_unit_can_do_what_the_documentation_asks_systemd_for() -> None:
    unit = (PACKAGING / "systemd" / "ndb-server.service").read_text()
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert "systemctl reload ndb-server" in pages
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in unit


@pytest.mark.skipif(
    not Path("/proc/self/comm").exists(),
    reason="only Linux has /proc, where the name of a process is",
)
def test_the_documentation_calls_a_running_server_what_the_system_calls_it() -> None:
    page = (ROOT / "docs" / "howto" / "secure-the-server.md").read_text()
    [name] = re.findall("`pkill -HUP -x ([a-z-]+)`", page)
    command = [str(Path(sys.executable).with_name("ndb-server")), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"ws://")
        assert Path(f"/proc/{server.pid}/comm").read_text().strip() == name
        server.terminate()
