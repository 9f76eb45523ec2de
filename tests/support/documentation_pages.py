"""The pages of the documentation, as their examples see them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.support.project_sources import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("packages/*/README.md"),
        *(ROOT / "docs").glob("[a-z]*/**/*.md"),
        *(ROOT / "docs").glob("*.md"),
    ]
)
DEFAULT_URI = "ws://127.0.0.1:1987/"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the line of the page above the first."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of `page` in order."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence" and token.map is not None:
            yield Block(token.info, token.content, token.map[0] + 1)


def pages_with(*languages: str) -> list[Path]:
    """Return the pages that have a block in one of `languages`."""
    return [page for page in PAGES if any(b.language in languages for b in blocks(page))]


def name(page: Path) -> str:
    """Return what a test calls `page`."""
    return str(page.relative_to(ROOT))
