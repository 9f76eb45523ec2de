"""How long tests wait for what must come to be."""

import time
from collections.abc import Callable
from typing import TypeVar

BOUND = 60
"""The most that a test waits for something, in seconds."""

T = TypeVar("T")


def until(condition: Callable[[], T]) -> T:
    """Ask `condition` again and again until what it returns is true; return that."""
    deadline = time.monotonic() + BOUND
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        # What is waited for needs the processor.
        time.sleep(0.001)
    return found
