"""The event loops that the tests of the server run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of connections on both loops; but uvloop's clock can't stand still."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    asked = item.path.stem in (
        "test_acceptor", "test_connection", "test_connection_held", "test_server_stopping"
    )  # fmt: skip
    if asked and "clock" not in getattr(item, "fixturenames", ()):
        loops["uvloop"] = uvloop.new_event_loop
    return loops
