"""Every page does what it says, from top to bottom, with a real server.

- ``console``: a line ``$ ndb-server …`` starts the server that the blocks below it talk to; what
  comes before it is its environment. The line below is the URL it prints.
  ``$ ndb-server check …`` and other commands are run, and have to succeed.
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
import trustme

from tests.support.documentation_pages import DEFAULT_URI, Block, blocks, name, pages_with
from tests.support.project_sources import ROOT
from tests.support.server_process import Server, StartServer

SERVER = "ndb-server"
PRINTS_AND_EXITS = {"--help", "--version"}
COMMANDS = {"datasets", "check", "export", "import"}


class Reader:
    """Someone who does what a page says."""

    def __init__(self, page: Path, start_server: StartServer) -> None:
        self._page = page
        self._start_server = start_server
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._server: Server | None = None

    async def read(self) -> None:
        for block, following in pairwise([*blocks(self._page), None]):
            assert block is not None
            if block.language == "console":
                self._enter(block)
            elif block.language == "toml":
                self._write(block)
            elif block.language == "python":
                behind = following is not None and following.language == "text"
                shown = following.text if following is not None and behind else ""
                assert await self._run(block) == shown, f"line {block.line} of the page"

    def _write(self, block: Block) -> None:
        file, content = block.text.split("\n", 1)
        Path(file.removeprefix("# ")).write_text(content)

    def _enter(self, block: Block) -> None:
        for line, below in pairwise([*block.text.splitlines(), ""]):
            words = shlex.split(line.removeprefix("$ "))
            if not line.startswith("$ ") or SERVER not in words:
                continue
            at = words.index(SERVER)
            if any(not word.startswith("NDB_") for word in words[:at]):
                continue
            environment = dict(word.split("=", 1) for word in words[:at])
            options = words[at + 1 :]
            if PRINTS_AND_EXITS.intersection(options) or "auth" in options:
                command = [sys.executable, "-m", "ndb_server", *options]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            elif COMMANDS.intersection(options[:1]):
                program = f"{shlex.quote(sys.executable)} -m ndb_server"
                command_line = line.removeprefix("$ ").replace(SERVER, program, 1)
                subprocess.run(command_line, shell=True, check=True, stdout=subprocess.DEVNULL)
            else:
                server = self._start(options, environment)
                assert urlsplit(server.url).hostname == urlsplit(below).hostname

    def _start(self, options: list[str], environment: dict[str, str]) -> Server:
        if self._server is not None:
            self._server.stop()
        if "--port" in options:
            # Whichever port the page chooses, the test takes a free one.
            at = options.index("--port")
            del options[at : at + 2]
        if "--ops-port" in options:
            options[options.index("--ops-port") + 1] = "0"
        if "--tls-cert" in options:
            # The page's reader has certificates.
            issued = trustme.CA().issue_cert("localhost")
            issued.cert_chain_pems[0].write_to_path("chain.pem")
            issued.private_key_pem.write_to_path("key.pem")
        self._server = self._start_server(*options, env=environment)
        return self._server

    async def _run(self, block: Block) -> str:
        source = block.text
        if DEFAULT_URI in source:
            server = self._server or self._start([], {})
            source = source.replace(DEFAULT_URI, server.url)
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
async def test_a_page_does_what_it_says(
    page: Path, start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await Reader(page, start_server).read()


async def test_the_demo_ends_well() -> None:
    demo = ROOT / "docs" / "examples" / "demo.py"
    printed = await run_program(demo.read_text())
    assert "{'cart': ['tea', 'cup']}" in printed
    assert "exits with status 0" in printed
