"""The cost of commands that must not depend on how many sessions there are.

Usage: python -m tests.benchmarks.engine SESSIONS

Prints a JSON object: µs of each command, dispatch included, in a process with that many sessions.
"""

import json
import sys
import time
from collections.abc import Sequence

from ndb_server.dispatch.dispatcher import Dispatcher
from ndb_server.engine.engine import Engine

from .filling import values

REPEATED = 400
DURATION = 1_100
"""Seconds; with a session each ms, a million are there before the first one expires."""


def measure(size: int) -> dict[str, float]:
    """Return µs of each command with `size` sessions, at least twice `REPEATED`."""
    engine = Engine()
    dispatcher = Dispatcher(engine.handlers)
    begin = now = 1_000_000_000

    def ask(message: str, at: int) -> dict[str, int]:
        [reply], _ = dispatcher.dispatch([message.encode()], at)
        assert isinstance(reply, bytes)
        [body] = json.loads(reply).values()
        assert body["st"] == 1, body
        return dict(body)

    def new(at: int) -> int:
        expiry = f'{{"duration":{DURATION},"deleteSession":true}}'
        token = ask(f'{{"SH_NEW":{{"expiry":{expiry}}}}}', at)["tkn"]
        ask(f'{{"SH_SET":{{"tkn":{token},"keys":{{{values(token % 1000)}}}}}}}', at)
        # As the server does, while time goes on.
        engine.reap(at)
        return token

    # Deadlines are spread as they are when sessions come at an even rate.
    tokens = [new(now + number) for number in range(size)]
    now += size

    def microseconds(messages: Sequence[str]) -> float:
        prepared = [message.encode() for message in messages]
        started = time.perf_counter()
        for message in prepared:
            dispatcher.dispatch([message], now)
        return (time.perf_counter() - started) / len(prepared) * 1e6

    last = tokens[-REPEATED:]
    figures = {
        "SH_INFO_ALL": microseconds(['{"SH_INFO_ALL":{}}'] * REPEATED),
        "SH_GET": microseconds([f'{{"SH_GET":{{"tkn":{t},"keys":["a","b"]}}}}' for t in last]),
        "SH_END": microseconds([f'{{"SH_END":{{"tkn":{t}}}}}' for t in last]),
    }
    # The first ones expire, one each millisecond, and what is entered for later moves on.
    first = begin + DURATION * 1000
    for at in range(now, first, 1000):
        engine.reap(at)
    started = time.perf_counter()
    engine.reap(first + REPEATED - 1)
    figures["an expiry"] = (time.perf_counter() - started) / REPEATED * 1e6
    assert ask('{"SH_INFO_ALL":{}}', now)["totalSessions"] == size - 2 * REPEATED
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
