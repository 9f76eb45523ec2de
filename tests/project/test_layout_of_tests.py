"""Tests are found where the modules that they test are, and share nothing but tests/support."""

import ast
from pathlib import Path

from tests.support.project_sources import ROOT, source_folder

TESTS = ROOT / "tests"
OF_SERVER = TESTS / "server"
SERVER = source_folder("ndb-server")
HAVE_PROGRAMS = {"autobahn", "benchmarks", "compat", "conformance", "soak"}
"""Folders that also hold programs, which ``python -m`` runs."""


def folders(root: Path) -> set[Path]:
    """Return the folders below `root` that have modules."""
    return {module.parent.relative_to(root) for module in root.rglob("*.py")}


def imported(module: Path) -> set[str]:
    """Return each word of what a module imports: of packages, modules and names."""
    names: list[str] = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return {word for name in names for word in name.split(".")}


def test_each_room_of_the_server_has_its_tests_and_each_folder_of_tests_its_room() -> None:
    assert folders(OF_SERVER) == folders(SERVER)


def test_a_test_of_the_server_begins_with_the_name_of_a_module_in_its_room() -> None:
    for test in OF_SERVER.rglob("test_*.py"):
        room = SERVER / test.parent.relative_to(OF_SERVER)
        names = [f"test_{module.stem}" for module in room.glob("[a-z]*.py")]
        assert any(f"{test.stem}_".startswith(f"{name}_") for name in names), test


def test_what_is_no_test_and_no_program_is_in_support() -> None:
    for module in TESTS.rglob("*.py"):
        folder = module.relative_to(TESTS).parts[0]
        is_test = module.stem.startswith("test_") or module.stem == "conftest"
        assert is_test is (folder != "support") or folder in HAVE_PROGRAMS, module


def test_nothing_is_imported_from_a_test_or_a_conftest() -> None:
    tests = {module.stem for module in TESTS.rglob("test_*.py")} | {"conftest"}
    for module in TESTS.rglob("*.py"):
        assert imported(module) & tests == set(), module
