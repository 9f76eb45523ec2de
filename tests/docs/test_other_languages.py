"""The programs in other languages that pages show print what the pages say.

A ``text`` block right behind one in ``javascript`` or ``perl`` is what it prints, to the letter.
"""

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.client_runtimes import node, perl
from tests.support.documentation_pages import DEFAULT_URI, blocks, name, pages_with
from tests.support.project_sources import ROOT
from tests.support.server_process import Server

CLIENTS = ROOT / "docs" / "clients"


def command(language: str) -> list[str]:
    """Return what runs a program of this language that is written to its standard input."""
    if language == "perl":
        return [*perl().split(), "-I", str(CLIENTS / "perl"), "-"]
    # As a module, which is where `await` stands at the top.
    return [*node().split(), "--no-warnings", "--input-type=module", "-"]


@pytest.mark.parametrize("page", pages_with("javascript", "perl"), ids=name)
def test_a_page_s_programs_print_what_it_says(page: Path, server: Server) -> None:
    for block, following in pairwise(blocks(page)):
        if block.language in {"javascript", "perl"}:
            ran = subprocess.run(
                command(block.language),
                input=block.text.replace(DEFAULT_URI, server.url),
                cwd=CLIENTS / block.language,
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ran.returncode == 0, ran.stderr
            assert following.language == "text"
            assert ran.stdout == following.text


def test_clients_in_other_languages_are_small_and_stand_alone() -> None:
    javascript = (CLIENTS / "javascript" / "ndb.js").read_text()
    assert len(javascript.splitlines()) < 300
    assert "\nimport " not in javascript
    assert len((CLIENTS / "perl" / "NDB.pm").read_text().splitlines()) < 300
