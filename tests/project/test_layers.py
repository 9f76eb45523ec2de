"""What import-linter can't check of the server's rooms, and the picture of them in the docs."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from ndb_protocol import COMMANDS

from docs._ext import rooms_picture
from tests.support.project_sources import ROOT, source_folder

SERVER = source_folder("ndb-server")
SVG = "{http://www.w3.org/2000/svg}"


def picture() -> tuple[dict[str, float], list[str]]:
    """Return how far down each name in bold stands, and all texts."""
    texts = list(ET.fromstring(rooms_picture.draw()).iter(f"{SVG}text"))
    rooms = {str(one.text): float(one.attrib["y"]) for one in texts if "font-weight" in one.attrib}
    return rooms, [str(one.text) for one in texts]


@pytest.mark.parametrize(
    "module",
    [path for room in ("websocket", "dispatch") for path in (SERVER / room).glob("*.py")],
    ids=lambda path: path.stem,
)
def test_a_room_in_front_of_the_engine_names_no_command(module: Path) -> None:
    words = set(re.findall(r"[A-Z_]+", module.read_text()))
    assert words & set(COMMANDS) == set()


def test_the_picture_shows_every_room_and_module_of_the_source_tree() -> None:
    rooms, texts = picture()
    packages = {path.parent.name for path in SERVER.glob("*/__init__.py")}
    bottom = {path.stem for path in SERVER.glob("*.py")} - {"__init__", "__main__"}
    assert set(rooms) == packages | bottom
    words = {word for text in texts for word in text.split()}
    assert {path.stem for path in SERVER.glob("*/*.py")} - {"__init__"} <= words


def test_the_picture_has_the_layers_in_the_order_of_the_contract() -> None:
    rooms, _ = picture()
    heights = [{rooms[room] for room in layer} for layer in rooms_picture.layers()]
    assert all(len(height) == 1 for height in heights)
    assert heights == sorted(heights, key=max)


def test_every_module_that_the_tour_names_exists() -> None:
    tour = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+/[a-z_]+)`", tour))
    assert len(named) > 10
    missing = {name for name in named if not (SERVER / f"{name}.py").exists()}
    assert missing == set()
    rooms = set(re.findall(r"^\| `([a-z_]+)`", tour, re.M))
    assert rooms >= {path.parent.name for path in SERVER.glob("*/__init__.py")}


def test_every_class_and_method_that_the_tour_names_exists() -> None:
    tour = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    code = "".join(path.read_text() for path in SERVER.rglob("*.py"))
    for name, method in re.findall(r"`([A-Z][A-Za-z]+)(?:\.([a-z_]+))?`", tour):
        assert f"class {name}" in code, name
        assert not method or f"def {method}(" in code, method
