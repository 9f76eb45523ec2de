"""``python -m ndb_protocol`` prints what the package ships."""

import subprocess
import sys
from importlib.resources import files

import pytest

SCHEMAS = files("ndb_protocol") / "schemas"


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ndb_protocol", *arguments]
    return subprocess.run(command, check=False, capture_output=True, timeout=60)


@pytest.mark.parametrize("document", ["schema", "asyncapi"])
def test_a_document_that_is_shipped_is_current(document: str) -> None:
    ran = run(document)
    assert (ran.returncode, ran.stderr) == (0, b"")
    file = SCHEMAS / f"ndb.v1.{document}.json"
    assert ran.stdout == file.read_bytes(), (
        f"write {file} anew: python -m ndb_protocol {document} > {file}"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: document"),
        (["openapi"], "invalid choice: 'openapi' (choose from "),
        (["schema", "asyncapi"], "unrecognized arguments: asyncapi"),
    ],
)
def test_anything_else_is_refused_with_what_can_be_asked_for(
    arguments: list[str], complaint: str
) -> None:
    ran = run(*arguments)
    assert (ran.returncode, ran.stdout) == (2, b"")
    said = ran.stderr.decode()
    assert complaint in said
    assert "usage: python -m ndb_protocol [-h] {schema,asyncapi}" in said
