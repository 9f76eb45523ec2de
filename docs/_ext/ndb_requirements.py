"""Makes the id in front of a demand, as in ``[T-13] A server MUST …``, a place to link to.

``[T-13](#t-13)`` links there from any page; a link to an id that is not there is a warning.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import ExtensionMetadata

ID = re.compile(r"\[([A-Z]-[1-9][0-9]*)\] ")


class Requirements(SphinxTransform):
    """Give each id a target of its own, and make it a link to itself."""

    # Before labels are collected, and before the first transform that looks at text.
    default_priority = 5

    def apply(self, **kwargs: object) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, nodes.paragraph) and ID.search(text):
                before, *parts = ID.split(text)
                pieces: list[nodes.Node] = [nodes.Text(before)]
                for id, sentence in zip(parts[::2], parts[1::2], strict=True):
                    pieces += [self._target(id), nodes.Text(f" {sentence}")]
                text.parent.replace(text, pieces)

    def _target(self, id: str) -> nodes.inline:
        anchor = id.lower()
        target = nodes.inline("", "", names=[anchor], classes=["requirement"])
        self.document.note_explicit_target(target)
        target += nodes.reference("", f"[{id}]", refid=anchor)
        return target


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_transform(Requirements)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
