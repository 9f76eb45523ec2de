"""The page on what is supported, the distributions and nox agree on the Pythons."""

import ast
import re
from collections.abc import Iterable

import pytest

from tests.support.project_sources import PACKAGES, ROOT, metadata

PAGE = (ROOT / "docs" / "reference" / "support.md").read_text()
CLASSIFIER = "Programming Language :: Python :: "


def in_order(versions: Iterable[str]) -> list[str]:
    return sorted(versions, key=lambda version: int(version.removeprefix("3.")))


def supported() -> list[str]:
    """Return the Pythons that the page calls tested."""
    return re.findall(r"^\| CPython (3\.\d+) \| tested \|$", PAGE, re.M)


def test_nox_tests_the_pythons_that_are_supported() -> None:
    [pythons] = [
        node.value
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PYTHONS"
    ]
    constants = (node.value for node in ast.walk(pythons) if isinstance(node, ast.Constant))
    assert in_order(str(value) for value in constants) == supported()


@pytest.mark.parametrize("distribution", PACKAGES)
def test_a_distribution_names_the_pythons_that_are_supported(distribution: str) -> None:
    project = metadata(distribution)
    named = {
        classifier.removeprefix(CLASSIFIER)
        for classifier in project["classifiers"]
        if classifier.startswith(f"{CLASSIFIER}3.")
    }
    assert in_order(named) == supported()
    assert project["requires-python"] == f">={supported()[0]}"
