"""Accepting connections while there are descriptors, and pausing without."""

import asyncio
import errno
import gc
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import pytest
from ndb_server.server import acceptor as accepting
from ndb_server.server.acceptor import Acceptor, AcceptPause

from tests.support.event_loop_turns import turns
from tests.support.waiting import BOUND

PAUSED = "not accepting connections"
AGAIN = "accepting connections again"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner, and be satisfied sooner, than where nobody waits for it."""
    monkeypatch.setattr(accepting, "_RETRY", 0.02)
    monkeypatch.setattr(accepting, "_CALM", 0.2)


class Here(asyncio.Protocol):
    """A connection that was accepted; it stands in a list of them."""

    def __init__(self, accepted: "list[Here]") -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._accepted.append(self)


class Listening:
    """Something that accepts connections, and who connects."""

    def __init__(self, most: int | None = None) -> None:
        self.accepted: list[Here] = []
        self.pause = AcceptPause()
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        self.port = listening.getsockname()[1]
        self.acceptor = Acceptor(listening, lambda: Here(self.accepted), self.pause, most)

    def connect(self, client: socket.socket) -> None:
        # The system takes it up, whatever the acceptor does.
        client.connect(("127.0.0.1", self.port))

    async def until_accepted(self, count: int) -> None:
        async with asyncio.timeout(BOUND):
            while len(self.accepted) < count:
                await turns(1)

    async def stop(self) -> None:
        await self.acceptor.stop()
        for one in self.accepted:
            one.transport.abort()
        # The loop ends them in its next turns.
        await turns()

    @property
    def watched(self) -> bool:
        """Whether the loop watches what listens; from now on it does not."""
        return asyncio.get_running_loop().remove_reader(self.acceptor.socket)


async def until_logged(caplog: pytest.LogCaptureFixture, what: str) -> None:
    async with asyncio.timeout(BOUND):
        while what not in caplog.text:
            await turns(1)


def free_numbers(count: int) -> list[int]:
    """Return the numbers of the next descriptors; there may be gaps between them."""
    # What nobody holds any more would be given back at any time.
    gc.collect()
    numbers = [os.dup(0) for _ in range(count)]
    for number in numbers:
        os.close(number)
    return numbers


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """Let this process have so many more descriptors than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free_numbers(more)[-1] + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_connections_are_those_of_tcp_as_soon_as_they_are_made() -> None:
    with ExitStack() as stack:
        listening = Listening()
        client = stack.enter_context(socket.socket())
        listening.connect(client)
        await listening.until_accepted(1)
        one = listening.accepted[0].transport.get_extra_info("socket")
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await listening.stop()


async def test_without_any_descriptor_it_pauses_and_goes_on_once_there_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(5)]
        listening = Listening()
        with few_descriptors(2):
            for client in clients:
                listening.connect(client)
            await listening.until_accepted(2)
            await until_logged(caplog, PAUSED)
            # What there is is served; and the loop isn't told of those who wait all the time.
            listening.accepted[0].transport.write(b"x")
            clients[0].settimeout(BOUND)
            assert clients[0].recv(1) == b"x"
            # It was tried again since, in vain.
            async with asyncio.timeout(BOUND):
                while listening.pause.seconds < 2 * accepting._RETRY:
                    await turns(1)
            assert not listening.watched
            assert len(listening.accepted) == 2
        await listening.until_accepted(5)
        await until_logged(caplog, AGAIN)
        assert caplog.text.count(PAUSED) == caplog.text.count(AGAIN) == 1
        assert os.strerror(errno.EMFILE) in caplog.text
        seconds = listening.pause.seconds
        assert seconds > 0
        await turns(1)
        assert listening.pause.seconds == seconds
        await listening.stop()


async def test_what_stops_and_starts_is_one_pause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(6)]
        # There are two connections at the most: with the second, no descriptor is left.
        listening = Listening(free_numbers(3)[-1])
        for client in clients:
            listening.connect(client)
        for count in range(2, 7):
            await listening.until_accepted(count)
            assert PAUSED in caplog.text
            listening.accepted[count - 2].transport.abort()
        listening.accepted[-1].transport.abort()
        await until_logged(caplog, AGAIN)
        assert caplog.text.count(PAUSED) == caplog.text.count(AGAIN) == 1
        await listening.stop()


async def test_one_that_is_stopped_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(2)]
        listening = Listening(0)
        for client in clients:
            listening.connect(client)
        await listening.until_accepted(1)
        assert PAUSED in caplog.text
        await listening.stop()
        assert len(listening.accepted) == 1


class Failing(socket.socket):
    """A socket whose `accept` fails first, as it does where the network is at fault."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO])
async def test_a_client_that_has_gone_is_no_reason_to_pause(
    caplog: pytest.LogCaptureFixture, number: int
) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        listening = Failing(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.errors = [number, number]
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        accepted: list[Here] = []
        acceptor = Acceptor(listening, lambda: Here(accepted), AcceptPause())
        client.connect(listening.getsockname())
        async with asyncio.timeout(BOUND):
            while not accepted:
                await turns(1)
        assert PAUSED not in caplog.text
        await acceptor.stop()
        accepted[0].transport.abort()
        await turns(1)
