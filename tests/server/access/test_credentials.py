"""The file of credentials, and who has which secret."""

import json
import subprocess
from pathlib import Path
from subprocess import PIPE

import pytest
from ndb_protocol.commands import Role
from ndb_server.access.credentials import (
    Credentials,
    CredentialsError,
    add_entry,
    read_entries,
    remove_entry,
)
from ndb_server.access.request_checks import SentCredentials


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


def test_the_secret_of_an_entry_is_recognized_with_its_name_and_without(file: Path) -> None:
    secret = add_entry(file, "web", [Role.APP, Role.APP, Role.KV])
    known = Credentials(read_entries(file).values())
    for offer in (SentCredentials("web", secret), SentCredentials(None, secret)):
        entry = known.verify(offer)
        assert entry is not None
        assert (entry.name, entry.roles) == ("web", (Role.APP, Role.KV))
        assert entry in known


def test_other_secrets_and_names_are_not(file: Path) -> None:
    secret, other = add_entry(file, "web", [Role.APP]), add_entry(file, "jobs", [Role.KV])
    known = Credentials(read_entries(file).values())
    for name, sent in (
        ("web", other), ("web", secret[:-1]), ("web", secret + "x"), ("", ""), ("nobody", secret),
        (None, secret[:-1]), (None, ""), (None, "x" * 9999), ("web", ""), ("web", "\0é"),
    ):  # fmt: skip
        assert known.verify(SentCredentials(name, sent)) is None


def test_what_is_kept_is_the_digest_of_the_secret_alone(file: Path) -> None:
    secret = add_entry(file, "web", [Role.APP])
    [line] = file.read_text().splitlines()
    assert secret not in line
    assert secret.partition(".")[2] not in line
    entry = json.loads(line)
    sha256sum = subprocess.run(["sha256sum"], input=secret, text=True, check=True, stdout=PIPE)
    assert entry["sha256"] == sha256sum.stdout.split()[0]
    assert {*entry} == {"name", "roles", "key", "sha256"}


def test_an_entry_that_was_made_anew_is_another(file: Path) -> None:
    first = add_entry(file, "web", [Role.APP])
    before = Credentials(read_entries(file).values())
    entry = before.verify(SentCredentials("web", first))
    remove_entry(file, "web")
    add_entry(file, "web", [Role.APP])
    after = Credentials(read_entries(file).values())
    assert entry is not None
    assert entry in before
    assert entry not in after
    assert after.verify(SentCredentials("web", first)) is None


GOOD = "0" * 64

HASH = "$scrypt$ln=14,r=8,p=1$" + "A" * 22 + "$" + "A" * 43


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("s3cret", "is not an entry; add"),
        ("[]", "is not an entry; add"),
        ('{"name":"web"}', "is not an entry; add"),
        (f'{{"name":"web","roles":["app"],"key":"","hash":"{HASH}"}}', "is not an entry; add"),
        (f'{{"name":"web","roles":["s3cret"],"key":"","sha256":"{GOOD}"}}', "is not an entry; add"),
        (f'{{"name":"web","roles":[],"key":"","sha256":"{GOOD}"}}', "it has no roles"),
        (f'{{"name":"w b","roles":["app"],"key":"","sha256":"{GOOD}"}}', "a name has 1 to 64"),
        ('{"name":"web","roles":["app"],"key":"","sha256":"s3cret"}', "its sha256 is not 64"),
        (f'{{"name":"web","roles":["app"],"key":"","sha256":"{GOOD}0"}}', "its sha256 is not 64"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_without_showing_it(
    file: Path, line: str, reason: str
) -> None:
    file.write_text(f"\n{line}\n")
    with pytest.raises(CredentialsError) as caught:
        read_entries(file)
    assert f"line 2 of credentials {file} " in str(caught.value)
    assert reason in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_name_that_is_there_twice_is_refused(file: Path) -> None:
    add_entry(file, "web", [Role.APP])
    file.write_text(file.read_text() * 2)
    with pytest.raises(CredentialsError, match="two entries web"):
        read_entries(file)


def test_what_cannot_be_read_or_written_is_named(file: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        read_entries(file)
    with pytest.raises(CredentialsError, match="cannot write credentials"):
        add_entry(file / "nowhere" / "file", "web", [Role.APP])
    file.write_bytes(b"\xff")
    with pytest.raises(CredentialsError, match="it is not text"):
        read_entries(file)


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_entry(file, "web", [Role.APP])
    before = file.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(CredentialsError, match="No space left on device"):
        add_entry(file, "jobs", [Role.KV])
    assert file.read_bytes() == before
    assert [*file.parent.iterdir()] == [file]


def test_names_that_are_there_or_are_not_are_told(file: Path) -> None:
    add_entry(file, "web", [Role.APP])
    with pytest.raises(CredentialsError, match="already have an entry web"):
        add_entry(file, "web", [Role.APP])
    with pytest.raises(CredentialsError, match="have no entry jobs"):
        remove_entry(file, "jobs")
    with pytest.raises(ValueError, match="a name has 1 to 64"):
        add_entry(file, "-x", [Role.APP])


def test_a_link_to_a_file_stays_a_link(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    add_entry(link, "web", [Role.APP])
    assert link.is_symlink()
    assert read_entries(file).keys() == {"web"}
