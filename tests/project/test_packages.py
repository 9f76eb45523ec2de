"""The three distributions fit together, and each can be installed alone."""

import re
import sys
from itertools import chain

import pytest

from tests.support.project_sources import PACKAGES, ROOT, imports, metadata, source_folder

IMPORTED_AS = {"google_re2": "re2"}
"""Packages that are not named as what provides them."""

EVERY_DISTRIBUTION = pytest.mark.parametrize("distribution", PACKAGES)


def importable(distribution: str) -> set[str]:
    """Return the packages that a distribution may import."""
    project = metadata(distribution)
    extras = project.get("optional-dependencies", {}).values()
    declared = {
        re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].replace("-", "_")
        for requirement in [*project["dependencies"], *chain.from_iterable(extras)]
    }
    named = {IMPORTED_AS.get(name, name) for name in declared}
    return named | {PACKAGES[distribution]} | sys.stdlib_module_names


def test_the_distributions_have_one_version() -> None:
    assert len({metadata(distribution)["version"] for distribution in PACKAGES}) == 1


@pytest.mark.parametrize("distribution", ["ndb-client", "ndb-server"])
def test_a_distribution_pins_exactly_the_protocol_of_its_version(distribution: str) -> None:
    project = metadata(distribution)
    assert f"ndb-protocol=={project['version']}" in project["dependencies"]


@EVERY_DISTRIBUTION
def test_a_distribution_is_typed_and_carries_the_licence(distribution: str) -> None:
    assert (source_folder(distribution) / "py.typed").exists()
    licence = (ROOT / "LICENSE").read_text()
    assert (ROOT / "packages" / distribution / "LICENSE").read_text() == licence


@EVERY_DISTRIBUTION
def test_a_distribution_imports_only_what_it_declares(distribution: str) -> None:
    modules = sorted(source_folder(distribution).rglob("*.py"))
    imported = {
        name.split(".", maxsplit=1)[0]
        for module in modules
        for name in imports(module)
        if not name.startswith(".")
    }
    assert imported
    assert imported - importable(distribution) == set()
