"""Every exchange on a page is what a server really answers, to the digit and in that order.

A line ``→ …`` is sent, the line ``← …`` behind it is the reply; white space apart, they are the
same text. An ``m`` that is only "…" stands for any sentence, and the token shown for a new session
for whichever token the server drew.
"""

import re
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.documentation_pages import blocks, name, pages_with
from tests.support.server_process import Server

EXCHANGE = re.compile(r"→ (?P<request>.*)\n← (?P<reply>.*)\n")
NEW_TOKEN = re.compile(r'"SH_NEW_RSP".*"tkn": ?"?(?P<token>\d+)')
ANY_SENTENCE = '"m":"…"'


def exchanges(page: Path) -> list[tuple[str, str]]:
    return [
        (match["request"], match["reply"])
        for block in blocks(page)
        if block.language == "text"
        for match in EXCHANGE.finditer(block.text)
    ]


def compact(text: str) -> str:
    """Return JSON text without white space between its parts, and nothing else changed."""
    parts = re.findall(r'"(?:[^"\\]|\\.)*"|[^\s"]+', text)
    return "".join(parts)


@pytest.mark.parametrize("page", [p for p in pages_with("text") if exchanges(p)], ids=name)
async def test_a_page_s_exchanges_are_what_the_server_answers(page: Path, server: Server) -> None:
    tokens: dict[str, str] = {}

    def as_drawn(text: str) -> str:
        for shown, drawn in tokens.items():
            text = text.replace(shown, drawn)
        return text

    async with connect(server.url) as connection:
        for request, reply in exchanges(page):
            await connection.send(as_drawn(request))
            answered = compact(await connection.recv(decode=True))
            shown, drawn = NEW_TOKEN.search(reply), NEW_TOKEN.search(answered)
            if shown is not None and drawn is not None:
                tokens[shown["token"]] = drawn["token"]
            expected = compact(as_drawn(reply))
            if ANY_SENTENCE in expected:
                sentence = re.escape(ANY_SENTENCE)
                pattern = re.escape(expected).replace(sentence, r'"m":"(?:[^"\\]|\\.)+"')
                assert re.fullmatch(pattern, answered)
            else:
                assert answered == expected
