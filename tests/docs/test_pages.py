"""Every page does what it says, from top to bottom, with a real server.

- ``console``: a line ``$ ndb-server …`` starts the server that the blocks below it talk to; what
  comes before it is its environment. The line below is the URL it prints.
- ``toml``: a file, named by the comment in its first line.
- ``python``: run as at the prompt of ``python -m asyncio``; the blocks of a page share their names.
  A block that calls `asyncio.run` is a program and runs as one.
- ``text`` right behind ``python`` is what that block prints, to the letter.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import DEFAULT_URI, Block, blocks, name, pages_with
from tests.docs.servers import PROGRAM, running

SERVER = "ndb-server"
PRINTS_AND_EXITS = {"--help", "--version"}


class Reader:
    """Someone who does what a page says, in a folder of their own."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._server = contextlib.ExitStack()
        self._uri: str | None = None

    async def read(self) -> None:
        with self._server:
            for block, following in pairwise([*blocks(self._page), None]):
                assert block is not None
                if block.language == "console":
                    self._enter(block)
                elif block.language == "toml":
                    file, content = block.text.split("\n", 1)
                    (self._folder / file.removeprefix("# ")).write_text(content)
                elif block.language == "python":
                    behind = following is not None and following.language == "text"
                    shown = following.text if following is not None and behind else ""
                    assert await self._run(block) == shown, f"line {block.line} of the page"

    def _enter(self, block: Block) -> None:
        for line, below in pairwise([*block.text.splitlines(), ""]):
            words = shlex.split(line.removeprefix("$ "))
            if not line.startswith("$ ") or SERVER not in words:
                continue
            at = words.index(SERVER)
            if any(not word.startswith("NDB_") for word in words[:at]):
                continue
            environment = dict(word.split("=", 1) for word in words[:at])
            self._start(words[at + 1 :], environment)
            if below.startswith("ws://"):
                assert urlsplit(self._uri).hostname == urlsplit(below).hostname

    def _start(self, options: list[str], environment: dict[str, str]) -> None:
        if PRINTS_AND_EXITS.intersection(options):
            subprocess.run([*PROGRAM, *options], check=True, stdout=subprocess.DEVNULL)
            return
        self._server.close()
        self._uri = self._server.enter_context(running(options, self._folder, environment))

    async def _run(self, block: Block) -> str:
        if DEFAULT_URI in block.text and self._uri is None:
            self._start([], {})
        source = block.text.replace(DEFAULT_URI, self._uri or DEFAULT_URI)
        if "asyncio.run(" in source:
            return await run_program(source)
        return await self._run_at_the_prompt(block, source)

    async def _run_at_the_prompt(self, block: Block, source: str) -> str:
        # Line feeds in front make a traceback tell the line of the page.
        code = compile(
            "\n" * block.line + source,
            str(self._page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            result = eval(code, self._names)
            if inspect.iscoroutine(result):
                await result
        return printed.getvalue()


async def run_program(source: str) -> str:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await program.communicate()
    assert program.returncode == 0
    return printed.decode()


@pytest.mark.parametrize("page", pages_with("python", "console"), ids=name)
async def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    await Reader(page, tmp_path).read()


async def test_the_demo_ends_well() -> None:
    demo = Path(__file__).parents[2] / "docs" / "examples" / "demo.py"
    printed = await run_program(demo.read_text())
    assert "{'cart': ['tea', 'cup']}" in printed
    assert "exits with status 0" in printed
