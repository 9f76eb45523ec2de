"""The files that a server makes: who may read them, and where they are."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import installed
from tests.support.raw_client import opened
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND

LARGE = {f"key{number}": "x" * 500 for number in range(8)}


def modes(folder: Path) -> set[tuple[str, int]]:
    """Return what others than its owner may do with anything in a folder, and with itself."""
    found = [folder, *folder.rglob("*")]
    return {(path.name, stat.S_IMODE(path.stat().st_mode) & 0o077) for path in found}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_may_read_what_a_server_writes_whatever_the_umask(
    start_server: StartServer, tmp_path: Path, umask: int
) -> None:
    folder = tmp_path / "parent" / "data"
    through = ("sh", "-c", f'umask {umask:o}; exec "$@"', "sh")
    server = start_server("--data-dir", str(folder), through=through)
    with opened(server.port) as wire:
        token = wire.request("SH_NEW")["tkn"]
        wire.request("SH_SET", tkn=token, keys=LARGE)
        assert wire.request("SH_SAVE", name="a")["st"] == 121
        assert wire.request("KV_SAVE", name="a")["st"] == 121
        while_it_runs = modes(folder)
    assert {"ndb.sqlite", "ndb.sqlite-wal", "ndb.sqlite-shm", "ndb.lock", "000001.sqlite"} <= {
        name for name, _ in while_it_runs
    }
    assert {mode for _, mode in while_it_runs} == {0}
    assert "chmod" not in server.stderr
    server.stop()
    assert {mode for _, mode in modes(folder)} == {0}
    # What the commands make, and what --salvage does.
    with (folder / "ndb.sqlite").open("r+b") as store:
        store.seek(2 * 4096)
        store.write(b"\xff" * 100)
    server = start_server("--data-dir", str(folder), "--salvage", through=through)
    assert "is damaged" in server.stderr
    assert {mode for _, mode in modes(folder)} == {0}
    imported = tmp_path / "imported"
    line = b'{"key":"a","value":1}\n'
    command = [*through, sys.executable, "-m", "ndb_server", "import", "-"]
    subprocess.run(
        [*command, "--data-dir", str(imported)],
        input=line,
        capture_output=True,
        timeout=BOUND,
        check=True,
    )
    assert {mode for _, mode in modes(imported)} == {0}


def test_a_folder_that_others_may_read_gets_a_warning_with_the_command_that_closes_it(
    start_server: StartServer, tmp_path: Path
) -> None:
    folder = tmp_path / "it's open"
    folder.mkdir()
    folder.chmod(0o755)
    server = start_server("--data-dir", str(folder))
    [command] = re.findall(r"WARNING.*remove their access: (chmod .*)", server.stderr)
    server.stop()
    subprocess.run(shlex.split(command), check=True)
    assert {mode for _, mode in modes(folder)} == {0}
    assert "WARNING" not in start_server("--data-dir", str(folder)).stderr


def test_no_file_is_made_outside_the_data_folder(start_server: StartServer, tmp_path: Path) -> None:
    """With a read-only root there is no folder for temporary files."""
    folder, traced = tmp_path / "data", tmp_path / "opened"
    through = (
        installed("strace"),
        "-D",
        "-f",
        "-qq",
        "-o",
        str(traced),
        "-e",
        "trace=open,openat,creat,mkdir",
    )
    if subprocess.run([*through, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace can't trace here")
    server = start_server("--data-dir", str(folder), through=through)
    with opened(server.port) as wire:
        token = wire.request("SH_NEW")["tkn"]
        for number in range(4):
            keys = {f"key{number}": "x" * 3_000_000}
            assert wire.request("SH_SET", tkn=token, keys=keys)["st"] == 1
            assert wire.request("KV_SET", keys=keys)["st"] == 1
        for kind in ("SH", "KV"):
            assert wire.request(f"{kind}_SAVE", name="a")["st"] == 121
        wire.request("SH_END", tkn=token)
        for kind in ("SH", "KV"):
            assert wire.request(f"{kind}_LOAD", name="a")["st"] == 141
    server.stop()
    # A line is a call, or its beginning: one that another thread's came between has no end here.
    making = re.compile(r'(?:creat|mkdir)\("([^"]+)|open(?:at)?\([^"\n]*"([^"]+)", [^)\n]*O_CREAT')
    made = making.findall(traced.read_text())
    paths = [one or other for one, other in made]
    assert str(folder / "ndb.sqlite") in paths
    outside = [path for path in paths if not Path(path).is_relative_to(folder)]
    # What Python keeps of its own modules is not the server's, nor what measures the tests.
    measured = Path(os.environ.get("COVERAGE_FILE", "/none/.coverage")).parent
    others = ("__pycache__", str(measured))
    assert [path for path in outside if not any(other in path for other in others)] == []
