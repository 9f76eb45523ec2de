"""The two echoes that the Autobahn test suite is run against."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from websockets.frames import Opcode

from tests.support.project_sources import ROOT
from tests.support.raw_client import Wire, close, frame, handshake, opened
from tests.support.waiting import BOUND


@pytest.fixture(params=[(), ("--plain",)], ids=["ours", "plain"])
def echo(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Yield a connection to an echo in a process of its own."""
    command = [sys.executable, "-m", "tests.autobahn.echo", "0", *request.param]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline()
            with opened(int(url.strip().strip("/").rpartition(":")[2])) as wire:
                yield wire
        finally:
            process.kill()
            process.wait(BOUND)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("size", [0, 5, 65536])
def test_an_echo_sends_back_messages_as_they_are(echo: Wire, opcode: Opcode, size: int) -> None:
    message = b"e" * size
    echo.send(frame(opcode, message[:2], fin=False) + frame(Opcode.CONT, message[2:]))
    echo.send(frame(opcode, message))
    for _ in range(2):
        received = echo.frame()
        assert (received.opcode, bytes(received.data)) == (opcode, message)
    # Not sooner: the plain one answers nothing once it has been told to close.
    echo.send(close())
    assert echo.rest() == [(1000, "")]


def test_an_echo_takes_no_offer_of_compression(echo: Wire) -> None:
    with Wire(echo.socket.getpeername()[1]) as other:
        other.send(handshake(Sec_WebSocket_Extensions="permessage-deflate"))
        status, headers = other.head()
        assert status == 101
        assert "Sec-WebSocket-Extensions" not in headers
