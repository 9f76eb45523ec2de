"""What the specification demands and what the scenarios show are tied, in both directions."""

import json
import re
from importlib.resources import files

import pytest
from ndb_protocol import COMMANDS, COMMON_STATUSES, Status
from ndb_protocol.conformance.scenarios import (
    ClientScenario,
    Profile,
    Scenario,
    choose,
    load_client_scenarios,
    load_core,
    load_scenarios,
    matches,
)

from tests.support.project_sources import ROOT
from tests.support.protocol_requirements import requirements
from tests.support.vector_messages import NOT_BY_TEXT

MANIFEST = json.loads((files("ndb_protocol.conformance") / "manifest.json").read_text())
TIED: dict[str, list[str]] = MANIFEST["must"]
UNSEEN: dict[str, str] = MANIFEST["unseen"]
SERVERS, CLIENTS = load_scenarios(), load_client_scenarios()
ALL: list[Scenario | ClientScenario] = [*SERVERS, *CLIENTS]
IDS = [scenario.id for scenario in ALL]


def test_every_demand_is_tied_to_scenarios_or_said_to_be_unseen() -> None:
    demands = requirements()
    assert TIED.keys() | UNSEEN.keys() == demands.keys()
    assert not TIED.keys() & UNSEEN.keys()
    assert all(TIED.values())
    assert all(UNSEEN.values())


def test_what_is_said_to_show_an_unseen_demand_is_there() -> None:
    named = [path for why in UNSEEN.values() for path in re.findall(r"tests/[\w/]+\.py", why)]
    assert named
    assert all((ROOT / path).is_file() for path in named)


@pytest.mark.parametrize("demand", TIED)
def test_a_demand_is_tied_to_scenarios_that_exist(demand: str) -> None:
    for pattern in TIED[demand]:
        assert any(matches(id, [pattern]) for id in IDS), pattern


def test_a_demand_of_clients_is_tied_to_scenarios_for_clients() -> None:
    clients = [scenario.id for scenario in CLIENTS]
    for id, sentence in requirements().items():
        if id in TIED and sentence.startswith("A client"):
            assert any(matches(client, TIED[id]) for client in clients), id


@pytest.mark.parametrize("file", sorted({scenario.file for scenario in ALL}))
def test_every_scenario_is_tied_to_a_demand(file: str) -> None:
    patterns = [pattern for its_patterns in TIED.values() for pattern in its_patterns]
    for id in IDS:
        if id.startswith(f"{file}/"):
            assert matches(id, patterns), id


def test_no_two_scenarios_have_one_id() -> None:
    assert len(set(IDS)) == len(IDS)


def test_the_scenarios_show_every_status_that_can_be_provoked() -> None:
    shown = {
        int(found[1])
        for scenario in SERVERS
        for step in scenario.steps
        if step.expect is not None and (found := re.search(r'"st":(\d+)', step.expect))
    }
    answered = {status for command in COMMANDS.values() for status in command.statuses}
    of_messages = {Status.OP_CODE_INVALID, Status.JSON_INVALID, Status.COMMAND_NOT_EXIST}
    # Unlike a vector, a scenario can send a binary message, and reach a limit.
    reached = {Status.SESSION_NEW_FAIL, Status.LIMIT_EXCEEDED}
    not_provoked = NOT_BY_TEXT - {Status.OP_CODE_INVALID} - reached
    assert shown == (answered | of_messages | {*COMMON_STATUSES}) - not_provoked


def test_the_scenarios_for_clients_call_every_command() -> None:
    called = {step.call for scenario in CLIENTS for step in scenario.steps}
    assert called - {None, "close"} == COMMANDS.keys()


def test_the_core_is_a_part_that_has_every_command_of_nemesisdb() -> None:
    assert all(any(matches(id, [pattern]) for id in IDS) for pattern in load_core().scenarios)
    core = choose(SERVERS, Profile.CORE)
    # SV_INFO has members here that it has not there.
    added = {"SH_FIND", "SH_UPDATE", "SH_ARR_APPEND", "SV_INFO"}
    files_of_commands = {scenario.file for scenario in core} & COMMANDS.keys()
    assert files_of_commands == COMMANDS.keys() - added
    assert len(core) < len(SERVERS)
