"""The rooms of the server as a picture.

The rows are the layers that import-linter checks (``tool.importlinter`` in ``pyproject.toml``). The
modules are those of the source tree. So the picture can't differ from what is checked.
"""

import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
PACKAGE = "ndb_server"
SOURCES = ROOT / "packages" / "ndb-server" / "src" / PACKAGE

WIDTH = 760
GAP = 12
LINE = 16
CHARACTER = 6.7
"""The width of a character in a monospaced font of 11 pixels."""


def contracts() -> list[dict[str, Any]]:
    """Return the contracts that import-linter checks."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    return found


def layers() -> list[list[str]]:
    """Return the rooms of the server, the top layer first."""
    [contract] = [one for one in contracts() if one.get("containers") == [PACKAGE]]
    return [
        [room.strip() for room in layer.replace(":", "|").split("|")]
        for layer in contract["layers"]
    ]


def modules_of(room: str) -> list[str]:
    """Return the names of the modules in a room; none if it is a module itself."""
    folder = SOURCES / room
    return sorted(
        path.name.removesuffix(".py")
        for path in folder.glob("*")
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
    )


def never_imported(room: str) -> list[str]:
    """Return what a room never imports, beside the rooms above it."""
    found = {
        name
        for contract in contracts()
        if contract["type"] == "forbidden" and f"{PACKAGE}.{room}" in contract["source_modules"]
        for name in contract["forbidden_modules"]
    }
    return sorted(found)


def draw() -> str:
    """Return the picture as SVG."""
    parts: list[str] = []
    top = 0
    for layer in layers():
        width = (WIDTH - GAP * (len(layer) - 1)) / len(layer)
        boxes = [(room, list(_lines(room, int((width - 2 * GAP) / CHARACTER)))) for room in layer]
        height = LINE * max(1 + len(lines) for _, lines in boxes) + GAP
        for number, (room, lines) in enumerate(boxes):
            parts += _box(room, lines, number * (width + GAP), top, width, height)
        top += height + GAP
    title = "The rooms of the server, by layers: each imports only what is below it."
    return (
        f'<svg role="img" viewBox="-1 -1 {WIDTH + 2} {top}" width="100%" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{title}</title>{"".join(parts)}</svg>'
    )


def _lines(room: str, columns: int) -> Iterator[tuple[str, str]]:
    """Yield the lines of a room's box, each with its style."""
    for line in textwrap.wrap(" ".join(modules_of(room)), columns, break_on_hyphens=False):
        yield "", line
    if never := never_imported(room):
        for line in textwrap.wrap(f"never {', '.join(never)}", columns):
            yield ' font-style="italic" opacity="0.7"', line


def _box(
    room: str, lines: list[tuple[str, str]], left: float, top: float, width: float, height: float
) -> Iterator[str]:
    yield (
        f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="4" fill="none" '
        'stroke="currentColor"/>'
    )
    texts = [(' font-weight="bold"', room), *lines]
    for number, (style, text) in enumerate(texts, 1):
        yield (
            f'<text x="{left + GAP:.0f}" y="{top + number * LINE}" font-family="monospace" '
            f'font-size="11" fill="currentColor"{style}>{escape(text)}</text>'
        )
