"""Which commands are said to be slow, by a clock that goes on as the test says."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import pytest
from ndb_protocol import Status
from ndb_protocol.messages import Reply
from ndb_server.errors import RefusedError
from ndb_server.interfaces import Handler
from ndb_server.server.slowlog import with_slow_log


class Work:
    """Commands that take as long as they are told to, in ms."""

    def __init__(self) -> None:
        self.now = 5.0
        self.handlers: dict[str, Handler] = {
            "FAST": self.at_once,
            "LATER": self.later,
            "REFUSED": self.refuse,
        }

    def clock(self) -> float:
        return self.now

    def at_once(self, takes: float, _: int) -> Reply:
        self.now += takes / 1000
        return Reply()

    async def later(self, takes: float, _: int) -> Reply:
        await asyncio.sleep(0)
        return self.at_once(takes, 0)

    def refuse(self, takes: float, _: int) -> Reply:
        self.at_once(takes, 0)
        raise RefusedError(Status.KEY_NOT_EXIST, "no such key")


async def run(handler: Handler, takes: Any) -> None:
    try:
        reply = handler(takes, 0)
        if isinstance(reply, Awaitable):
            reply = await reply
    except RefusedError as error:
        assert error.status is Status.KEY_NOT_EXIST
    else:
        assert reply == Reply()


@pytest.mark.parametrize("name", ["FAST", "LATER", "REFUSED"])
async def test_what_takes_as_long_as_the_threshold_is_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    handlers = with_slow_log(work.handlers, 100, work.clock)
    for takes in (99, 100.5, 3000):
        await run(handlers[name], takes)
    assert caplog.messages == [
        f"slow command {name} took 100.5 ms",
        f"slow command {name} took 3000.0 ms",
    ]
    [first, _] = caplog.records
    assert first.levelno == logging.WARNING
    assert vars(first)["command"] == name
    assert vars(first)["duration_ms"] == 100.5
