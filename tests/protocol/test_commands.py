"""The tables of statuses and commands are those of the protocol."""

from typing import Any, get_type_hints

import msgspec
import pytest
from ndb_protocol import COMMANDS, SUCCESS, Command, Extends, Status

STATUSES = {
    1: "OK",
    2: "OP_CODE_INVALID",
    3: "JSON_INVALID",
    4: "PATH_INVALID",
    10: "COMMAND_NOT_EXIST",
    12: "COMMAND_TYPE",
    13: "COMMAND_SYNTAX",
    14: "COMMAND_DISABLED",
    22: "KEY_NOT_EXIST",
    26: "PARAM_MISSING",
    41: "VALUE_TYPE_INVALID",
    42: "VALUE_SIZE",
    100: "SESSION_NOT_EXIST",
    103: "SESSION_NEW_FAIL",
    121: "SAVE_COMPLETE",
    123: "SAVE_ERROR",
    141: "LOAD_COMPLETE",
    142: "LOAD_ERROR",
    200: "CONFLICT",
    201: "LIMIT_EXCEEDED",
    202: "NOT_DURABLE",
    1000: "UNKNOWN",
}

# name: required parameters, optional ones, members of the reply beside `st` and `m`
_SHARED = {
    "SET": ("keys", "", ""),
    "ADD": ("keys", "", ""),
    "GET": ("keys", "", "keys"),
    "RMV": ("keys", "", ""),
    "CONTAINS": ("keys", "", "contains"),
    "COUNT": ("", "", "cnt"),
    "KEYS": ("", "", "keys"),
    "CLEAR": ("", "", "cnt"),
    "CLEAR_SET": ("keys", "", "cnt"),
    "FIND": ("path rsp", "keys", "keys | paths | keys"),
    "UPDATE": ("key path value", "", "cnt"),
    "ARR_APPEND": ("key items", "name", ""),
}
PARAMETERS = {
    "SH_NEW": ("", "expiry", "tkn"),
    "SH_END": ("tkn", "", "tkn"),
    "SH_END_ALL": ("", "", "cnt"),
    "SH_EXISTS": ("tkns", "", "exist"),
    "SH_INFO": ("tkn", "", "tkn keyCnt shared expires expiry"),
    "SH_INFO_ALL": ("", "", "totalSessions totalKeys"),
    "SH_SAVE": ("name", "tkns", "name sessions keys duration"),
    "SH_LOAD": ("name", "", "name sessions keys"),
    "KV_SAVE": ("name", "", "name keys duration"),
    "KV_LOAD": ("name", "", "name keys duration"),
    "SV_INFO": ("", "", "serverVersion persistEnabled protocol limits features stats"),
    **{f"KV_{name}": row for name, row in _SHARED.items()},
    **{f"SH_{name}": (f"tkn {row[0]}", *row[1:]) for name, row in _SHARED.items()},
}

ON_GET = {"SH_GET"}
ON_SET_ADD = {"SH_SET", "SH_ADD", "SH_CLEAR_SET", "SH_UPDATE", "SH_ARR_APPEND"}
READING = {
    "SH_EXISTS", "SH_INFO", "SH_INFO_ALL", "SH_SAVE", "KV_SAVE", "SV_INFO",
    "SH_GET", "SH_CONTAINS", "SH_COUNT", "SH_KEYS", "SH_FIND",
    "KV_GET", "KV_CONTAINS", "KV_COUNT", "KV_KEYS", "KV_FIND",
}  # fmt: skip


def test_the_status_values_are_those_of_the_protocol() -> None:
    assert {status.value: status.name for status in Status} == STATUSES


def test_every_status_says_what_it_means() -> None:
    meanings = [status.meaning for status in Status]
    assert all(meanings)
    assert len(set(meanings)) == len(meanings)


def test_three_statuses_are_success() -> None:
    assert {1, 121, 141} == SUCCESS


def test_the_commands_are_those_of_the_protocol() -> None:
    assert COMMANDS.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_row_has_the_name_it_is_found_under(name: str) -> None:
    command = COMMANDS[name]
    assert (command.name, command.reply_name) == (name, f"{name}_RSP")
    assert command.summary.endswith(".")


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_command_has_the_parameters_of_the_protocol(name: str) -> None:
    required, optional, _ = PARAMETERS[name]
    fields = msgspec.structs.fields(COMMANDS[name].params)
    assert {field.name for field in fields if field.required} == {*required.split()}
    assert {field.name for field in fields if not field.required} == {*optional.split()}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_reply_has_the_members_of_the_protocol(name: str) -> None:
    members = [{*get_type_hints(reply)} - {"st", "m"} for reply in COMMANDS[name].replies]
    assert members == [{*form.split()} for form in PARAMETERS[name][2].split("|")]


def _extending(how: Extends) -> set[str]:
    return {command.name for command in COMMANDS.values() if command.extends is how}


def test_the_commands_that_extend_a_session_are_those_of_the_protocol() -> None:
    assert _extending(Extends.ON_GET) == ON_GET
    assert _extending(Extends.ON_SET_ADD) == ON_SET_ADD


def test_the_commands_that_change_the_store_are_told_from_those_that_read() -> None:
    assert {command.name for command in COMMANDS.values() if not command.changes} == READING


def _answers(command: Command) -> set[int]:
    return {*command.statuses}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_can_succeed_in_one_way(command: Command) -> None:
    assert len(_answers(command) & SUCCESS) == 1


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_a_command_with_a_token_can_miss_its_session_and_no_other_can(command: Command) -> None:
    has_token = "tkn" in get_type_hints(command.params)
    assert (Status.SESSION_NOT_EXIST in _answers(command)) == has_token


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_a_command_misses_parameters_if_some_are_required(command: Command) -> None:
    required, optional, _ = PARAMETERS[command.name]
    # The one nested object, `expiry`, has a required member.
    can_miss = bool({*required.split()} - {"tkn"}) or "expiry" in optional
    assert (Status.PARAM_MISSING in _answers(command)) == can_miss


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_message_shows_what_is_in_it_to_who_prints_it(command: Command) -> None:
    for kind in (command.params, *command.replies):
        values: dict[str, Any] = {
            field.name: "hunter2-marked" for field in msgspec.structs.fields(kind)
        }
        message = kind(**values)
        assert f"{message} {message!r} {[message]}".count("hunter2-marked") == 0
        assert kind.__name__ in repr(message)
