"""Ways to break the asyncio client, to see that the kit notices: ``… broken_client NAME``."""

import asyncio
import sys
from typing import Any

import pytest
from ndb import commands, connection, core, frames
from ndb.errors import ResponseError
from ndb.session import Session
from ndb_protocol import SUCCESS, ReplyError, decode_reply, frame_lengths
from websockets.frames import CloseCode, Frame, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import Protocol

from tests.support.break_registry import Breaks, Patch

from . import python_client

BREAKS = Breaks()
breaks = BREAKS.enter


@breaks(
    "token-rounded",
    "A token beyond 2^53 survives, from the reply that brings it to the request that needs it",
)
def _(patch: Patch) -> None:
    patch.setattr(commands, "_session", lambda body: Session(int(float(body["tkn"]))))


@breaks(
    "last-in-first-out", "Requests need not wait for replies, and each gets the reply in its place"
)
def _(patch: Patch) -> None:
    original = core.Pipeline.answer

    def answer(self: core.Pipeline, reply: str) -> None:
        self._in_flight.rotate(1)
        original(self, reply)

    patch.setattr(core.Pipeline, "answer", answer)


@breaks(
    "late-reply-for-the-next",
    "A request that takes too long is given up, and its late reply is not taken for another's",
)
def _(patch: Patch) -> None:
    original = core.Pipeline.answer

    def answer(self: core.Pipeline, reply: str) -> None:
        while self._in_flight and self._in_flight[0].waiter.done():
            self._in_flight.popleft()
        original(self, reply)

    patch.setattr(core.Pipeline, "answer", answer)


@breaks(
    "only-known-statuses-fail",
    "A status that the client does not know is an error that has the status",
)
def _(patch: Patch) -> None:
    patch.setattr(core, "SUCCESS", SUCCESS | {4711})


@breaks(
    "any-name-will-do",
    "The reply to another command is not taken for the reply, nor is anything behind it",
)
def _(patch: Patch) -> None:
    def outcome(self: core.Request[Any], message: str, *, alone: bool = False) -> Any:
        _, body = decode_reply(message)
        if body["st"] not in SUCCESS:
            raise ResponseError(self.command, body)
        return self.result(body, self.params)

    patch.setattr(core.Request, "outcome", outcome)


@breaks("unknown-members-refused", "Members of a reply that the client does not know are ignored")
def _(patch: Patch) -> None:
    original = decode_reply

    def decode(message: str) -> Any:
        name, body = original(message)
        if len(body) > 2:
            raise ReplyError("what is this")
        return name, body

    patch.setattr(core, "decode_reply", decode)


@breaks("no-pong", "A ping is answered, whether a reply is awaited or not")
def _(patch: Patch) -> None:
    original = Protocol.send_frame

    def send(self: Protocol, frame: Any) -> None:
        if frame.opcode != 0x0A:
            original(self, frame)

    patch.setattr(Protocol, "send_frame", send)


@breaks(
    "sends-again",
    "When the server closes with 1001, because it goes away, every request without a reply is lost, "
    "and so are later ones",
)
def _(patch: Patch) -> None:
    original = python_client._run

    async def again(client: Any, line: Any) -> Any:
        answer = await original(client, line)
        if answer.get("error") == "lost":
            return {"id": line["id"], "result": {"cnt": 0}}
        return answer

    patch.setattr(python_client, "_run", again)


@breaks("token-told", "A refusal is told without the token")
def _(patch: Patch) -> None:
    original = python_client._run

    async def tell(client: Any, line: Any) -> Any:
        answer = await original(client, line)
        return {**answer, "message": f"no session {line.get('params', {}).get('tkn')}"}

    patch.setattr(python_client, "_run", tell)


# The lengths of frames.


def take_lengths(patch: Patch) -> None:
    """Take any length, without its most significant bit."""

    def bounds(data: bytes, start: int) -> tuple[int, int] | None:
        if len(data) < start + 2:
            return None
        width = {126: 2, 127: 8}.get(data[start + 1], 0)
        payload = start + 2 + width
        size = int.from_bytes(data[start + 2 : payload]) if width else data[start + 1]
        return payload, payload + (size & (2**63 - 1))

    patch.setattr(connection, "frame_bounds", bounds)


@breaks("16-bits-in-requests", "KV_COUNT is sent as the protocol says, and its reply is understood")
def _(patch: Patch) -> None:
    def frame(message: bytes, key: bytes) -> bytes:
        return b"\x81\xfe" + len(message).to_bytes(2) + key + apply_mask(message, key)

    patch.setattr(connection, "text_frame", frame)


@breaks("lengths-that-are-not-allowed-are-too-big", "*length *")
def _(patch: Patch) -> None:
    original = connection.Connection._fail
    patch.setattr(
        connection.Connection,
        "_fail",
        lambda self, _, reason: original(self, CloseCode.MESSAGE_TOO_BIG, reason),
    )


@breaks(
    "most-significant-bit-dropped",
    "A reply with a length whose most significant bit is set is not taken",
)
def _(patch: Patch) -> None:
    take_lengths(patch)


@breaks("pings-as-large-as-they-like", "A ping of more than 125 bytes ends the connection")
def _(patch: Patch) -> None:
    original = frame_lengths.length_violation
    patch.setattr(frames, "length_violation", lambda _, *length: original(0x81, *length))
    patch.setattr(Frame, "check", lambda _: None)


# Whose a refusal is.


@breaks("refusal-under-another-name-is-for-all", "A refusal under *")
def _(patch: Patch) -> None:
    original = core.Pipeline.answer

    def answer(self: core.Pipeline, reply: str) -> None:
        name, body = decode_reply(reply)
        if self._in_flight and f"{self._in_flight[0].command}_RSP" != name:
            for request in self._in_flight:
                request.waiter.set_exception(ResponseError(request.command, body))
            self._in_flight.clear()
        if self._in_flight:
            original(self, reply)

    patch.setattr(core.Pipeline, "answer", answer)


if __name__ == "__main__":
    BREAKS[sys.argv[1]].apply(pytest.MonkeyPatch())
    asyncio.run(python_client.main())
