"""A line of the server knows its room, as docs/explanation/architecture.md says."""

import re

import pytest
from ndb_protocol import COMMANDS

from tests.support.project_sources import imports, source_folder

SERVER = source_folder("ndb-server")
IO = {"asyncio", "socket", "ssl", "threading", "sqlite3", "websockets"}
CLOCKS = {"time", "datetime"}


@pytest.mark.parametrize(
    ("room", "unknown_to_it"),
    [
        ("transport", {".dispatch", ".engine", ".keyspace", ".datasets", ".deadlines"}),
        ("listeners", {".transport", ".dispatch", ".engine", ".datasets", ".server", "ssl"}),
        ("accepting", {".transport", ".dispatch", ".engine", ".datasets", ".server"}),
        ("x509", {".transport", ".tls", "asyncio", "socket", "time"}),
        ("dispatch", {".transport", ".engine", ".keyspace", ".datasets", *IO, *CLOCKS}),
        ("ops", {".transport", ".dispatch", ".engine", ".datasets", "asyncio", "socket", *CLOCKS}),
        ("engine", {".transport", ".dispatch", ".datasets", *IO, *CLOCKS}),
        ("keyspace", {".transport", ".dispatch", ".engine", ".datasets", *IO, *CLOCKS}),
        ("splicing", {".transport", ".dispatch", ".engine", ".keyspace", *IO, *CLOCKS}),
        *(
            (f"jsonpath/{room}", {"..transport", "..dispatch", "..engine", "..paths", *IO, *CLOCKS})
            for room in ("parser", "query", "functions", "compare", "values")
        ),
        ("deadlines", {".transport", ".dispatch", ".engine", ".datasets", *IO, *CLOCKS}),
    ],
)
def test_a_room_imports_nothing_that_it_must_not_know(room: str, unknown_to_it: set[str]) -> None:
    known = {
        name if name.startswith(".") else name.split(".")[0]
        for name in imports(SERVER / f"{room}.py")
    }
    assert known & unknown_to_it == set()


@pytest.mark.parametrize("room", ["transport", "dispatch"])
def test_a_room_in_front_of_the_engine_names_no_command(room: str) -> None:
    words = set(re.findall(r"[A-Z_]+", (SERVER / f"{room}.py").read_text()))
    assert words & set(COMMANDS) == set()
