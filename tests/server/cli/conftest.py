"""What surrounds a command line that runs in the process of the tests."""

import os
import signal
from collections.abc import Iterator

import pytest
from ndb_server.cli import main as cli


@pytest.fixture
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test as a process begins."""
    for name in [name for name in os.environ if name.startswith("NDB_")]:
        monkeypatch.delenv(name)
    # Where it is not what is tested, a server may listen on any address.
    monkeypatch.setenv("NDB_INSECURE", "true")
    monkeypatch.setattr(cli.app, "config", cli.app.config)


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """Undo what is done to signals in a process that is about to end."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
