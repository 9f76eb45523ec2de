"""Data folders with something in them, for the tests of the commands around them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw
from ndb_protocol.messages import Expiry
from ndb_server.cli import main as cli
from ndb_server.engine.keymap import pack
from ndb_server.engine.session import NEVER, Session, intern_expiry
from ndb_server.maintenance.importer import KeyEntry, SessionEntry, import_entries
from ndb_server.storage.schema import STORE_FILE

FAR = 4_000_000_000_000
"""A time in ms that does not come while a test runs."""


def entries(count: int) -> Iterator[SessionEntry | KeyEntry]:
    """Yield `count` small sessions, a few large ones, and independent keys of many sizes."""
    sliding = intern_expiry(Expiry(duration=1000, extendOnGet=True))
    for number in range(1, count + 1):
        values = {f"k{key}": Raw(b'"value %d %d"' % (number, key)) for key in range(4)}
        yield SessionEntry(number * 7919 * 2**40 % 2**64, Session(sliding, FAR, pack(values)))
    for number in range(20):
        values = {f"k{key}": Raw(b'"%s"' % (b"x" * 300 * key)) for key in range(4)}
        yield SessionEntry(number + 1, Session(None, NEVER, pack(values)))
    for number in range(50):
        yield KeyEntry(f"key {number}", Raw(b'[%d, "%s"]' % (number, b"y" * 150 * number)))


def fill(folder: Path, count: int = 1000) -> Path:
    """Make a data folder; return its store."""
    folder.mkdir()
    import_entries(folder, entries(count))
    return folder / STORE_FILE


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the program; return its status and what it said."""
    capfd.readouterr()
    status = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = int(exit.code or 0)
    sys.stdout.flush()
    said = capfd.readouterr()
    return status, said.out, said.err


def exported(capfd: pytest.CaptureFixture[str], folder: Path, *more: str) -> list[str]:
    """Return the lines of an export that succeeds."""
    status, out, err = run(capfd, "export", "--data-dir", folder, *more)
    assert (status, err) == (0, "")
    return out.splitlines()
