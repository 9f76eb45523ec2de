"""Where servers are, and the credentials they are shown."""

import ssl
from base64 import b64decode
from typing import Any

import pytest
from ndb import SessionClient
from ndb.servers import Credentials, parse_servers

SECRET = "hunter2-marked"
HERE = "ws://127.0.0.1:1987/"


def shown(uri: str, credentials: Credentials | None = None) -> tuple[str, str]:
    """Return the scheme and the value of the header, decoded if it is encoded."""
    [server] = parse_servers(uri, credentials, None)
    assert server.authorization is not None
    scheme, value = server.authorization.split(" ")
    return scheme, b64decode(value).decode() if scheme == "Basic" else value


def test_a_server_is_its_host_and_port() -> None:
    [server] = parse_servers("wss://Example.org/?a=b", None, None)
    assert str(server) == "example.org:443"
    assert (server.address.secure, server.address.resource_name) == (True, "/?a=b")
    assert server.authorization is None


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("ws://[::1]:1987/", "[::1]:1987"),
        ("ws://bücher.example:1987/", "xn--bcher-kva.example:1987"),
        ("ws://a:b@c@host:1/%40", "host:1"),
    ],
)
def test_a_server_is_shown_as_uris_have_it(uri: str, server: str) -> None:
    [found] = parse_servers(uri, None, None)
    assert str(found) == server


def test_several_uris_are_several_servers_in_their_order() -> None:
    servers = parse_servers(("ws://b:2/", "ws://a:1/"), None, None)
    assert list(map(str, servers)) == ["b:2", "a:1"]


@pytest.mark.parametrize("uris", [None, "", [], [""], ["ws://a/", ""]])
def test_no_uri_is_a_value_error(uris: Any) -> None:
    with pytest.raises(ValueError, match="no URI; use ws://HOST:PORT/"):
        parse_servers(uris, None, None)


def test_credentials_come_from_the_uri_or_from_an_argument() -> None:
    assert shown(f"ws://ada:{SECRET}@host/") == ("Basic", f"ada:{SECRET}")
    assert shown("ws://a%20b:c%2Fd%3A@host/") == ("Basic", "a b:c/d:")
    assert shown("ws://ada:@host/") == ("Basic", "ada:")
    assert shown(f"ws+unix://ada:{SECRET}@/run/ndb.sock") == ("Basic", f"ada:{SECRET}")
    assert shown(HERE, ("ada", "ö:/")) == ("Basic", "ada:ö:/")
    assert shown(HERE, "abc-._~+/09==") == ("Bearer", "abc-._~+/09==")


def test_credentials_are_shown_to_every_server() -> None:
    servers = parse_servers(["ws://a/", "ws://b/"], ("ada", SECRET), None)
    assert len({server.authorization for server in servers}) == 1


@pytest.mark.parametrize(
    ("uri", "path", "asked"),
    [
        ("ws+unix:///run/ndb/ndb.sock", "/run/ndb/ndb.sock", "/"),
        ("WS+Unix:///run/ndb.sock:", "/run/ndb.sock", "/"),
        ("ws+unix:///run/ndb.sock:/a/b?c=d", "/run/ndb.sock", "/a/b?c=d"),
        ("ws+unix:///run/ndb.sock?c=d", "/run/ndb.sock", "/?c=d"),
        ("ws+unix:///run/a%20b%3Ac%25.sock:/x:y", "/run/a b:c%.sock", "/x:y"),
        ("ws+unix:///run/%C3%A9", "/run/é", "/"),
        ("ws+unix:///run/%E9", "/run/\udce9", "/"),
        ("ws+unix:///run/é", "/run/é", "/"),
    ],
)
def test_a_unix_socket_is_its_path(uri: str, path: str, asked: str) -> None:
    [server] = parse_servers(uri, None, None)
    assert str(server) == server.path == path
    assert (server.address.secure, server.address.resource_name) == (False, asked)
    # The Host header is that.
    assert (server.address.host, server.address.port) == ("localhost", 80)


@pytest.mark.parametrize(
    "uri",
    [
        "ws+unix:/run/ndb.sock",
        "ws+unix:ndb.sock",
        "ws+unix://",
        "ws+unix://run/ndb.sock",
        f"ws+unix://ada:{SECRET}/x@/run/ndb.sock",
        f"ws+unix://{SECRET}/ndb.sock",
        "ws+unix:///run/ndb.sock:path",
        "ws+unix:///run/ndb.sock:@evil/",
    ],
)
def test_what_is_no_absolute_path_of_a_unix_socket_is_a_value_error(uri: str) -> None:
    with pytest.raises(
        ValueError, match=r"must have an absolute path .*use ws\+unix:///PATH"
    ) as error:
        parse_servers(uri, None, None)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ws+unix:///", "names no file"),
        ("ws+unix:///run/", "names no file"),
        ("ws+unix:///run/a%00b", "names no file"),
        ("ws+unix:///run/ndb.sock#part", "fragment identifier is meaningless"),
        (f"ws+unix:///{'x' * 107}", "at most 107 bytes"),
        (f"ws+unix:///{'é' * 60}", "at most 107 bytes"),
        ("wss+unix:///run/ndb.sock", "scheme isn't ws or wss; use .* or ws\\+unix:///PATH"),
    ],
)
def test_a_unix_socket_that_can_not_be_is_a_value_error(uri: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_servers(uri, None, None)


@pytest.mark.parametrize(
    ("uri", "credentials", "said"),
    [
        (f"ws://ada:{SECRET}@host/", ("ada", SECRET), "both in a URI and as an argument"),
        (f"ws://ada:{SECRET}@host/#part", None, "fragment identifier is meaningless"),
        (f"http://ada:{SECRET}@host/", None, "scheme isn't ws or wss"),
        (f"ws://{SECRET}@host/", None, "username provided without password"),
        # What stands behind a slash is the path, and then the secret is the port.
        (f"ws://ada:{SECRET}/x@host/", None, "host, port or credentials are wrong"),
        *(
            (f"ws://ada:p{SECRET}@{SECRET}{end}word@host/", None, "an @ follows the host: .*%40")
            for end in "/?"
        ),
        (f"ws://ada:p@{SECRET}#word@host/", None, "fragment identifier is meaningless"),
        (f"ws://ada:{SECRET}@ho\nst/", None, "a space or a control character"),
        (f"ws://ada:{SECRET}@host/a b", None, "a space or a control character"),
        (f"ws+unix://ada:{SECRET}@/run/a b", None, "a space or a control character"),
        (f"ws://ada:{SECRET}@host:0/", None, "0 is not a valid port"),
        (f"ws://ada:{SECRET}@[::1].evil.example/", None, "host or port is wrong"),
        (f"ws://ada:{SECRET}@evil[::1]/", None, "host or port is wrong|credentials are wrong"),
        (f"ws://ada:{SECRET}@ho<st/", None, "host or port is wrong"),
        (f"ws://ada:{SECRET}%ff@host/", None, "host, port or credentials are wrong"),
        (f"ws://ada:{SECRET}@[::1/", None, "host, port or credentials are wrong"),
        (f"ws://ada:{SECRET}@host:99999/", None, "port out of range"),
        (f"ws://a%3Ab:{SECRET}@host/", None, "empty or contains a colon"),
        (f"ws://:{SECRET}@host/", None, "empty or contains a colon"),
        (HERE, ("a:b", SECRET), "empty or contains a colon"),
        (HERE, ("", SECRET), "empty or contains a colon"),
        (HERE, f"{SECRET} more", "a bearer token can't have"),
        (HERE, f"{SECRET}\r\nHost: evil", "a bearer token can't have"),
        (HERE, f"{SECRET}\n", "a bearer token can't have"),
        (HERE, "", "a bearer token can't have"),
    ],
)
async def test_what_can_not_be_sent_is_a_value_error_that_does_not_show_it(
    uri: str, credentials: Credentials | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        await SessionClient(uri, credentials=credentials).open()
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "credentials", [SECRET.encode(), ("ada", SECRET, ""), (SECRET,), ("ada", 5), {"ada": SECRET}]
)
def test_credentials_of_another_form_are_a_type_error_that_does_not_show_them(
    credentials: Any,
) -> None:
    with pytest.raises(TypeError, match="tuple of a name and its secret, or a token") as refusal:
        parse_servers(HERE, credentials, None)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("uris", [HERE, ["wss://a/", HERE], "ws+unix:///run/ndb.sock"])
def test_tls_settings_for_a_connection_without_tls_are_a_value_error(uris: str | list[str]) -> None:
    with pytest.raises(ValueError, match="not encrypted; use wss://"):
        parse_servers(uris, None, ssl.create_default_context())


def test_nothing_that_is_printed_shows_credentials() -> None:
    [server] = parse_servers(f"ws://ada:{SECRET}@host/", None, None)
    client = SessionClient(f"ws://ada:{SECRET}@host/")
    bearer = SessionClient(HERE, credentials=SECRET)
    for shown in (server, server.address, client, bearer):
        assert SECRET not in f"{shown} {shown!r}"
