"""What a server says its data takes, against what its process takes."""

from collections.abc import Callable

import pytest

from tests.support.process_memory import resident_bytes
from tests.support.raw_client import Wire, opened, text
from tests.support.server_process import StartServer

LIMIT = 16 * 2**20
TOLERANCE = 0.3
"""How far off the estimate may be: the allocator rounds, and tables grow by leaps."""

VALUE = "x" * 60
EXPIRY = {"duration": 3600, "deleteSession": True}

Keys = Callable[[int], dict[str, object]]
"""Returns what a session is to hold, given its token."""


def sessions_of_four(number: int) -> dict[str, object]:
    return {f"k{key}": VALUE[: 10 + number % 20] for key in range(4)}


def sessions_of_forty(number: int) -> dict[str, object]:
    return {f"key{key}": VALUE[: 20 + number % 40] for key in range(40)}


def nothing(_: int) -> dict[str, object]:
    return {}


def fill(wire: Wire, keys: Keys) -> int:
    """Make sessions until one or its keys are refused; return how many were made."""
    made = 0
    while True:
        wire.send(text({"SH_NEW": {"expiry": EXPIRY}}) * 500)
        begun = [reply["SH_NEW_RSP"] for reply in wire.replies(500)]
        tokens = [body["tkn"] for body in begun if body["st"] == 1]
        made += len(tokens)
        sets = [{"SH_SET": {"tkn": token, "keys": keys(token)}} for token in tokens]
        wire.send(b"".join(map(text, sets)))
        stored = [reply["SH_SET_RSP"]["st"] for reply in wire.replies(len(tokens))]
        assert {body["st"] for body in begun} <= {1, 103}
        assert {*stored} <= {1, 201}
        if len(tokens) < 500 or 201 in stored:
            return made


@pytest.mark.parametrize("keys", [nothing, sessions_of_four, sessions_of_forty])
def test_the_estimate_is_near_to_what_the_process_takes(
    start_server: StartServer, keys: Keys
) -> None:
    server = start_server("--max-memory", str(LIMIT))
    with opened(server.port) as wire:
        # What is needed once is there by then.
        wire.request("SH_NEW")
        before = resident_bytes(server.pid)
        made = fill(wire, keys)
        taken = resident_bytes(server.pid) - before
    assert made > 100
    assert abs(taken - LIMIT) < TOLERANCE * LIMIT, taken / LIMIT


def test_evicting_keeps_the_process_within_its_bounds(start_server: StartServer) -> None:
    server = start_server("--max-memory", "4m", "--when-full", "evict")
    with opened(server.port) as wire:
        wire.request("SH_NEW")
        before = resident_bytes(server.pid)
        for _ in range(60):
            wire.send(text({"SH_NEW": {"expiry": EXPIRY}}) * 1000)
            assert all(reply["SH_NEW_RSP"]["st"] == 1 for reply in wire.replies(1000))
        assert wire.request("SH_INFO_ALL")["totalSessions"] < 4 * 2**20 / 200
        assert resident_bytes(server.pid) - before < 20_000_000
