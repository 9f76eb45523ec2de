"""Directive ``{ndb-rooms}``: the rooms of the server as a picture."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from docs._ext import rooms_picture


class Rooms(SphinxDirective):
    """Shows the picture."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(rooms_picture.ROOT / "pyproject.toml"))
        return [nodes.raw("", rooms_picture.draw(), format="html")]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("ndb-rooms", Rooms)
    return {"version": "1", "parallel_read_safe": True}
