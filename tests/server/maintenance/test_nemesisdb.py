"""Datasets of NemesisDB 0.7, laid out as its save writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import exported, run
from tests.support.raw_client import opened
from tests.support.server_process import StartServer

SESSION_FILE = (
    '[{"keys":{"big":"123456789012345678901234567890","cart":{"a":[1,2.50],"b":null},"ü":"\\u0000"},'
    '"sh":{"expiry":{"deleteSession":true,"duration":60,"extendOnGet":false,"extendOnSetAdd":true},'
    '"shared":false,"tkn":18446744073709551615}},{}]'
)
SECOND_FILE = (
    '[{"keys":{},"sh":{"expiry":{"deleteSession":false,"duration":0,"extendOnGet":false,'
    '"extendOnSetAdd":false},"shared":false,"tkn":7}}]'
)
KEYS_FILE = '{ "keys":{"motd":"hello","n":1.50,"o":{"z":1,"a":[]}}}'


def save(folder: Path, kind: int, *files: str, status: int = 1, md: str | None = None) -> Path:
    """Write one save, as SH_SAVE (kind 1) or KV_SAVE (kind 0) does."""
    (folder / "md").mkdir(parents=True)
    (folder / "data").mkdir()
    about: dict[str, Any] = {
        "complete": 1731000000001,
        "name": "evening",
        "saveDataType": kind,
        "start": 1731000000000,
        "status": status,
        "version": 2,
    }
    (folder / "md" / "md.json").write_text(json.dumps(about) if md is None else md)
    for number, text in enumerate(files):
        (folder / "data" / str(number)).write_bytes(text.encode(errors="surrogateescape"))
    return folder


def test_the_sessions_of_a_dataset_come_in(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    save(tmp_path / "evening" / "9", 1, "[]")
    save(tmp_path / "evening" / "1731000000000000000", 1, SESSION_FILE, SECOND_FILE)
    data = tmp_path / "data"
    status, out, err = run(capfd, "import", tmp_path / "evening", "--data-dir", data)
    assert (status, err) == (0, "")
    assert out.startswith("imported 2 sessions with 3 keys and 0 independent keys")
    expiring, never = exported(capfd, data)
    assert (
        '"keys":{"big":"123456789012345678901234567890","cart":{"a":[1,2.50],"b":null}' in expiring
    )
    assert never == '{"tkn":"7","keys":{}}'
    with opened(start_server("--data-dir", str(data)).port, "ndb.v1.text") as client:
        info = client.request("SH_INFO", tkn="18446744073709551615")
        assert info["expiry"] == {
            "duration": 60,
            "deleteSession": True,
            "extendOnSetAdd": True,
            "extendOnGet": False,
            "remaining": info["expiry"]["remaining"],
        }
        assert 0 < info["expiry"]["remaining"] <= 60


def test_the_independent_keys_of_one_save_come_in(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    one = save(tmp_path / "evening" / "1", 0, KEYS_FILE, '{ "keys":{"more":[]}}')
    save(tmp_path / "evening" / "2", 0)
    data = tmp_path / "data"
    status, out, _ = run(capfd, "import", one, "--data-dir", data)
    assert status == 0
    assert out.startswith("imported 0 sessions with 0 keys and 4 independent keys")
    assert exported(capfd, data) == [
        '{"key":"motd","value":"hello"}',
        '{"key":"n","value":1.50}',
        '{"key":"o","value":{"z":1,"a":[]}}',
        '{"key":"more","value":[]}',
    ]
    # The newest save has nothing, which is something else than not being there.
    assert run(capfd, "import", tmp_path / "evening", "--data-dir", data)[0] == 0


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        (1, "{}", "does not have the format of NemesisDB 0.7"),
        (1, SESSION_FILE.replace("18446744073709551615", "0"), "'tkn'"),
        (1, SESSION_FILE.replace("18446744073709551615", "18446744073709551616"), "'tkn'"),
        (1, SESSION_FILE.replace('"duration":60', '"duration":-1'), "duration"),
        (1, SESSION_FILE.replace("hello", "\udcff").replace("cart", "\udcff"), "is not JSON"),
        (1, SESSION_FILE[:-1], "is not JSON"),
        (0, "[]", "does not have the format of NemesisDB 0.7"),
        (0, '{ "keys":{"say "hi"":1}}', "doesn't escape the names"),
        (0, '{ "keys":{"a":' + "[" * 100_000 + "}}", "is not JSON"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named_and_nothing_comes_in(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, kind: int, text: str, named: str
) -> None:
    first = SECOND_FILE if kind else KEYS_FILE
    folder = save(tmp_path / "evening" / "1", kind, first, text)
    status, out, err = run(capfd, "import", folder, "--data-dir", tmp_path / "data")
    assert (status, out) == (1, "")
    assert str(folder / "data" / "1") in err
    assert named in err
    assert exported(capfd, tmp_path / "data") == []


def test_a_dataset_that_is_none_or_not_complete_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(folder: Path) -> str:
        status, _, err = run(capfd, "import", folder, "--data-dir", tmp_path / "data")
        assert status == 1
        assert str(folder) in err
        return err

    (tmp_path / "empty").mkdir()
    assert "is not a dataset of NemesisDB" in refused(tmp_path / "empty")
    assert "is not complete" in refused(save(tmp_path / "pending" / "1", 1, status=0))
    assert "'saveDataType'" in refused(save(tmp_path / "other" / "1", 2))
    assert "does not have the format of NemesisDB 0.7" in refused(
        save(tmp_path / "md" / "1", 1, md="{}")
    )
    (tmp_path / "headless" / "1").mkdir(parents=True)
    assert "md.json can't be read" in refused(tmp_path / "headless")
    gone = save(tmp_path / "gone" / "1", 1)
    (gone / "data").rmdir()
    assert "can't be listed" in refused(gone)
