"""Both event loops, for what each does in its own way."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

T = TypeVar("T")
Factory = Callable[[], asyncio.AbstractEventLoop]

FACTORIES: dict[str, Factory] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

BOTH_LOOPS = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


def run(factory: Factory, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in an event loop of its own, made by `factory`."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
