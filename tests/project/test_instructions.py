"""What the pages and CI tell people to run is there."""

import ast
import re

from tests.support.documentation_pages import PAGES
from tests.support.project_sources import ROOT

NOX_CALL = re.compile(r"nox\"? -s ((?:[a-z0-9.-]+ ?)+)")


def nox_sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list
    }


def test_every_nox_session_that_is_named_anywhere_exists() -> None:
    named: set[str] = set()
    for file in [*PAGES, ROOT / ".ci" / "run"]:
        for call in NOX_CALL.findall(file.read_text()):
            options = call.split("--")[0].split()
            named.update(re.sub(r"-3\.\d+$", "", session) for session in options)
    assert {"tests", "demo", "lint"} <= named
    assert named <= nox_sessions()


def test_contributing_describes_every_nox_session() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^\| `nox -s ([a-z0-9]+)`", contributing, re.M)) == nox_sessions()
