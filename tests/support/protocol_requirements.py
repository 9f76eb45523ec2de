"""What the protocol's pages demand: their sentences with MUST, by the ids in front of them."""

import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

from tests.support.project_sources import ROOT

PROTOCOL = ROOT / "docs" / "reference" / "protocol"

_SENTENCE = re.compile(r"(?:`[^`]*`|[^`])+?(?:[.?!](?=\s|$)|$)")
_ID = re.compile(r"\[([A-Z]-[1-9][0-9]*)\] ")
# In quotes, the word is only mentioned.
_DEMAND = re.compile(r'(?<!")\b(?:MUST|REQUIRED|SHALL)\b')


class Misnumbered(ValueError):
    """An id that is missing, out of place or given twice."""


def sentences(page: Path) -> Iterator[str]:
    """Yield the sentences of `page`, each on one line: of paragraphs, list items and cells."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        if token.type == "inline":
            text = " ".join(token.content.split())
            yield from (found[0].strip() for found in _SENTENCE.finditer(text))


def numbered(sentence: str) -> tuple[str, str] | None:
    """Return the id of `sentence` and the sentence without it, or None if it demands nothing.

    Raises:
        Misnumbered: it demands something and does not begin with its one id, or has an id and
            demands nothing.
    """
    ids = list(_ID.finditer(sentence))
    demands = _DEMAND.search(sentence) is not None
    if [found.start() for found in ids] != [0] * demands:
        raise Misnumbered(f"an id stands in front of each sentence with MUST, only: {sentence}")
    return (ids[0][1], sentence[ids[0].end() :]) if ids else None


def requirements(folder: Path = PROTOCOL) -> dict[str, str]:
    """Return what the pages of `folder` demand: sentences by their ids, page by page.

    Raises:
        Misnumbered: a sentence with MUST has no id, an id no such sentence, or two the same id.
    """
    demands: dict[str, str] = {}
    for page in sorted(folder.glob("*.md")):
        for id, sentence in filter(None, map(numbered, sentences(page))):
            if id in demands:
                raise Misnumbered(f"two sentences are {id}: {demands[id]} / {sentence}")
            demands[id] = sentence
    return demands
