"""What a server answers to an opening handshake: a refusal, or an open connection."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.raw_client import Wire, handshake

ENDED = (ConnectionError, ssl.SSLError, AssertionError)
"""What `Wire` raises where the server ends the connection."""


class Answer(dict[str, str]):
    """An HTTP answer: its headers, its status and its body."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        super().__init__(headers)
        self.status = status
        self.body = body


def answer(port: int, host: str = "127.0.0.1", **headers: str) -> Answer:
    """Return the answer to an opening handshake with these headers, to its end if it refuses."""
    with Wire(port, host) as wire:
        wire.send(handshake(None, **headers))
        return answered(wire)


def answered(wire: Wire) -> Answer:
    """Return the answer to what was sent, to its end if it refuses."""
    status, headers = wire.head()
    body = b""
    while len(body) < int(headers.get("Content-Length", "0")):
        body += wire.socket.recv(4096)
    return Answer(status, headers, body.decode())


@contextmanager
def admitted(port: int | Path, secret: str) -> Iterator[Wire]:
    """Yield an open connection of whoever has `secret`."""
    with Wire(port) as wire:
        wire.send(handshake(Authorization=f"Bearer {secret}"))
        assert wire.head()[0] == 101
        yield wire


@contextmanager
def encrypted(port: int, context: ssl.SSLContext) -> Iterator[Wire]:
    """Yield an open WebSocket connection over TLS."""
    with Wire(port) as wire:
        wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
        wire.upgrade()
        yield wire
