"""Turns of the event loop: a number of them, or as many as it takes."""

import asyncio
import time
from collections.abc import Callable

from tests.support.waiting import BOUND


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until `condition` holds."""
    # The event loop's own clock may stand still.
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0)


async def turns(count: int = 10) -> None:
    """Let the event loop do what it can do by now, and what follows from that."""
    for _ in range(count):
        await asyncio.sleep(0)
