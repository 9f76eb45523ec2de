"""Listing, checking, exporting and importing what a data folder holds."""

import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from ndb_server.engine.batch import LoadCommit
from ndb_server.engine.record import log_checksum
from ndb_server.errors import StoreError
from ndb_server.maintenance.importer import import_entries
from ndb_server.maintenance.jsonl import read_lines
from ndb_server.maintenance.snapshot import open_snapshot
from ndb_server.storage.log import NO_LOAD, LogRecord
from ndb_server.storage.schema import STORE_FILE

from tests.support.command_line import exported, run
from tests.support.data_folders import FAR, fill, stored
from tests.support.mounted_disks import mounted
from tests.support.raw_client import Wire, opened
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

SESSION = (
    '{"tkn":"18446744073709551615","expiry":{"duration":60,"deleteSession":true,'
    '"extendOnSetAdd":false,"extendOnGet":true},"deadline":4000000000000,'
    '"keys":{"a":1.50,"b":{"z":1E400,"a":[]},"ü":"\\u00fc"}}'
)
KEY = '{"key":"motd","value":"hello"}'


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Usage


@pytest.mark.parametrize("command", ["datasets", "check", "export"])
def test_a_folder_that_is_no_data_folder_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    for folder in (tmp_path, tmp_path / "missing", "a\0b"):
        status, out, err = run(capfd, command, "--data-dir", folder)
        assert (status, out) == (2, "")
        assert str(folder) in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["datasets", "check", "export", "import x"])
def test_a_command_without_a_data_folder_says_so(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    status, _, err = run(capfd, *command.split())
    assert status == 2
    assert "--data-dir" in err


def test_the_data_folder_can_stand_in_the_environment_and_in_the_file_of_the_server(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "data", 1)
    config = tmp_path / "ndb.toml"
    config.write_text(f"port = 2000\ndata-dir = '{tmp_path / 'data'}'")
    assert run(capfd, "--config", config, "check")[0] == 0
    monkeypatch.setenv("NDB_DATA_DIR", str(tmp_path / "data"))
    assert run(capfd, "check")[0] == 0


# Export and import


def test_what_is_exported_is_what_a_server_was_sent(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as client:
        never = client.request("SH_NEW")["tkn"]
        sliding = client.request("SH_NEW", expiry={"duration": 1000, "extendOnGet": True})["tkn"]
        ended = client.request("SH_NEW")["tkn"]
        client.request("SH_SET", tkn=never, keys={"a": 1, "large": "x" * 2000})
        client.request("SH_SET", tkn=never, keys={"b": 2})
        client.request("SH_RMV", tkn=never, keys=["a"])
        client.request("SH_END", tkn=ended)
        client.request("KV_SET", keys={"motd": "hello"})
        running = exported(capfd, folder)
    server.kill()
    after_a_crash = exported(capfd, folder)
    start_server("--data-dir", str(folder)).stop()
    assert running == after_a_crash == exported(capfd, folder)
    lines = {line.get("tkn", line.get("key")): line for line in map(json.loads, running)}
    assert lines.keys() == {str(never), str(sliding), "motd"}
    assert lines[str(never)] == {"tkn": str(never), "keys": {"large": "x" * 2000, "b": 2}}
    assert list(lines[str(never)]["keys"]) == ["large", "b"]
    assert lines[str(sliding)]["expiry"]["duration"] == 1000
    assert lines[str(sliding)]["deadline"] > 1_700_000_000_000
    assert lines["motd"] == {"key": "motd", "value": "hello"}


def test_what_is_imported_a_server_has_to_the_byte(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    (tmp_path / "lines").write_text(f"{SESSION}\n\n{KEY}\n")
    folder = tmp_path / "new" / "data"
    status, out, err = run(capfd, "import", tmp_path / "lines", "--data-dir", folder)
    assert (status, err) == (0, "")
    assert (
        out
        == "imported 1 sessions with 3 keys and 1 independent keys; 0 sessions were there already\n"
    )
    assert exported(capfd, folder) == [SESSION, KEY]
    with opened(start_server("--data-dir", str(folder)).port) as client:
        info = client.request("SH_INFO", tkn="18446744073709551615")
        assert info["expiry"]["duration"] == 60
        assert client.request("KV_GET", keys=["motd"])["keys"] == {"motd": "hello"}


def test_lines_can_come_from_standard_input(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "ndb_server", "import", "-", "--data-dir", str(tmp_path)],
        input=SESSION.encode(),
        timeout=BOUND,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert stored(tmp_path) == [SESSION.encode()]


def test_a_session_that_is_there_is_left_as_it_is_and_a_key_is_overwritten(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    data = tmp_path / "data"
    lines.write_text('{"tkn":"5","keys":{"a":1}}\n{"key":"k","value":1}')
    run(capfd, "import", lines, "--data-dir", data)
    lines.write_text(
        '{"tkn":5,"keys":{"b":2}}\n{"tkn":6,"keys":{}}\n{"tkn":6,"keys":{}}\n{"key":"k","value":2}'
    )
    status, out, _ = run(capfd, "import", lines, "--data-dir", data)
    assert status == 0
    assert "imported 1 sessions with 0 keys and 1 independent keys; 2 sessions were" in out
    assert exported(capfd, data) == [
        '{"tkn":"5","keys":{"a":1}}',
        '{"tkn":"6","keys":{}}',
        '{"key":"k","value":2}',
    ]


def test_a_session_without_a_deadline_has_its_whole_period_from_now() -> None:
    line = b'{"tkn":"5","expiry":{"duration":10},"keys":{}}'
    [entry] = read_lines([line], "lines", now=1000)
    assert entry[1].deadline == 11_000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "Input data was truncated"),
        ("[]", "Expected `object`"),
        ("{}", "key"),
        ('{"key":1,"value":2}', "$.key"),
        ('{"key":"a","value":1,"more":2}', "more"),
        ('{"tkn":"5"}', "keys"),
        ('{"tkn":"5","keys":[]}', "Expected `object`"),
        ('{"tkn":"0","keys":{}}', "'tkn'"),
        ('{"tkn":"18446744073709551616","keys":{}}', "'tkn'"),
        ('{"tkn":-1,"keys":{}}', "'tkn'"),
        ('{"tkn":true,"keys":{}}', "$.tkn"),
        ('{"tkn":"5","keys":{},"expiry":{}}', "duration"),
        ('{"tkn":"5","keys":{},"expiry":{"duration":4294967296}}', "$.expiry.duration"),
        ('{"tkn":"5","keys":{},"expiry":{"duration":1,"x":1}}', "x"),
        ('{"tkn":"5","keys":{},"deadline":1}', "'deadline'"),
        ('{"tkn":"5","keys":{},"expiry":{"duration":1},"deadline":-1}', "$.deadline"),
        ('{"tkn":"5","keys":{"a":"\udcff"}}', "utf-8"),
        ('{"key":"a","value":' + "[" * 100_000 + "]" * 100_000 + "}", "recursion"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_nothing_is_imported(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, line: str, named: str
) -> None:
    lines, data = tmp_path / "lines", tmp_path / "data"
    bad = line or '{"tkn":"5",'
    lines.write_bytes(f"{KEY}\n{SESSION}\n{bad}\n".encode(errors="surrogateescape"))
    status, out, err = run(capfd, "import", lines, "--data-dir", data)
    assert (status, out) == (1, "")
    assert f"{lines}, line 3: " in err
    assert named in err
    assert "nothing was imported" in err
    assert exported(capfd, data) == []


def test_a_file_that_cannot_be_read_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for source in (tmp_path / "missing", "a\0b"):
        status, _, err = run(capfd, "import", source, "--data-dir", tmp_path / "data")
        assert status == 1
        assert str(source) in err
    status, _, err = run(capfd, "import", "--bogus", "--data-dir", tmp_path)
    assert status == 2
    assert "--bogus" in err
    assert not (tmp_path / "data").exists()


def test_nothing_is_imported_into_a_folder_that_a_server_uses(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    (tmp_path / "lines").write_text(SESSION)
    server = start_server("--data-dir", str(tmp_path / "data"))
    status, _, err = run(capfd, "import", tmp_path / "lines", "--data-dir", tmp_path / "data")
    assert status == 2
    assert f"process {server.pid}" in err
    with opened(server.port) as client:
        assert client.request("SH_INFO_ALL")["totalSessions"] == 0


def test_an_import_that_does_not_fit_on_the_disk_changes_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = fill(tmp_path / "data", 10)
    before = exported(capfd, tmp_path / "data")
    # As many pages as there are is what SQLite may have.
    limited = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({path.stat().st_size},) * 2)\n"
        "from ndb_server.cli.main import main\n"
        "main(sys.argv[1:])"
    )
    (tmp_path / "lines").write_text(json.dumps({"key": "a", "value": "x" * 3_000_000}))
    process = subprocess.run(
        [sys.executable, "-c", limited, "import", "lines", "--data-dir", "data"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert "nothing was imported" in line
    assert exported(capfd, tmp_path / "data") == before


def export_of(folder: Path) -> list[str]:
    return [sys.executable, "-m", "ndb_server", "export", "--data-dir", str(folder)]


def test_an_export_that_is_not_read_to_its_end_has_failed(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    command = export_of(tmp_path / "data")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == (
            b"ndb-server: cannot write to standard output: Broken pipe\n"
        )
        assert process.wait(BOUND) == 1
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, timeout=BOUND, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"ndb-server: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_export_that_finds_no_room_for_its_last_byte_says_so(
    tmp_path: Path, unbuffered: str
) -> None:
    fill(tmp_path / "data")
    command = export_of(tmp_path / "data")
    whole = subprocess.run(command, stdout=subprocess.PIPE, timeout=BOUND, check=True).stdout
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "out").open("wb") as out:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) - 1, hard))
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
                stdout=out,
                stderr=subprocess.PIPE,
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with process:
            _, said = process.communicate(timeout=BOUND)
    assert (tmp_path / "out").read_bytes() == whole[:-1]
    assert said == b"ndb-server: cannot write to standard output: File too large\n"
    assert process.returncode == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode())
TEXTS = st.dictionaries(
    st.text(), VALUES | st.sampled_from([b"1E400", b"-0.0", b'"' + b"x" * 600 + b'"']), max_size=5
)
EXPIRY = st.none() | st.fixed_dictionaries(
    {"duration": st.integers(1, 2**32 - 1)},
    optional={"deleteSession": st.booleans(), "extendOnGet": st.booleans()},
)


def object_of(values: dict[str, bytes]) -> bytes:
    return b"{%s}" % b",".join(b"%s:%s" % (json.dumps(k).encode(), v) for k, v in values.items())


def line_of(token: int, expiry: dict[str, object] | None, keys: dict[str, bytes]) -> bytes:
    expires = {} if expiry is None else {"expiry": expiry, "deadline": FAR}
    head = json.dumps({"tkn": token, **expires}).encode()
    one_line = object_of(keys).replace(b"\n", b" ")
    return b'%s,"keys":%s}' % (head.removesuffix(b"}"), one_line)


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 2**64 - 1), EXPIRY, TEXTS), unique_by=lambda each: each[0]),
    TEXTS,
)
def test_what_is_exported_imported_and_exported_again_is_the_same(
    sessions: list[tuple[int, dict[str, object] | None, dict[str, bytes]]],
    keys: dict[str, bytes],
) -> None:
    given_lines = [line_of(*session) for session in sessions]
    given_lines += [
        object_of({"key": json.dumps(key).encode(), "value": value}).replace(b"\n", b" ")
        for key, value in keys.items()
    ]
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        import_entries(Path(one), read_lines(given_lines, "given", now=0))
        first = stored(Path(one))
        import_entries(Path(two), read_lines(first, "first", now=1))
        assert stored(Path(two)) == first
    assert len(first) == len(sessions) + len(keys)
    assert {line.split(b'"keys":', 1)[1] for line in first if line.startswith(b'{"tkn"')} == {
        object_of_packed(keys) for _, _, keys in sessions
    }


def object_of_packed(values: dict[str, bytes]) -> bytes:
    """Return keys as the server keeps them: their names as it writes them, their values as sent."""
    import msgspec

    text = msgspec.json.encode({key: Raw(value) for key, value in values.items()})
    return text.replace(b"\n", b" ") + b"}"


# Datasets


def saved(start_server: StartServer, folder: Path) -> None:
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as client:
        tkn = client.request("SH_NEW", expiry={"duration": 60})["tkn"]
        client.request("SH_SET", tkn=tkn, keys={"a": 1, "b": "x" * 1000})
        client.request("KV_SET", keys={"motd": 1})
        for command, name in [("SH", "b"), ("SH", "b"), ("KV", "b"), ("SH", "a")]:
            assert client.request(f"{command}_SAVE", name=name)["st"] == 121
    server.stop()


def test_datasets_are_listed_and_exported(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "data"
    saved(start_server, folder)
    status, out, err = run(capfd, "datasets", "--data-dir", folder, "--json")
    assert (status, err) == (0, "")
    listed = [json.loads(line) for line in out.splitlines()]
    assert [(each["name"], each["kind"], each["number"]) for each in listed] == [
        ("a", "sessions", 1),
        ("b", "keys", 1),
        ("b", "sessions", 2),
        ("b", "sessions", 1),
    ]
    assert [(each["sessions"], each["keys"]) for each in listed] == [(1, 2), (0, 1), (1, 2), (1, 2)]
    assert listed[0]["bytes"] == (folder / "datasets/sessions/a/000001.sqlite").stat().st_size
    status, out, _ = run(capfd, "datasets", "--data-dir", folder)
    head, *rows = out.splitlines()
    assert head.split() == ["name", "kind", "number", "saved", "sessions", "keys", "bytes"]
    assert [row.split() for row in rows] == [[str(v) for v in each.values()] for each in listed]
    session, key = map(json.loads, exported(capfd, folder, "--dataset", "b"))
    assert session["keys"] == {"a": 1, "b": "x" * 1000}
    assert "deadline" not in session
    assert key == {"key": "motd", "value": 1}
    for name in ("c", "../b"):
        status, _, err = run(capfd, "export", "--data-dir", folder, "--dataset", name)
        assert status == 1
        assert "dataset" in err


def test_a_dataset_that_cannot_be_read_is_named_and_the_others_listed(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "data"
    saved(start_server, folder)
    damaged = folder / "datasets" / "sessions" / "b" / "000002.sqlite"
    damaged.write_bytes(b"no dataset" * 1000)
    swapped = folder / "datasets" / "keys" / "b" / "000001.sqlite"
    shutil.copy(folder / "datasets" / "sessions" / "a" / "000001.sqlite", swapped)
    status, out, err = run(capfd, "datasets", "--data-dir", folder, "--json")
    assert status == 1
    assert len(out.splitlines()) == 2
    assert str(damaged) in err
    status, out, _ = run(capfd, "check", "--data-dir", folder)
    assert status == 1
    assert f"{damaged}: file is not a database" in out.splitlines()
    assert f"{swapped}: 000001.sqlite is not a dataset of keys, version 2" in out.splitlines()
    assert f"{folder / STORE_FILE}: ok" in out.splitlines()


def test_a_folder_without_datasets_lists_none(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fill(tmp_path / "data", 1)
    assert run(capfd, "datasets", "--data-dir", tmp_path / "data") == (0, "", "")


# Check


def test_a_check_changes_nothing_whether_a_server_runs_was_killed_or_stopped(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    ok = (0, f"{folder / STORE_FILE}: ok\n", "")
    with opened(server.port) as client:
        client.request("KV_SET", keys={"motd": "x" * 10_000})
        assert run(capfd, "check", "--data-dir", folder) == ok
        assert client.request("KV_GET", keys=["motd"])["st"] == 1
    server.kill()
    before = contents(folder)
    assert before[f"{STORE_FILE}-wal"]
    assert run(capfd, "check", "--data-dir", folder) == ok
    before.pop(f"{STORE_FILE}-shm")
    after = contents(folder)
    after.pop(f"{STORE_FILE}-shm")
    assert after == before
    start_server("--data-dir", str(folder)).stop()
    before = contents(folder)
    assert run(capfd, "check", "--data-dir", folder) == ok
    assert contents(folder) == before
    assert f"{STORE_FILE}-wal" not in before


def log_row(seq: int, changes: bytes = b"{}") -> str:
    """Return how to put a row into the log that has a checksum."""
    checksum = log_checksum(NO_LOAD, seq, changes)
    return f"INSERT INTO log VALUES ({seq}, '{changes.decode()}', {checksum})"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE sessions SET keys = 'x' WHERE tkn = {small}", "a session that can't be read"),
        (
            "UPDATE sessions SET keys = CAST(x'7b2261223a22ff227d' AS TEXT) WHERE tkn = {small}",
            "utf-8",
        ),
        ("UPDATE sessions SET duration = -1", "(21 times)"),
        ("UPDATE sessions SET flags = 8 WHERE tkn = {small}", "a session that can't be read"),
        ("UPDATE sessions SET tkn = 0 WHERE tkn = {small}", "a session whose checksum is wrong"),
        ("UPDATE sessions SET deadline = 5 WHERE tkn = {small}", "a session whose checksum is"),
        ("UPDATE keys SET value = '5' WHERE key = 'key 7'", "a key whose checksum is wrong"),
        ("UPDATE keys SET key = 'key 77' WHERE key = 'key 7'", "a key whose checksum is wrong"),
        ("UPDATE clock SET wall = 5", "the checksum of the row of the clock is wrong"),
        ("UPDATE clock SET time = 'x'", "the checksum of the row of the clock is wrong"),
        (f"UPDATE clock SET time = {2**63 - 1}", "the checksum of the row of the clock is wrong"),
        ("DELETE FROM clock", "the row of the clock is missing"),
        ("UPDATE keys SET value = '[' WHERE tkn = 0", "a key that can't be read"),
        ("DELETE FROM sessions WHERE keys IS NULL", "80 keys of sessions that do not exist"),
        (log_row(1, b"x"), "a row of the log that can't be read"),
        ("INSERT INTO log VALUES (1, x'ff', 5)", "a row of the log whose checksum is wrong"),
        ("INSERT INTO log VALUES (1, '{}', 'x')", "a row of the log that can't be read"),
        ("INSERT INTO log VALUES (1, '{}', 5)", "a row of the log whose checksum is wrong"),
        (f"{log_row(1)}; {log_row(3)}", "a row of the log is missing"),
        (
            log_row(1, msgspec.json.encode(LogRecord(load=LoadCommit(7, 1, 0)))),
            "a part of a load is missing",
        ),
        ("DROP TABLE log", "the tables are not those that the server has created"),
        ("DROP TABLE keys", "the tables are not those that the server has created"),
        ("PRAGMA application_id = 5", "is not a store of NDB"),
    ],
)
def test_a_check_names_the_file_and_the_damage(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, damage: str, named: str
) -> None:
    path = fill(tmp_path / "data", 1)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(damage.replace("{small}", str(7919 * 2**40)))
    status, out, err = run(capfd, "check", "--data-dir", tmp_path / "data")
    assert (status, err) == (1, "")
    assert all(line.startswith(f"{path}: ") for line in out.splitlines())
    assert named in out
    assert str(7919 * 2**40) not in out


def test_a_check_finds_what_only_an_index_tells(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = fill(tmp_path / "data", 1)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("DELETE FROM sqlite_master WHERE name LIKE 'sqlite_autoindex%'")
        database.commit()
    status, out, _ = run(capfd, "check", "--data-dir", tmp_path / "data")
    assert status == 1
    assert str(path) in out


def test_a_store_of_another_version_is_refused(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = fill(tmp_path / "data", 1)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")
        database.commit()
    for command in ("check", "export"):
        status, _, err = run(capfd, command, "--data-dir", tmp_path / "data")
        assert status == 2
        assert "version 9" in err


def test_an_export_of_a_damaged_store_says_that_it_is_not_all(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = fill(tmp_path / "data", 3)
    with closing(sqlite3.connect(path)) as database:
        database.execute(log_row(1, b"x"))
        database.commit()
    status, _, err = run(capfd, "export", "--data-dir", tmp_path / "data")
    assert status == 1
    assert "the export is incomplete" in err


# The log


def something(client: Wire, tokens: list[int], chance: random.Random) -> None:
    """Change something: sessions come, end, grow and are cleared."""
    token = chance.choice(tokens) if tokens else 0
    key = f"k{chance.randrange(6)}"
    keys = {key: "x" * chance.choice([1, 700])}
    match chance.randrange(12):
        case 0 | 1 | 2:
            tokens.append(client.request("SH_NEW", expiry={"duration": 1000})["tkn"])
        case 3 if token:
            client.request("SH_END", tkn=token)
            tokens.remove(token)
        case 4:
            client.request("SH_CLEAR_SET", tkn=token, keys=keys)
        case 5:
            client.request("SH_RMV", tkn=token, keys=[key])
        case 6:
            client.request("KV_SET", keys=keys)
        case 7:
            client.request("KV_RMV", keys=[key])
        case _:
            client.request("SH_SET", tkn=token, keys=keys)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_exported_is_what_the_log_makes_of_the_tables(
    tmp_path: Path, start_server: StartServer, seed: int
) -> None:
    def start() -> Server:
        return start_server("--data-dir", str(tmp_path), "--durability", "relaxed")

    chance = random.Random(seed)
    tokens: list[int] = []
    for ends_all in (False, False, True):
        server = start()
        with opened(server.port) as client:
            if ends_all:
                client.request("SH_END_ALL")
                tokens.clear()
            for _ in range(150):
                something(client, tokens, chance)
            server.kill()
        crashed = stored(tmp_path)
        start().stop()
        assert stored(tmp_path) == crashed
        assert len(crashed) > len(tokens) > 5


def test_who_looks_at_a_store_is_told_if_a_server_begins_to_use_it(tmp_path: Path) -> None:
    path = fill(tmp_path / "data", 1)
    with pytest.raises(StoreError, match="try again"), open_snapshot(path):
        Path(f"{path}-wal").touch()


def test_salvage_in_the_file_is_true_or_false(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "ndb.toml"
    config.write_text("salvage = 'yes'")
    status, _, err = run(capfd, "--config", config)
    assert status == 2
    assert "[salvage]" in err
    assert "must be true or false" in err


def test_nothing_is_salvaged_before_the_other_options_are_right(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = fill(tmp_path / "data", 1)
    store.write_bytes(b"damaged")
    before = sorted(store.parent.iterdir())
    status, _, err = run(capfd, "--data-dir", tmp_path / "data", "--salvage", "--tls-key", "key")
    assert status == 2
    assert "--tls-cert" in err
    assert store.read_bytes() == b"damaged"
    assert sorted(store.parent.iterdir()) == before


def test_a_store_that_a_server_uses_is_not_salvaged(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    status, _, err = run(capfd, "--data-dir", tmp_path, "--salvage", "--port", "0")
    assert status == 2
    assert f"process {server.pid}" in err


def test_a_store_that_was_not_closed_in_order_cannot_be_read_on_a_disk_that_is_read_only(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", str(folder))
    with opened(server.port) as client:
        client.request("KV_SET", keys={"motd": "hello"})
    server.kill()
    (folder / f"{STORE_FILE}-shm").unlink()
    with mounted(folder, "--bind", "-o", "ro", str(folder)):
        for command in ("check", "export"):
            status, _, err = run(capfd, command, "--data-dir", folder)
            assert status == 2
            assert "copy the folder to a place where it is writable" in err
        shutil.copytree(folder, tmp_path / "copy")
    assert len(exported(capfd, tmp_path / "copy")) == 1
