"""A byte of a store that is another: it is found at the start, and never served.

A store with all there can be in it, with a log and a load that are not compacted yet, is changed in
one byte. Whoever opens it finds what was there, or is told that it is damaged.
"""

import os
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw
from ndb_protocol import NO_TOKEN
from ndb_protocol.messages import Expiry
from ndb_server.engine.batch import ChangeSet, LoadCommit
from ndb_server.engine.edits import MapChange
from ndb_server.engine.record import row_of
from ndb_server.engine.session import Session
from ndb_server.errors import DataError, StoreError
from ndb_server.maintenance.check import check_store
from ndb_server.maintenance.salvage import salvage
from ndb_server.storage.schema import STORE_FILE
from ndb_server.storage.store import Store
from ndb_server.storage.tables import READ_ERRORS, DamageError

from tests.support.data_folders import stored
from tests.support.engine_loads import pending_load
from tests.support.journaled_engine import START, OnDisk, content, raw, write
from tests.support.rounds import rounds

PAGE = 4096

SLIDING = Expiry(duration=60, deleteSession=True, extendOnGet=True)
LARGE = {f"key{number:02}": Raw(b'"%b"' % (b"x" * 100)) for number in range(8)}
OVERFLOWING = {f"long{number}": Raw(b'"%b"' % (b"y" * 3000 * number)) for number in range(4)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of some thirty pages, as one that was killed has left it."""
    folder = tmp_path_factory.mktemp("sound")
    store = Store(folder, "relaxed")
    store.start()
    deadline = START + 60_000
    rows = [
        row_of(number * 77_777 + 1, Session(SLIDING, deadline, b'{"user":"u%d"}' % number))
        for number in range(120)
    ]
    spread = {900_000 + number: MapChange.replace_all(LARGE) for number in range(20)}
    rows += [row_of(token, Session(None, 0, {})) for token in spread]
    independent = {NO_TOKEN: MapChange({}, OVERFLOWING | raw(motd='"hello"', n="1"))}
    assert write(store, ChangeSet(False, [], rows, spread | independent)) is None
    store.run_compacted(lambda: None)
    to_load = pending_load({55: (None, b'{"l":1}'), 56: (SLIDING, dict(LARGE))}, raw(loaded="7"))
    parts = store.stage(1, to_load.prepare_staging({}))
    for batch in (
        ChangeSet(False, [1], [row_of(5, Session(None, 0, b'{"z":1}'))], {}),
        ChangeSet(False, [], [], {}, load=LoadCommit(1, parts, START)),
        ChangeSet(False, [], [], {NO_TOKEN: MapChange({}, raw(n="2"))}),
    ):
        assert write(store, batch) is None
    killed = tmp_path_factory.mktemp("killed") / "data"
    # Read by a connection of this process, the file would lose its locks.
    assert os.spawnlp(os.P_WAIT, "cp", "cp", "-r", str(folder), str(killed)) == 0
    store.close()
    with closing(sqlite3.connect(killed / STORE_FILE)) as database:
        assert database.execute("SELECT count(*) FROM log").fetchone() == (3,)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return killed / STORE_FILE


def opened(folder: Path) -> object:
    """Return all that a server would serve, in order.

    Raises:
        StoreError: it wouldn't start.
    """
    store = Store(folder, "relaxed")
    try:
        return ordered(content(store))
    except (*READ_ERRORS, DamageError) as error:
        raise StoreError(store.describe_error(error)) from error
    finally:
        store.start()
        store.close()


def exported(folder: Path) -> list[bytes] | None:
    """Return all that is exported, or None if it is not all there is."""
    try:
        return stored(folder)
    except (StoreError, DataError):
        return None


def ordered(found: OnDisk) -> object:
    sessions, keys = found
    return [(token, *of[:2], [*of[2].items()]) for token, of in sessions.items()], [*keys.items()]


@rounds(few=60, many=2000)
def test_a_byte_that_is_another_is_named_and_never_served(
    sound: Path, tmp_path: Path, rounds: int
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    data = sound.read_bytes()
    folder = tmp_path / "data"

    def changed(content: bytes) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / STORE_FILE).write_bytes(content)
        return folder

    expected = opened(changed(data))
    lines = exported(changed(data))
    assert lines is not None
    refused = 0
    for _ in range(rounds):
        # Half of them where a page says what is on it: there one byte makes rows come and go.
        at = chance.randrange(len(data))
        if chance.random() < 0.5:
            at = at // PAGE * PAGE + chance.randrange(120)
        damaged = bytearray(data)
        damaged[at] ^= chance.randrange(1, 256)
        try:
            found = opened(changed(bytes(damaged)))
        except StoreError as error:
            assert "damaged" in str(error) or "not a store" in str(error) or "version" in str(error)
            refused += 1
            if "version" not in str(error):
                assert check_store(changed(bytes(damaged)) / STORE_FILE)
        else:
            assert found == expected, f"byte {at} of the file"
        # Not always what a start does: it compacts the log first, and may replace damage.
        assert exported(changed(bytes(damaged))) in (lines, None), f"byte {at} of the file"
    assert refused > rounds // 10


@pytest.mark.parametrize("at", range(1, 10))
@pytest.mark.parametrize("change", [1, 2, 3, 8, 0x80])
def test_an_entry_of_an_index_that_leads_elsewhere_is_damage(
    sound: Path, tmp_path: Path, at: int, change: int
) -> None:
    damaged = bytearray(sound.read_bytes())
    # The size of this header, then three columns: the type that is 0, a text of four bytes, and an
    # integer of two; then what is in the last two.
    [entry] = re.finditer(rb"\x04\x08\x15\x02motd..", damaged, re.DOTALL)
    damaged[entry.start() + at] ^= change
    (tmp_path / STORE_FILE).write_bytes(damaged)
    assert check_store(tmp_path / STORE_FILE)
    assert exported(tmp_path) is None
    with pytest.raises(StoreError, match="is damaged"):
        opened(tmp_path)


@pytest.mark.parametrize("version", [3, 255])
def test_a_header_of_a_format_that_sqlite_will_not_write_is_damage(
    sound: Path, tmp_path: Path, version: int
) -> None:
    expected = opened(shutil.copytree(sound.parent, tmp_path / "sound"))
    damaged = bytearray(sound.read_bytes())
    damaged[18] = version
    (tmp_path / STORE_FILE).write_bytes(damaged)
    said = f"its header has the file format {version}"
    assert check_store(tmp_path / STORE_FILE) == [said]
    with pytest.raises(StoreError, match=f"is damaged: {said}"):
        opened(tmp_path)
    assert salvage(tmp_path)
    assert opened(tmp_path) == expected


@pytest.mark.parametrize("at", range(36, 40))
def test_a_wrong_count_of_free_pages_is_damage(sound: Path, tmp_path: Path, at: int) -> None:
    damaged = bytearray(sound.read_bytes())
    damaged[at] ^= 1
    (tmp_path / STORE_FILE).write_bytes(damaged)
    assert any("freelist" in line for line in check_store(tmp_path / STORE_FILE))
    with pytest.raises(StoreError, match=r"is damaged: .*freelist"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'"u7"', "checksum is wrong"),
        # The index has the name too, and is looked at first.
        (b"motd", "missing from index"),
        (b"hello", "checksum is wrong"),
        (b'{"z":1}', "checksum is wrong"),
        (b"loaded", "checksum is wrong"),
    ],
)
def test_what_was_a_value_or_a_name_is_left_out_by_a_salvage(
    sound: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    """It is JSON, or a name, still."""
    data = sound.read_bytes()
    assert data.count(content) > 0
    other = content.swapcase() if content.islower() else content.replace(b"7", b"8")
    other = content.replace(b"1", b"2") if other == content else other
    (tmp_path / STORE_FILE).write_bytes(data.replace(content, other))
    with pytest.raises(StoreError, match=said):
        opened(tmp_path)
    assert any("checksum is wrong" in line for line in check_store(tmp_path / STORE_FILE))
    assert "could not be read" in "\n".join(salvage(tmp_path))
    assert other.decode().strip('"') not in str(opened(tmp_path))
