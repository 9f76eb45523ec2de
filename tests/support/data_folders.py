"""Data folders with something in them, for the tests of the commands around them."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path

from msgspec import Raw
from ndb_protocol.messages import Expiry
from ndb_server.cli.data import export
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


def stored(folder: Path) -> list[bytes]:
    """Return what is stored in a data folder, as the lines that are exported of it.

    Raises:
        StoreError: there is no store, or it is none that can be read.
        DataError: the export is incomplete.
    """
    written = BytesIO()
    stdout = TextIOWrapper(written)
    with redirect_stdout(stdout):
        export(data_dir=str(folder))
    return written.getvalue().split(b"\n")[:-1]


def fill(folder: Path, count: int = 1000) -> Path:
    """Make a data folder; return its store."""
    folder.mkdir()
    import_entries(folder, entries(count))
    return folder / STORE_FILE
