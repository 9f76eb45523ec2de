"""Many sessions in a server, fast: raw frames and commands, many in flight."""

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .peers import Peer

IN_FLIGHT = 1000

_TOKEN = re.compile(rb'"tkn": ?(\d+)')
_OK = re.compile(rb'"st": ?1}')
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

Expiry = Callable[[int], int]
"""The duration in seconds of the session of that number; 0 = never expires."""


def never(_: int) -> int:
    return 0


def values(number: int) -> str:
    """Return the four small keys of a session; the load generator asks for `a` and `b`."""
    return (
        f'"a":"value-a-{number % 1000000:06}","b":{100000 + number % 800000},'
        f'"c":"value-c-{number % 1000000:06}","d":true'
    )


def frame(text: str) -> bytes:
    # Masked with zeros: the payload is its own masked form.
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return b"\x81%c\0\0\0\0%b" % (0x80 | size, payload)
    return b"\x81\xfe%b\0\0\0\0%b" % (size.to_bytes(2), payload)


def _exchange(connection: socket.socket, requests: Sequence[bytes], end: bytes) -> bytes:
    """Send `requests` at once and return all replies; each has `end` once, at its end."""
    connection.sendall(b"".join(requests))
    replies = b""
    while replies.count(end) < len(requests):
        received = connection.recv(2**20)
        if not received:
            raise ConnectionError("the server closed the connection")
        replies += received
    return replies


def _parts(count: int) -> Iterator[range]:
    for begin in range(0, count, IN_FLIGHT):
        yield range(begin, min(begin + IN_FLIGHT, count))


def fill(peer: Peer, count: int, duration: Expiry = never, settings: str = "") -> list[int]:
    """Make `count` sessions of four small keys and return their tokens.

    Args:
        peer: where.
        count: how many.
        duration: how long each lives, asked when it is made.
        settings: further members of `expiry`, as JSON text beginning with a comma.
    """
    with socket.create_connection(("127.0.0.1", peer.port)) as connection:
        if peer.wire == "resp":
            return _fill_redis(connection, count, duration)
        connection.sendall(HANDSHAKE)
        if b" 101 " not in connection.recv(2**16):
            raise ConnectionError("the server refused the handshake")
        return _fill_ndb(connection, count, duration, settings)


@contextmanager
def saving(peer: Peer) -> Iterator[None]:
    """Have all sessions saved meanwhile."""
    with socket.create_connection(("127.0.0.1", peer.port)) as connection:
        connection.sendall(HANDSHAKE)
        connection.recv(2**16)
        connection.sendall(frame('{"SH_SAVE":{"name":"bench"}}'))
        yield
        if b'"st":121' not in connection.recv(2**16):
            raise RuntimeError("the server refused to save")


def _fill_ndb(connection: socket.socket, count: int, duration: Expiry, settings: str) -> list[int]:
    tokens: list[int] = []
    for part in _parts(count):
        requests = []
        for number in part:
            seconds = duration(number)
            expiry = f'"expiry":{{"duration":{seconds}{settings}}}' if seconds else ""
            requests.append(frame(f'{{"SH_NEW":{{{expiry}}}}}'))
        new = [int(token) for token in _TOKEN.findall(_exchange(connection, requests, b"}}"))]
        sets = [
            frame(f'{{"SH_SET":{{"tkn":{token},"keys":{{{values(number)}}}}}}}')
            for number, token in zip(part, new, strict=True)
        ]
        if len(_OK.findall(_exchange(connection, sets, b"}}"))) != len(sets):
            raise RuntimeError("the server refused to set keys")
        tokens += new
    return tokens


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(
        b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words
    )


def _fill_redis(connection: socket.socket, count: int, duration: Expiry) -> list[int]:
    # The load generator's keys without a file of tokens.
    tokens = [1234567890123456789 + number * 7919 for number in range(count)]
    for part in _parts(count):
        requests = []
        for number in part:
            key = f"sess:{tokens[number]}"
            fields = ("a", f"value-a-{number % 1000000:06}", "b", f"{100000 + number % 800000}")
            more = ("c", f"value-c-{number % 1000000:06}", "d", "true")
            requests.append(_command("HSET", key, *fields, *more))
            if seconds := duration(number):
                requests.append(_command("EXPIRE", key, str(seconds)))
        _exchange(connection, requests, b"\r\n")
    return tokens
