"""What a server process makes of the bytes that clients send, proper ones and others."""

import socket
import ssl

import pytest
from websockets.frames import Opcode

from tests.support.raw_client import Wire, close, frame, handshake, header, opened, text
from tests.support.server_process import Server
from tests.support.waiting import BOUND, until
from tests.support.websocket_exchanges import ANSWERED, BROKEN, COUNT, COUNTED

LIMIT = 4 * 2**20
REASON = f"frame with {LIMIT + 1} bytes exceeds limit of {LIMIT} bytes"


def answers(server: Server) -> None:
    """See that the server still does what it should."""
    with opened(server.port) as client:
        assert client.request("SV_INFO")["st"] == 1


def test_exchanges_end_as_they_should(server: Server) -> None:
    for exchange in [*ANSWERED, *BROKEN]:
        with opened(server.port) as client:
            client.request("KV_CLEAR")
            client.send(exchange.sent)
            assert client.rest() == exchange.received, exchange.name


def test_a_handshake_may_come_byte_by_byte(server: Server) -> None:
    with Wire(server.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in handshake():
            client.send(bytes([byte]))
        assert client.head()[0] == 101
        assert client.request("KV_COUNT") == {"st": 1, "cnt": 0}


def test_frames_may_come_with_the_handshake(server: Server) -> None:
    with Wire(server.port) as client:
        client.send(handshake() + COUNT + frame(Opcode.PING, b"1") + COUNT + close())
        assert client.head()[0] == 101
        assert client.rest() == [COUNTED, b"1", COUNTED, (1000, "")]


REFUSED = {
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n": 426,
    handshake(start="POST / HTTP/1.1"): 405,
    handshake(Sec_WebSocket_Version="8"): 426,
    b"GET /" + b"a" * 20_000: 414,
}


def test_a_handshake_that_is_none_is_told_why(server: Server) -> None:
    for sent, status in REFUSED.items():
        with Wire(server.port) as client:
            client.send(sent)
            found, headers = client.head()
            assert found == status
            body = b""
            while data := client.socket.recv(2**16):
                body += data
            assert len(body) == int(headers["Content-Length"])
    answers(server)


def test_who_speaks_tls_is_told_in_the_log_that_there_is_none(server: Server) -> None:
    context = ssl.create_default_context()
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, BOUND) as client, pytest.raises(ssl.SSLError):
        context.wrap_socket(client, server_hostname="localhost")
    until(lambda: "this is TLS, but the server does not use TLS on this port" in server.stderr)
    answers(server)


SELECTED = {
    None: None,
    "ndb.v1": "ndb.v1",
    "ndb.v1.text": "ndb.v1.text",
    "chat": None,
    "chat, ndb.v1.text, ndb.v1": "ndb.v1.text",
}


def test_the_subprotocol_decides_on_the_form_of_tokens(server: Server) -> None:
    for offered, selected in SELECTED.items():
        with Wire(server.port) as client:
            headers = client.upgrade(offered)
            assert headers.get("Sec-WebSocket-Protocol") == selected
            tkn = client.request("SH_NEW")["tkn"]
            assert type(tkn) is (str if selected == "ndb.v1.text" else int)
            # Requests may have it in either form.
            for form in (str(tkn), int(tkn)):
                assert client.request("SH_INFO", tkn=form)["tkn"] == tkn
                assert client.request("SH_EXISTS", tkns=[form])["exist"] == [tkn]


def test_a_message_over_the_limit_is_refused_even_to_who_sends_all_of_it(server: Server) -> None:
    with opened(server.port) as client:
        client.send(COUNT + text("x" * (LIMIT + 1)))
        assert client.rest() == [COUNTED, (1009, REASON)]


def test_a_message_over_the_limit_is_refused_for_its_length_alone(server: Server) -> None:
    with opened(server.port) as client:
        client.send(COUNT + header(0x81, LIMIT + 1))
        assert client.rest() == [COUNTED, (1009, REASON)]


def test_the_sum_of_fragments_is_limited(server: Server) -> None:
    fragment = bytes(2**20)
    with opened(server.port) as client:
        client.send(frame(Opcode.TEXT, fragment, fin=False))
        for _ in range(4):
            client.send(frame(Opcode.CONT, fragment, fin=False))
        assert client.rest() == [
            (
                1009,
                "frame with 1048576 bytes after reading 4194304 bytes exceeds limit of "
                "4194304 bytes",
            )
        ]


def test_a_client_that_ends_its_side_is_answered_first(server: Server) -> None:
    with opened(server.port) as client:
        client.send(COUNT * 100)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == [COUNTED] * 100


PARTING = {
    "in the handshake": handshake()[:40],
    "in a header": handshake() + COUNT[:3],
    "in a payload": handshake() + header(0x81, 1_000_000) + bytes(1000),
    "among fragments": handshake() + frame(Opcode.TEXT, b"{", fin=False),
    "before its replies": handshake() + COUNT * 1000,
    "after its close frame": handshake() + COUNT * 1000 + close(),
}


def test_a_client_that_is_killed_disturbs_nobody(server: Server) -> None:
    with opened(server.port) as witness:
        for when, sent in PARTING.items():
            for _ in range(5):
                client = Wire(server.port)
                client.send(sent)
                client.until_arrived()
                client.reset()
            assert witness.request("KV_COUNT") == {"st": 1, "cnt": 0}, when
    answers(server)
