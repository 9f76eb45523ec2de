"""The tables that the protocol's pages have beside the generated ones say what the code says."""

import re

import pytest
from ndb_protocol import COMMANDS, NDB_V1, NDB_V1_TEXT, Status
from ndb_protocol.messages import DURATION_MAX, FIND_RESPONSES, Expiry, Limits
from ndb_server.server.server import FEATURES

from tests.support.protocol_requirements import PROTOCOL

FIRST_CELLS = {
    ("versions.md", "feature"): FEATURES,
    ("sessions.md", "member"): list(Expiry.__struct_fields__),
    ("keys.md", "`rsp`"): list(FIND_RESPONSES),
    ("limits.md", "limit"): list(Limits.__struct_fields__),
}


def text(page: str) -> str:
    return (PROTOCOL / page).read_text()


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose first column is called `head`, cell by cell."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[ -|]+\n((?:\|.*\n)+)", text(page), re.M)
    assert found, f"{page} has no table of {head}"
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in found[1].splitlines()]


@pytest.mark.parametrize(("page", "head"), FIRST_CELLS)
def test_a_table_has_what_the_code_has(page: str, head: str) -> None:
    names = [name for cell, *_ in table(page, head) for name in re.findall(r"`(.+?)`", cell)]
    assert names == FIRST_CELLS[page, head]


def test_the_subprotocols_are_those_of_the_code() -> None:
    [numbers, texts] = table("transport.md", "subprotocol")
    assert f"`{NDB_V1}`" in numbers[0]
    assert texts == [f"`{NDB_V1_TEXT}`", "strings of decimal digits"]


def test_the_status_values_of_the_order_of_checks_exist() -> None:
    rows = table("messages.md", "the check")
    statuses = [int(number) for row in rows for number in re.findall(r"\d+", row[1])]
    assert statuses == [2, 3, 13, 10, 12, 26, 41, 42, 13, 14, 100]
    assert {*statuses} <= {*Status}


def test_the_longest_duration_is_that_of_the_code() -> None:
    assert text("sessions.md").count(str(DURATION_MAX)) >= 2
    assert {*re.findall(r"\b4\d{9}\b", text("sessions.md"))} == {str(DURATION_MAX)}


def test_a_reserved_name_is_no_command_yet() -> None:
    reserved = re.search(r"## Reserved names\n\n(.*?)are kept", text("versions.md"), re.S)
    assert reserved
    names = re.findall(r"`(\w+)`", reserved[1])
    assert names
    assert not {*names} & {*COMMANDS}
