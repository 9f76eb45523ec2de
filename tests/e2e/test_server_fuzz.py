"""Messages that nobody would send, many of them: each is answered, or the connection is closed."""

import json
import random
import re
import socket
from collections.abc import Iterator

from ndb_protocol import COMMANDS, Status
from ndb_protocol.vectors import Exchange, load_vectors
from websockets.frames import Close, Opcode

from tests.support.process_memory import resident_bytes
from tests.support.raw_client import Frames, frame, handshake, opened, text
from tests.support.rounds import SEED, rounds
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND

BATCH = 500

TOKENS = 4
SEEDS = [
    re.sub(r"\{\{tkn(\d)\}\}", r"\g<1>", step.send)
    for vector in load_vectors()
    for step in vector.steps
    if isinstance(step, Exchange) and len(step.send) < 5000
]
WORDS = [
    *'{}[]:,"\\/ \t\n\0-+.eE0189$@?*&|!()',
    *("true", "false", "null", "NaN", "1e999", "-0", "1E400", "9" * 400, "18446744073709551615"),
    *('"tkn":', '"keys":', '"path":', '"rsp":"paths"', '"value":', '"items":[', '"expiry":{'),
    *(r"\u0000", r"\ud800", r"\udfff\ud800", "\u2028", "🙂", "\ufeff", "é", "\x7f"),
    *("$..*", "$[?@.a]", "$[?match(@,'(a|aa)+b')]", "[?count(@..*)>1]", "[::-1]", "[" * 600),
    *COMMANDS,
]


def mutated(chance: random.Random, tokens: list[int]) -> str:
    """Return a message like one that is sent, with some things changed."""
    message = chance.choice(SEEDS)
    for number, token in enumerate(tokens, 1):
        message = message.replace(f'"tkn":{number}', f'"tkn":{token}')
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randint(0, len(message))
        end = min(len(message), at + chance.choice((0, 0, 1, 2, 10, 100)))
        match chance.randrange(5):
            case 0:
                new = chance.choice(WORDS)
            case 1:
                new = message[at:end] * 2
            case 2:
                new = ""
            case 3:
                other = chance.choice(SEEDS)
                begin = chance.randint(0, len(other))
                new = other[begin : begin + chance.randint(0, 40)]
            case _:
                new = chr(chance.choice((chance.randrange(128), chance.randrange(0xD800))))
        message = message[:at] + new + message[end:]
    return message


def changed(chance: random.Random, data: bytes) -> bytes:
    """Return `data` with some bytes changed."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(found))
        match chance.randrange(4):
            case 0:
                found[at] = chance.randrange(256)
            case 1:
                del found[at : at + chance.randrange(20)]
            case 2:
                found[at:at] = chance.randbytes(chance.randrange(10))
            case _:
                found[at] ^= 1 << chance.randrange(8)
        if not found:
            return b"\0"
    return bytes(found)


def from_anywhere(port: int, number: int) -> socket.socket:
    """Connect as another client each time, so that none is slowed down for what others guessed."""
    source = f"127.{1 + number // 65536 % 250}.{number // 256 % 256}.{number % 256}"
    return socket.create_connection(("127.0.0.1", port), BOUND, source_address=(source, 0))


def texts(connection: socket.socket, count: int) -> Iterator[bytes]:
    """Yield the payloads of as many text frames; quicker than what reads any frame."""
    data = b""
    for _ in range(count):
        while len(data) < 2 or len(data) < (size := extent(data))[1]:
            piece = connection.recv(2**18)
            assert piece, "the server ended the connection"
            data += piece
        assert data[0] == 0x81
        begin, end = size
        yield data[begin:end]
        data = data[end:]


def extent(data: bytes) -> tuple[int, int]:
    """Return where the payload of an unmasked frame begins, and where it ends."""
    length, begin = data[1], 2
    if length > 125:
        wide = 2 if length == 126 else 8
        begin += wide
        if len(data) < begin:
            return begin, begin
        length = int.from_bytes(data[2:begin])
    return begin, begin + length


NAMES = {"ERR", *(command.reply_name for command in COMMANDS.values())}
STATUSES = {*Status} - {Status.UNKNOWN}
_REPLY = re.compile(rb'\{"(\w+)":\{"st":(\d+)[,}]')


def open_from(server: Server, number: int, sent: bytes = b"") -> socket.socket:
    """Return a connection whose handshake is answered."""
    connection = from_anywhere(server.port, number)
    connection.sendall(handshake() + sent)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return connection


def messages(server: Server, chance: random.Random, number: int) -> int:
    """Send messages; see that each has its one reply."""
    with opened(server.port) as client:
        tokens = [client.request("SH_NEW")["tkn"] for _ in range(TOKENS)]
        sent = [mutated(chance, tokens) for _ in range(BATCH)]
        with open_from(server, number) as connection:
            connection.sendall(b"".join(map(text, sent)))
            # Others are served meanwhile.
            assert client.request("KV_COUNT")["st"] == 1
            for message, reply in zip(sent, texts(connection, BATCH), strict=True):
                found = _REPLY.match(reply)
                assert found, (message, reply)
                assert found[1].decode() in NAMES or int(found[2]) == 10, (message, reply)
                assert int(found[2]) in STATUSES, (message, reply)
                json.loads(reply, parse_int=str, parse_float=str)
    return BATCH


def ended(connection: socket.socket) -> bytes:
    """Return all that comes until the server ends the connection."""
    data = b""
    try:
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(2**18):
            data += piece
    except ConnectionError:
        # It was closed with bytes unread, as it should where those are nonsense.
        pass
    return data


OPCODES = (Opcode.TEXT, Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE)


def any_frame(chance: random.Random) -> bytes:
    made = frame(chance.choice(OPCODES), mutated(chance, []).encode()[:125])
    # Without the bit that says that it is final.
    return made if chance.random() < 0.9 else bytes([made[0] & 0x7F]) + made[1:]


def frames(server: Server, chance: random.Random, number: int) -> int:
    """Send frames that are none; see that only proper frames come back."""
    count = chance.randint(1, 10)
    sent = changed(chance, b"".join(any_frame(chance) for _ in range(count)))
    with open_from(server, number, sent) as connection:
        for reply in Frames().feed(ended(connection)):
            assert reply.fin
            assert reply.opcode in (Opcode.TEXT, Opcode.PONG, Opcode.CLOSE)
            if reply.opcode is Opcode.CLOSE and reply.data:
                # It is the client's own, or says what the client did wrong. A close frame without
                # a status code is answered by one without (RFC 6455, 5.5.1).
                Close.parse(bytes(reply.data)).check()
    return count


def handshakes(server: Server, chance: random.Random, number: int) -> int:
    """Send what is no handshake; see that an HTTP answer comes, or nothing."""
    with from_anywhere(server.port, number) as connection:
        headers = {"Authorization": "Basic eDp5", "Origin": "http://a", "X_Forwarded_For": "::1"}
        connection.sendall(changed(chance, handshake("ndb.v1", **headers)))
        got = ended(connection)
        assert got == b"" or re.match(rb"HTTP/1.1 (101|4\d\d|50[35]) ", got), got
    return 1


@rounds(few=6000, many=300_000)
def test_whatever_is_sent_is_answered_or_closes_and_memory_stays_bounded(
    start_server: StartServer, rounds: int
) -> None:
    server = start_server("--max-memory", "8m", "--max-sessions", "500", "--log-level", "error")
    chance = random.Random(SEED)
    ways = (messages, messages, frames, handshakes)
    done, number, before = 0, 0, 0
    while done < rounds:
        number += 1
        way = ways[number % len(ways)]
        done += way(server, chance, number)
        if not before and done > rounds // 2:
            before = resident_bytes(server.pid)
    with opened(server.port) as client:
        assert client.request("SV_INFO")["st"] == 1
    assert resident_bytes(server.pid) - before < 20_000_000
    print(f"{done} messages, {resident_bytes(server.pid) / 2**20:.0f} MiB resident")
    server.stop()
    assert server.stderr == ""
