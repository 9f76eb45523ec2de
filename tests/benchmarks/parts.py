"""Where the time of a request goes inside the server: SH_GET of 2 of 4 small keys.

Usage: python -m tests.benchmarks.parts SESSIONS

Prints a JSON object: µs a request of each part, measured alone. Reads bring 16 requests each.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ndb_protocol import decode_request, encode_reply
from ndb_server.clock import Clock
from ndb_server.dispatch.dispatcher import Dispatcher
from ndb_server.engine.engine import Engine
from ndb_server.interfaces import Respond
from ndb_server.websocket.connection import Connection, Timeouts

from .filling import HANDSHAKE, values

IN_A_READ = 16
ROUNDS = 7

T = TypeVar("T")


class Sink(asyncio.Transport):
    """Takes what is written, at no cost: what is measured is not the socket."""

    def write(self, data: Any) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def microseconds(work: Callable[[T], object], items: Sequence[T], each: int = 1) -> float:
    """Return µs of `work` for an item, at its best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for item in items:
            work(item)
        best = min(best, time.perf_counter() - begin)
    return best / len(items) / each * 1e6


def masked(message: bytes) -> bytes:
    key = b"\x12\x34\x56\x78"
    payload = bytes(byte ^ key[index & 3] for index, byte in enumerate(message))
    return b"\x81%c%b%b" % (0x80 | len(payload), key, payload)


async def measure(sessions: int) -> dict[str, float]:
    engine = Engine()
    dispatcher = Dispatcher(engine.handlers)
    clock = Clock()
    now = clock()
    messages = []
    for number in range(sessions):
        [created], _ = dispatcher.dispatch([b'{"SH_NEW":{}}'], now)
        assert isinstance(created, bytes)
        token = json.loads(created)["SH_NEW_RSP"]["tkn"]
        keys = f'{{"SH_SET":{{"tkn":{token},"keys":{{{values(number)}}}}}}}'
        dispatcher.dispatch([keys.encode()], now)
        messages.append(f'{{"SH_GET":{{"tkn":{token},"keys":["a","b"]}}}}'.encode())

    def reading(respond: Respond) -> Callable[[bytes], None]:
        connection = Connection(respond, clock, b"", set(), Timeouts())
        connection.connection_made(Sink())
        buffer = connection.get_buffer(-1)

        def read(data: bytes) -> None:
            buffer[: len(data)] = data
            connection.buffer_updated(len(data))

        read(HANDSHAKE)
        return read

    frames = [masked(message) for message in messages]
    reads = [
        b"".join(frames[begin : begin + IN_A_READ])
        for begin in range(0, len(frames) - IN_A_READ, IN_A_READ)
    ]
    [reply], _ = dispatcher.dispatch(messages[:1], now)
    framing = microseconds(
        reading(lambda some, _, __: ([reply] * len(some), None)), reads, IN_A_READ
    )
    everything = reading(dispatcher.dispatch)
    get = engine.handlers["SH_GET"]
    params = [decode_request(message)[1] for message in messages]
    replies = [get(each, now) for each in params]
    return {
        "framing and masking": framing,
        "the clock": microseconds(lambda _: clock(), messages) / IN_A_READ,
        "decoding": microseconds(decode_request, messages),
        "the engine": microseconds(lambda each: get(each, now), params),
        "encoding": microseconds(lambda each: encode_reply("SH_GET_RSP", each), replies),
        "all of it inside the process": microseconds(everything, reads, IN_A_READ),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1])))))
