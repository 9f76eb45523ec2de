"""Runs scenarios against a server."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
from websockets.frames import CloseCode, Frame, Opcode

from .conversation import Conversation, Mismatch
from .report import Outcome, Result
from .scenarios import Scenario, Step
from .wire import End, Unreachable, raw_frame

STEP_TIMEOUT = 5.0
"""How long a server may take for one step, in seconds."""

_START = (
    Step(send='{"SH_END_ALL":{}}', expect='{"SH_END_ALL_RSP":{"st":1,"cnt":{{any:uint}}}}'),
    Step(send='{"KV_CLEAR":{}}', expect='{"KV_CLEAR_RSP":{"st":1,"cnt":{{any:uint}}}}'),
)
"""What makes an empty server of one that others have used."""

_STALLED = 1.0
"""A server that reads on takes less time than this, in seconds, to read what a stall needs."""

_SHOWN = 1000
_LONGEST_WRITE_TIMEOUT = 5.0
_SILENT = 5
"""So many scenarios in which the server fell silent are enough."""

_TOLERANCE = 0.2
_ATTEMPTS = 4
"""A scenario that waits is tried again if this machine took so many seconds longer than it says:
then a deadline may have passed that should not have, and it says nothing about the server."""


class _Silence(Mismatch):
    """The server did nothing for as long as a step may take."""


class _Limits(msgspec.Struct, frozen=True):
    messageSize: int = 0
    writeTimeout: float = 0


class _Facts(msgspec.Struct, frozen=True):
    """What SV_INFO tells that decides which scenarios can run."""

    persistEnabled: bool = False
    limits: _Limits = _Limits()


async def check_server(
    url: str, scenarios: Sequence[Scenario], timeout: float = STEP_TIMEOUT
) -> list[Result]:
    """Run scenarios against a server that nobody else uses; it loses what it holds.

    Args:
        url: where it is.
        scenarios: what to run.
        timeout: how long it may take for one step, in seconds.

    Returns:
        What came of each, in order.

    Raises:
        Unreachable: there is no server.
    """
    facts = await _ask(url, timeout)
    results: dict[str, Result] = {}
    runnable = []
    for scenario in scenarios:
        if why := _unfit(scenario, facts):
            results[scenario.id] = Result(scenario, Outcome.SKIPPED, why)
        else:
            runnable.append(scenario)
    silent = 0
    for scenario in (scenario for scenario in runnable if not scenario.concurrent):
        if silent == _SILENT:
            result = Result(scenario, Outcome.SKIPPED, "the server no longer answers")
        else:
            result, was_silent = await _Run(url, scenario, timeout, facts).result()
            silent = silent + 1 if was_silent else 0
        results[scenario.id] = result
    side_by_side = [scenario for scenario in runnable if scenario.concurrent]
    for result, _ in await asyncio.gather(
        *(_Run(url, scenario, timeout, facts).result() for scenario in side_by_side)
    ):
        results[result.scenario.id] = result
    return [results[scenario.id] for scenario in scenarios]


async def _ask(url: str, timeout: float) -> _Facts:
    """Ask the server what it is.

    Raises:
        Unreachable: there is none.
    """
    try:
        async with asyncio.timeout(timeout):
            end = await End.connect(url, ())
            try:
                await end.write(Frame(Opcode.TEXT, b'{"SV_INFO":{}}').serialize(mask=True))
                reply = await end.message()
            finally:
                end.drop()
        return msgspec.json.decode(reply, type=dict[str, _Facts])["SV_INFO_RSP"]
    except (Mismatch, TimeoutError, msgspec.MsgspecError, KeyError):
        # What is wrong there, the scenarios tell.
        return _Facts()


def _unfit(scenario: Scenario, facts: _Facts) -> str:
    if scenario.persistence is not None and scenario.persistence is not facts.persistEnabled:
        state = "on" if scenario.persistence else "off"
        return f"they need a server with saving switched {state}"
    limits = facts.limits
    if scenario.measures_messages and not limits.messageSize:
        return "they need a server whose SV_INFO tells limits.messageSize"
    if scenario.is_cut_off and not 0 < limits.writeTimeout <= _LONGEST_WRITE_TIMEOUT:
        return f"they need a server whose limits.writeTimeout is at most {_LONGEST_WRITE_TIMEOUT:g}"
    return ""


class _Run:
    """One scenario under way."""

    def __init__(self, url: str, scenario: Scenario, timeout: float, facts: _Facts) -> None:
        self._url = url
        self._scenario = scenario
        self._timeout = timeout
        self._limits = facts.limits
        self._conversation = Conversation()
        self._ends: dict[int, End] = {}
        # What time it is meant to be.
        self._due = time.monotonic()

    @property
    def _cut_off_within(self) -> float:
        # The connection itself takes some of what is not read, and the time begins after that.
        return 2 * self._limits.writeTimeout + 1

    async def result(self) -> tuple[Result, bool]:
        """Run it; return what came of it, and whether the server fell silent."""
        began = time.monotonic()

        def so(outcome: Outcome, detail: str = "") -> Result:
            return Result(self._scenario, outcome, detail, time.monotonic() - began)

        detail = ""
        for _ in range(_ATTEMPTS):
            try:
                await self._once()
                return so(Outcome.PASSED), False
            except _Silence as silence:
                return so(Outcome.FAILED, str(silence)), True
            except (Mismatch, Unreachable) as difference:
                detail = str(difference)
            if not self._scenario.takes_time or time.monotonic() - self._due < _TOLERANCE:
                return so(Outcome.FAILED, detail), False
        detail = f"this machine is too slow to tell whether the server is right: {detail}"
        return so(Outcome.FAILED, detail), False

    async def _once(self) -> None:
        self._conversation, self._ends = Conversation(), {}
        steps = self._scenario.steps
        try:
            for step in () if self._scenario.concurrent else _START:
                await self._take("before the first step", step)
            self._due = time.monotonic()
            for number, step in enumerate(steps, 1):
                if step.advance_ms:
                    await asyncio.sleep(step.advance_ms / 1000)
                    self._due += step.advance_ms / 1000
                await self._take(f"step {number} of {len(steps)}", step)
            for end in self._ends.values():
                await self._take("after the last step", Step(), end.close())
        finally:
            for end in self._ends.values():
                end.drop()

    async def _take(
        self, where: str, step: Step, action: Coroutine[Any, Any, None] | None = None
    ) -> None:
        try:
            patience = self._cut_off_within if step.expect_cut_off else 0
            async with asyncio.timeout(self._timeout + patience):
                await (action or self._do(step))
        except TimeoutError:
            raise _Silence(f"{where}: nothing within {self._timeout:g} s{_shown(step)}") from None
        except Mismatch as difference:
            raise Mismatch(f"{where}: {difference}{_shown(step, str(difference))}") from None

    async def _do(self, step: Step) -> None:
        end = await self._end(step.on)
        sending = asyncio.ensure_future(self._send(end, step))
        try:
            if step.stalls:
                done, _ = await asyncio.wait([sending], timeout=_STALLED)
                if done:
                    raise Mismatch("the server read on while nobody read its replies")
            else:
                await sending
            if step.expect is not None:
                for n in range(1, step.times + 1):
                    self._conversation.check(_numbered(step.expect, n), await end.message())
            await sending
        finally:
            sending.cancel()
        if step.expect_pong is not None:
            pong = await end.pong()
            if pong != step.expect_pong.encode():
                raise Mismatch(f"a pong with {pong!r}")
        if step.expect_close is not None:
            code, reason = await end.closed()
            if code != step.expect_close:
                raise Mismatch(f"the server closed with {code} ({reason})")
            if code > CloseCode.NORMAL_CLOSURE and not reason:
                raise Mismatch(f"the server closed with {code} and no reason")
        if step.expect_cut_off:
            await asyncio.sleep(self._cut_off_within)
            if await end.cut_off() == step.times:
                raise Mismatch("every reply came")

    async def _send(self, end: End, step: Step) -> None:
        raw = b"".join(raw_frame(frame, self._limits.messageSize) for frame in step.frames)
        for n in range(1, step.times + 1):
            if step.send is not None:
                message = self._conversation.fill(_numbered(step.send, n)).encode()
                raw = Frame(Opcode.TEXT, message).serialize(mask=True)
            await end.write(raw, step.piece)

    async def _end(self, number: int) -> End:
        if number not in self._ends:
            expected = self._scenario.subprotocol
            offer = self._scenario.offer or (() if expected is None else (expected,))
            self._ends[number] = end = await End.connect(self._url, offer)
            if end.subprotocol != expected:
                raise Mismatch(f"the server chose {end.subprotocol}, not {expected}, of {offer}")
        return self._ends[number]


def _numbered(text: str, n: int) -> str:
    return text.replace("{{n}}", str(n))


def _shown(step: Step, difference: str = "") -> str:
    """Return the lines that say what was sent, and what should have come unless that is said."""
    sent = msgspec.to_builtins(step)
    expected = {name: sent.pop(name) for name in list(sent) if name.startswith("expect")}
    if "\nexpected " in difference:
        expected = {}
    return "".join(
        f"\n{what:>8} {msgspec.json.encode(members).decode()[:_SHOWN]}"
        for what, members in (("sent", sent), ("expected", expected))
        if members
    )
