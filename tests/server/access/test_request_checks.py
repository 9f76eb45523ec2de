"""What a handshake says of who asks: pure, case by case."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb_protocol.authority import parse_host
from ndb_server.access.request_checks import (
    SentCredentials,
    check_host,
    check_origin,
    forwarded_for,
    parse_origin,
    sent_credentials,
)
from websockets.datastructures import Headers
from websockets.http11 import Request

header_values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


def request(**headers: str) -> Request:
    return Request("/", Headers({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://app.example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:80", "http://[::1]"),
        ("HTTP://App.Example:8080", "http://app.example:8080"),
        ("moz-extension://abc", "moz-extension://abc"),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(text: str, expected: str) -> None:
    assert parse_origin(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "null", "", "*", "app.example", "https://", "https://app.example/", "https://a/b",
        "https://a?b", "https://user@app.example", "https://a:x", "https://a:99999", "//a",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example:80", "a.example"),
        ("A.Example.", "a.example"),
        ("[::1]:80", "::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_host_is_taken_without_its_port(text: str, expected: str) -> None:
    assert parse_host(text) == expected


@given(header_values)
def test_any_host_is_refused_or_a_host(text: str) -> None:
    refusal = check_host(request(Host=text), frozenset())
    assert refusal is None or refusal.cause == "host"


@given(header_values)
def test_any_origin_but_an_allowed_one_is_refused(text: str) -> None:
    refusal = check_origin(request(Origin=text), {"https://app.example"})
    assert (refusal is None) == (text == "https://app.example")


def test_a_program_has_no_origin() -> None:
    assert check_origin(request(), frozenset()) is None


@given(header_values | header_values.map("Basic ".__add__))
def test_any_authorization_is_an_offer_or_nothing(text: str) -> None:
    found = sent_credentials(request(Authorization=text))
    assert found is None or isinstance(found, SentCredentials)


@given(st.text(max_size=10).filter(lambda name: ":" not in name), st.text(max_size=10))
def test_names_and_secrets_come_as_they_were_sent(name: str, secret: str) -> None:
    encoded = base64.b64encode(f"{name}:{secret}".encode()).decode()
    assert sent_credentials(request(Authorization=f"Basic {encoded}")) == SentCredentials(
        name, secret
    )


def test_a_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(SentCredentials("web", "s3cret"))
    assert "s3cret" not in f"{SentCredentials(None, 's3cret')}"


def test_the_proxy_says_the_last_address() -> None:
    assert forwarded_for(request(X_Forwarded_For="192.0.2.1, 192.0.2.2")) == "192.0.2.2"
    assert forwarded_for(request(X_Forwarded_For="192.0.2.1, evil")) is None
    assert forwarded_for(request()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:DB8:0::1]:4711", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:1", "fe80::1"),
        ("192.0.2.1:99999", None),
        ("192.0.2.1%s3cret", None),
        ("192.0.2.1%41", None),
        ("fe80::1%s3cret through 127.0.0.1", None),
        ("fe80::1%", None),
        ("[fe80::1%s3cret s3cret]", None),
        ("unknown", None),
        ("_hidden", None),
        ('"[2001:db8::1]"', None),
        ("for=192.0.2.1", None),
        ("192.0.2.1,", None),
        ("", None),
    ],
)
def test_what_a_proxy_says_is_an_address_as_logs_show_it_or_nothing(
    text: str, expected: str | None
) -> None:
    assert forwarded_for(request(X_Forwarded_For=text)) == expected


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1%2eevil.example",
        "127.0.0.1%41",
        "127.0.0.1.evil.example",
        "localhost%2eevil.example",
    ],
)
def test_what_begins_with_an_address_is_none(host: str) -> None:
    refusal = check_host(request(Host=host), frozenset())
    assert refusal is not None
    assert refusal.status == 403
