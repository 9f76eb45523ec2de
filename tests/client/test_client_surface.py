"""What the clients offer."""

import inspect
from typing import Any

import ndb
import pytest
from ndb import KvClient, NdbClient, SessionClient, client, kvclient, sessionclient
from ndb_protocol import COMMANDS

NDB_NAMES = {
    "SH_NEW": "sh_create",
    "SH_EXISTS": "sh_session_exists",
}
SESSION_NAMES = {
    "SH_NEW": "create_session",
    "SH_END": "end_session",
    "SH_END_ALL": "end_all_sessions",
    "SH_EXISTS": "session_exists",
    "SH_INFO": "session_info",
    "SH_INFO_ALL": "session_info_all",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_method(command: str) -> None:
    clients: list[tuple[type[Any], str]] = [
        (NdbClient, NDB_NAMES.get(command, command.lower())),
    ]
    prefix, _, name = command.partition("_")
    if prefix == "SV":
        clients += [(SessionClient, "server_info"), (KvClient, "server_info")]
    elif prefix == "SH":
        clients.append((SessionClient, SESSION_NAMES.get(command, name.lower())))
    else:
        clients.append((KvClient, name.lower()))
    for cls, method in clients:
        assert inspect.iscoroutinefunction(getattr(cls, method)), (cls, method)


@pytest.mark.parametrize("cls", [SessionClient, KvClient, NdbClient])
def test_every_method_takes_a_timeout_and_is_documented(cls: type[Any]) -> None:
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_") or name == "close":
            continue
        parameter = inspect.signature(method).parameters["timeout"]
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
        assert parameter.default is None, name
        assert method.__doc__, name


@pytest.mark.parametrize("cls", [KvClient, NdbClient])
def test_every_client_is_made_with_the_same_arguments(cls: type[Any]) -> None:
    parameters = dict(inspect.signature(cls).parameters)
    parameters.pop("debug", None)
    others = inspect.signature(SessionClient).parameters
    assert list(parameters) == list(others)
    for name, parameter in parameters.items():
        assert parameter.default == others[name].default, name
        assert parameter.annotation == others[name].annotation, name


def test_the_modules_export_what_programs_import_from_them() -> None:
    for module in (sessionclient, client):
        assert module.Session is ndb.Session
    for module_with_errors in (sessionclient, kvclient, client):
        assert module_with_errors.ResponseError is ndb.ResponseError
        assert module_with_errors.NdbException is ndb.NdbException
    assert set(ndb.__all__) <= set(dir(ndb))


def test_aliases_are_the_same_method() -> None:
    assert SessionClient.sh_create_session is SessionClient.create_session
    assert NdbClient.sh_create_session is NdbClient.sh_create


def test_every_exception_of_the_client_is_an_ndb_exception() -> None:
    names = [name for name in ndb.__all__ if inspect.isclass(getattr(ndb, name))]
    errors = [getattr(ndb, name) for name in names if issubclass(getattr(ndb, name), Exception)]
    assert len(errors) == 8
    assert all(issubclass(error, ndb.NdbException) for error in errors)
    assert issubclass(ndb.ConnectError, ConnectionError)
    assert issubclass(ndb.ConnectionLost, ConnectionError)
    assert issubclass(ndb.RequestTimeout, TimeoutError)
