"""Replies that wait until a change is durable, in the order of their requests all the same."""

import asyncio
import socket
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from ndb_server.engine.batch import Batch
from ndb_server.interfaces import CommitGate
from websockets.frames import Opcode

from tests.support.event_loop_turns import turns, until
from tests.support.in_process_connections import Peer, opened
from tests.support.raw_client import close, frame, text


class Held:
    """Answers a message with itself; from the first on that says so, replies wait for a batch."""

    def __init__(self) -> None:
        self.batches: list[Batch[Any]] = []

    def __call__(
        self, messages: Sequence[bytes], _: int, __: bool
    ) -> tuple[Sequence[bytes | Awaitable[bytes]], CommitGate | None]:
        first = next((n for n, message in enumerate(messages) if b"change" in message), None)
        if first is None:
            return messages, None
        self.batches.append(Batch())
        asked = list(messages)
        return messages, CommitGate(first, self.batches[-1], lambda n, _: b"not " + asked[n])

    def settle(self, number: int, *, done: bool) -> None:
        self.batches[number].committed = done
        for waiting in self.batches[number].waiters:
            waiting.batch_done()


async def nothing_is_said(peer: Peer) -> bool:
    await turns()
    try:
        return not peer.socket.recv(1)
    except BlockingIOError:
        return True


async def test_replies_leave_once_what_they_tell_of_is_durable_and_those_behind_with_them() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("first") + text("change 1") + text("behind"), text("next"))
        assert await peer.said() == "first"
        assert await nothing_is_said(peer)
        await peer.send(text("change 2"))
        held.settle(0, done=True)
        assert [await peer.said() for _ in range(3)] == ["change 1", "behind", "next"]
        assert await nothing_is_said(peer)
        held.settle(1, done=True)
        assert await peer.said() == "change 2"


async def test_what_is_durable_early_waits_for_what_was_asked_before() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("change 1"), text("change 2"))
        held.settle(1, done=True)
        assert await nothing_is_said(peer)
        held.settle(0, done=True)
        assert [await peer.said(), await peer.said()] == ["change 1", "change 2"]


async def test_of_what_was_undone_only_replies_that_have_not_left_are_others() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("first") + text("change 1") + text("behind"), text("next"))
        held.settle(0, done=False)
        said = [await peer.said() for _ in range(4)]
        assert said == ["first", "not change 1", "not behind", "next"]


async def test_what_did_not_wait_for_what_was_undone_is_answered_as_it_was() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("change 1"), text("first") + text("change 2"))
        held.settle(1, done=False)
        held.settle(0, done=True)
        said = [await peer.said() for _ in range(3)]
        assert said == ["change 1", "first", "not change 2"]


async def test_a_close_frame_waits_for_the_replies_in_front_of_it() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("change") + close())
        assert await nothing_is_said(peer)
        held.settle(0, done=True)
        assert await peer.said_until_end() == ["change", (1000, "")]


IN_FRAGMENTS = frame(Opcode.TEXT, b"be", fin=False) + frame(Opcode.CONT, b"hind")


@pytest.mark.parametrize(
    ("sent", "answers"),
    [(IN_FRAGMENTS, ["behind"]), (text("behind")[:3], [])],
    ids=["a request", "part of a request"],
)
async def test_a_client_that_ends_its_side_as_the_batch_is_written_gets_every_answer(
    sent: bytes, answers: list[str]
) -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("change") + sent)
        peer.socket.shutdown(socket.SHUT_WR)
        # The loop sees the end in this turn, after the batch.
        await asyncio.sleep(0)
        held.settle(0, done=True)
        assert await peer.said_until_end() == ["change", *answers]


async def test_a_server_told_to_stop_as_the_batch_is_written_answers_what_has_arrived() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("change") + IN_FRAGMENTS)
        stopping = asyncio.ensure_future(peer.connection.shut_down())
        held.settle(0, done=True)
        said = [await peer.said() for _ in range(3)]
        assert said == ["change", "behind", (1001, "server is shutting down")]
        peer.socket.close()
        await stopping


@pytest.mark.parametrize("count", [1, 40])
async def test_a_client_whose_replies_wait_for_the_disk_is_not_taken_for_dead(count: int) -> None:
    held = Held()
    async with opened(held) as peer:
        # After some, no more is read: pongs neither.
        sending = asyncio.ensure_future(
            peer.send(*(text(f"change {number}") for number in range(count)))
        )
        await turns()
        for _ in range(5):
            peer.connection.check_alive()
        for number in range(count):
            while len(held.batches) <= number:
                await turns()
            held.settle(number, done=True)
            assert await peer.said() == f"change {number}"
        await sending


async def test_a_client_that_went_while_replies_waited_disturbs_nobody() -> None:
    held = Held()
    async with opened(held) as peer:
        await peer.send(text("change"))
        peer.transport.abort()
        await until(peer.connection.closed.done)
        held.settle(0, done=True)
        await turns()
