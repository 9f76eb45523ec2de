"""Each demand of the protocol's pages has one id of its own, and is found by it."""

import re
from pathlib import Path

import pytest

from tests.support.protocol_requirements import PROTOCOL, Misnumbered, requirements

REFERENCE = re.compile(r"\[([A-Z]-\d+)\]\(#([a-z]-\d+)\)")


def test_every_demand_has_an_id_of_its_own() -> None:
    demands = requirements()
    assert len(demands) > 100
    assert demands["T-13"] == (
        "A server MUST send the replies of a connection in the order of its requests."
    )


def test_an_id_that_is_referred_to_is_that_of_a_demand() -> None:
    text = "\n".join(page.read_text() for page in PROTOCOL.glob("*.md"))
    referred = REFERENCE.findall(text)
    assert {id for id, _ in referred} <= requirements().keys()
    assert all(id.lower() == anchor for id, anchor in referred)


def test_the_first_page_says_where_each_letter_is_used() -> None:
    index = (PROTOCOL / "index.md").read_text()
    rows = re.findall(r"^\| ([A-Z]) \| .* \| \[.*\]\((\w+\.md)[^)]*\) \|$", index, re.M)
    used = {(id[0], page.name) for page in PROTOCOL.glob("*.md") for id in _ids(page)}
    assert {*rows} == used


def _ids(page: Path) -> list[str]:
    return re.findall(r"\[([A-Z]-\d+)\] ", page.read_text())


def of_page(folder: Path, text: str) -> dict[str, str]:
    (folder / "page.md").write_text(text)
    return requirements(folder)


def test_a_demand_ends_with_its_sentence_wherever_it_stands(tmp_path: Path) -> None:
    page = """
[A-1] One MUST do `a . b`
now. Another may. [A-2] It
SHALL be.

- [A-3] This MUST NOT end, RFC 9535 says.

| said |
| --- |
| [A-4] That is REQUIRED! |

"MUST" is a word.

```text
MUST
```
"""
    assert of_page(tmp_path, page) == {
        "A-1": "One MUST do `a . b` now.",
        "A-2": "It SHALL be.",
        "A-3": "This MUST NOT end, RFC 9535 says.",
        "A-4": "That is REQUIRED!",
    }


@pytest.mark.parametrize(
    "page",
    [
        "One MUST do this.",
        "[A-1] One may do this.",
        "One MUST [A-1] do this.",
        "[A-1] [A-2] One MUST do this.",
        "[A-01] One MUST do this.",
        "[A-1] One MUST do this. [A-1] One MUST do that.",
    ],
)
def test_an_id_that_is_missing_or_out_of_place_is_an_error(tmp_path: Path, page: str) -> None:
    with pytest.raises(Misnumbered):
        of_page(tmp_path, page)
