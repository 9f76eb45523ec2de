"""The head of a request, however its bytes are cut; and what is said of one that is none."""

import re

import pytest
from ndb_server.http.responses import NO_HOST, Refusal
from ndb_server.websocket.opening import MAX_HEAD_SIZE, Opening
from websockets.http11 import Request


def read(*pieces: bytes) -> tuple[Request | Refusal | None, bytes]:
    """Return what comes of the pieces, and what is left of them."""
    opening = Opening()
    for number, piece in enumerate(pieces):
        found = opening.receive(piece)
        if found is not None:
            return found, opening.rest + b"".join(pieces[number + 1 :])
    return None, b""


def taken(sent: bytes) -> Request:
    """Return the request, after a look at what comes of its bytes in two pieces and one by one."""
    found, rest = read(sent + b"rest")
    assert isinstance(found, Request)
    assert rest == b"rest"
    assert read(*(bytes([byte]) for byte in sent)) == (found, b"")
    for at in range(1, len(sent)):
        assert read(sent[:at], sent[at:] + b"rest") == (found, rest)
    return found


def refused(sent: bytes) -> Refusal:
    found, _ = read(sent)
    assert isinstance(found, Refusal)
    assert read(*(bytes([byte]) for byte in sent))[0] == found
    return found


def test_a_request_has_a_method_a_path_headers_and_a_version() -> None:
    found = taken(b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\nX:\t2 \r\nY:\r\n\r\n")
    assert (found.method, found.path, found.protocol) == ("GET", "/a?b", "HTTP/1.1")
    assert found.headers.get_all("x") == ["1", "2"]
    assert found.headers["Y"] == ""


TAKEN = {
    "HTTP/1.0 without Host": b"GET /readyz HTTP/1.0\r\n\r\n",
    "lines that end with LF alone (RFC 9112, 2.2)": b"GET / HTTP/1.1\nHost: a\n\n",
    "an empty line before it (RFC 9112, 2.2)": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a folded header (RFC 9112, 5.2)": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n  2\r\n\r\n",
    "a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n",
    "a body in chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a method that nobody knows": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is no path": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "text beyond ASCII (RFC 9110, 5.5)": b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\xff\r\n\r\n",
}


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN.keys())
def test_what_the_standard_allows_is_taken_however_it_is_cut(sent: bytes) -> None:
    taken(sent)


def test_an_absolute_target_is_a_path_and_names_the_host() -> None:
    # RFC 9112, section 3.2.2.
    for version in (b"1.0", b"1.1"):
        head = b"GET http://B.example/x?y HTTP/%s\r\nHost: b.Example\r\n\r\n" % version
        assert taken(head).path == "/x?y"
    found = taken(b"GET http://b.example HTTP/1.0\r\n\r\n")
    assert (found.path, found.headers["Host"]) == ("/", "b.example")
    assert taken(b"GET ws://b?y HTTP/1.1\r\nHost: b\r\n\r\n").path == "/?y"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        # Java's HttpClient leaves the port out of Host alone.
        (b"http://a:80/", b"a"),
        (b"http://a/", b"a:80"),
        (b"HTTP://a:/", b"a"),
        (b"ws://[::1]:80/", b"[::1]"),
        (b"https://a:443/", b"a"),
        (b"wss://a/", b"a:443"),
    ],
)
def test_the_port_that_a_scheme_has_anyway_may_be_left_out(target: bytes, host: bytes) -> None:
    # RFC 9110, section 4.2.3.
    assert taken(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host)).path == "/"


def test_a_later_version_of_http_1_is_taken_as_the_last_one_known() -> None:
    # RFC 9110, section 2.5.
    assert taken(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n").protocol == "HTTP/1.1"


NAMED = "Host must name the same host as the target (RFC 9112, section 3.2)"
NONE = "this is not an HTTP request (RFC 9112): "
TLS = "this is TLS, but the server does not use TLS on this port; connect with ws: or http:"
PROXY = (
    "this is the PROXY protocol, which the server does not support; have the proxy add "
    "X-Forwarded-For instead, and start the server with --behind-proxy"
)
LARGE = f"the request line and the headers may have at most {MAX_HEAD_SIZE} bytes together"
REFUSED = {
    "another host in the target": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, NAMED),
    "another port in the target": (b"GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, NAMED),
    "a user in the target": (b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, NAMED),
    "a target without a host": (b"GET http:///a HTTP/1.0\r\n\r\n", 400, NAMED),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, NO_HOST.message),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, NO_HOST.message),
    "the port of another scheme": (b"GET http://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, NAMED),
    "a scheme without a port": (b"GET a://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, NAMED),
    "another version": (b"PRI * HTTP/2.0\r\n\r\n", 505, "only HTTP/1.1 and HTTP/1.0 are supported"),
    "another protocol": (b"*1\r\n$4\r\nPING\r\n", 400, f"{NONE}illegal request line"),
    "the protocol of before": (b"GET /\r\n", 400, f"{NONE}illegal request line"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, TLS),
    "HAProxy's send-proxy": (
        b"PROXY TCP4 127.0.0.1 127.0.0.1 46606 1987\r\nGET /readyz HTTP/1.0\r\n\r\n", 400, PROXY,
    ),
    "HAProxy's send-proxy of a connection it does not know": (b"PROXY UNKNOWN\r\n", 400, PROXY),
    "a header that is none": (
        b"GET / HTTP/1.1\r\nHost: a\r\nsecret\r\n\r\n", 400, f"{NONE}illegal header line",
    ),
    "a space before the colon": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX : secret\r\n\r\n", 400, f"{NONE}illegal header line",
    ),
    "a header with a control character": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7fsecret\r\n\r\n", 400, f"{NONE}illegal header line",
    ),
    "a header with a zero byte": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0secret\r\n\r\n", 400, f"{NONE}illegal header line",
    ),
    "a length that is none": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: secret\r\n\r\n", 400,
        f"{NONE}bad Content-Length",
    ),
    "two lengths": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400,
        f"{NONE}conflicting Content-Length headers",
    ),
    "a coding that is unknown": (
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: secret\r\n\r\n", 400,
        f"{NONE}Only Transfer-Encoding",
    ),
    "a first line that does not end": (b"GET /" + b"a" * MAX_HEAD_SIZE, 414, LARGE),
    "a header that does not end": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * MAX_HEAD_SIZE, 431, LARGE,
    ),
    "headers that do not end": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * MAX_HEAD_SIZE, 431, LARGE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_refused_for_its_reason_however_it_is_cut(
    sent: bytes, status: int, message: str
) -> None:
    found = refused(sent)
    assert (found.status, found.message) == (status, message)


def test_whoever_configured_the_second_proxy_protocol_is_told_so() -> None:
    # HAProxy's check with send-proxy-v2. It writes the header at once.
    found, _ = read(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /readyz HTTP/1.0\r\n\r\n")
    assert isinstance(found, Refusal)
    assert (found.status, found.message) == (400, PROXY)


def test_a_head_of_the_largest_size_is_taken() -> None:
    begin = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    head = begin + b"a" * (MAX_HEAD_SIZE - len(begin) - 4) + b"\r\n\r\n"
    assert isinstance(read(head + b"rest")[0], Request)
    assert isinstance(read(head[:-4] + b"a\r\n\r\n")[0], Refusal)


HEAD = b"GET /%s HTTP/1.1\r\nHost: a%s\r\n%sX: %s\r\nContent-Length: 0%s\r\nUpgrade%s: x\r\n%s\r\n"


@pytest.mark.parametrize("broken", [b"\0", b"\x7f\xff", b" ", b"\n", b"\r", b":", b"@", b"\\"])
def test_what_was_sent_is_never_repeated(broken: bytes) -> None:
    places = HEAD.count(b"%s")
    for place in range(places):
        fills = [
            broken + b"s3cret" + broken if number == place else b"" for number in range(places)
        ]
        found, _ = read(HEAD % tuple(fills) + b"\r\n")
        assert found is not None
        if isinstance(found, Refusal):
            assert not re.search("s3cret", f"{found}")
