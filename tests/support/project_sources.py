"""The project's own files, as the tests of its structure see them."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PACKAGES = {"ndb-protocol": "ndb_protocol", "ndb-client": "ndb", "ndb-server": "ndb_server"}
"""The distributions, and the package that each one holds."""


def metadata(distribution: str) -> dict[str, Any]:
    """Return the ``project`` table of a distribution."""
    text = (ROOT / "packages" / distribution / "pyproject.toml").read_text()
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def source_folder(distribution: str) -> Path:
    """Return the folder of a distribution's package."""
    return ROOT / "packages" / distribution / "src" / PACKAGES[distribution]


def imports(module: Path) -> Iterator[str]:
    """Yield what a module imports: ``websockets.frames``, or ``.engine`` from its own package."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            if node.module is None:
                yield from (dots + alias.name for alias in node.names)
            else:
                yield dots + node.module
