"""Who is at the other end of a connection, as counts and logs know it."""

import asyncio
import os
import socket

import pytest
from ndb_server.websocket.peer import Peer, peer_of


async def at_the_other_end_of(one: socket.socket) -> Peer:
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, one)
    try:
        return peer_of(transport)
    finally:
        transport.abort()
        await asyncio.sleep(0)


async def test_a_client_of_tcp_is_its_address_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.connect(listening.getsockname())
        peer = await at_the_other_end_of(listening.accept()[0])
        assert peer == ("127.0.0.1", f"port {client.getsockname()[1]}")
        assert str(peer) == f"127.0.0.1 port {client.getsockname()[1]}"


def test_an_ipv4_address_on_a_socket_of_both_families_is_shown_as_one() -> None:
    assert str(Peer("::ffff:192.0.2.7", "port 5")) == "192.0.2.7 port 5"
    assert str(Peer("2001:db8::1", "port 5")) == "2001:db8::1 port 5"
    assert str(Peer()) == "nowhere"


async def test_a_client_of_a_unix_socket_is_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for shown in (f"uid {os.getuid()} pid {os.getpid()}", "unix socket"):
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours:
            assert str(await at_the_other_end_of(theirs)) == shown
        # Not every system tells.
        monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
