"""The conformance kit against clients: good ones pass, broken ones are found out."""

import shlex
import sys

import pytest
from ndb_protocol.conformance.scenarios import load_client_scenarios, matches

from tests.support.client_runtimes import chromium, node, perl
from tests.support.conformance_kit import run_kit
from tests.support.project_sources import ROOT

from .broken_client import BREAKS

CLIENTS = ROOT / "docs" / "clients"
PYTHON = shlex.quote(sys.executable)


def passes(command: str, *, skips: int = 0) -> None:
    ran = run_kit("--client", command)
    assert ran.status == 0, "\n".join(ran.lines) + ran.stderr
    passed = len(load_client_scenarios()) - skips
    assert ran.counts == {"passed": passed, "failed": 0, "skipped": skips}
    assert ran.lines[-1] in (ROOT / "docs" / "howto" / "write-a-client.md").read_text()


def test_the_python_client_passes() -> None:
    passes(f"{PYTHON} -m tests.conformance.python_client")


def test_a_client_that_answers_the_last_of_several_pings_alone_passes() -> None:
    passes(f"{PYTHON} -m tests.conformance.frugal_client")


def test_the_javascript_client_passes_in_node() -> None:
    # It takes lengths that are not in their shortest form.
    passes(f"{node()} {CLIENTS / 'javascript' / 'conformance.js'}", skips=3)


def test_the_javascript_client_passes_in_a_browser() -> None:
    chromium()
    passes(f"{PYTHON} -m tests.conformance.browser")


def test_the_perl_client_passes() -> None:
    passes(f"{perl()} {CLIENTS / 'perl' / 'conformance.pl'}")


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_client_is_found_out(name: str) -> None:
    caught_by = f"client/{BREAKS[name].caught_by}"
    client = f"{PYTHON} -m tests.conformance.broken_client {name}"
    ran = run_kit("--client", client, "--only", caught_by, "--timeout", "2")
    noticing = sum(matches(scenario.id, [caught_by]) for scenario in load_client_scenarios())
    assert ran.counts == {"passed": 0, "failed": noticing, "skipped": 0}, "\n".join(ran.lines)
    assert ran.status == 1
    # It was found out for what it does, and not for a break that could not be made.
    assert "the client ended with status" not in "\n".join(ran.lines)


CONNECT = (
    "import json, socket; from urllib.parse import urlsplit; "
    "s = socket.create_connection(('127.0.0.1', urlsplit(json.loads(input())['url']).port))"
)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("pass", "the client ended with status 0"),
        ("import sys; sys.exit(3)", "the client ended with status 3"),
        ("print('hello'); input()", "not an answer: b'hello"),
        ("print('{}'); input()", "not an answer: b'{}"),
        ("print('[]'); input()", "not an answer: b'[]"),
        ('print(\'{"id":1,"result":{}}\'); input()', "and did not connect"),
        ("input(); input()", "nothing within 0.5 s"),
        (f"{CONNECT}; s.sendall(b'GET nothing\\r\\n\\r\\n'); input()", "no opening handshake"),
        (f"{CONNECT}; s.close(); input()", "0 bytes read"),
    ],
)
def test_a_program_that_is_no_client_is_told_from_one(program: str, why: str) -> None:
    command = f"{PYTHON} -c {shlex.quote(program)}"
    only = "client/KV_COUNT is sent*"
    # Only one is waited for in vain.
    patience = ["--timeout", "0.5"] if why == "nothing within 0.5 s" else []
    ran = run_kit("--client", command, "--only", only, *patience)
    assert ran.status == 1
    assert why in "\n".join(ran.lines)
