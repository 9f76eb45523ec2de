"""Runs scenarios against a server."""

import asyncio
import contextlib
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from websockets.frames import CloseCode, Frame, Opcode

from ndb_protocol import Status
from ndb_protocol.messages import Reply

from .conversation import Conversation, Mismatch
from .report import Outcome, Result
from .scenarios import Profile, Scenario, Step, load_core
from .wire import End, Refused, Target, Unreachable, most_kept, raw_frame

STEP_TIMEOUT = 5.0
"""How long nothing may come from a server that a step waits for, in seconds."""

_START = (
    Step(send='{"SH_END_ALL":{}}', expect='{"SH_END_ALL_RSP":{"st":1,"cnt":{{any:uint}}}}'),
    Step(send='{"KV_CLEAR":{}}', expect='{"KV_CLEAR_RSP":{"st":1,"cnt":{{any:uint}}}}'),
)
"""What makes an empty server of one that others have used."""

_LOOKS = 100
_PAUSE = 0.01
"""A server reads no more if nothing leaves for it while it answers another connection so often, so
many seconds apart."""

_SHOWN = 1000
_GRACE = 1.0
"""Seconds that a server may end a connection later than its limit says."""

_SILENT = 5
"""So many scenarios in which the server fell silent are enough."""

_TOLERANCE = 0.2
_ATTEMPTS = 10
"""A scenario that waits is tried again if this machine took so many seconds longer than it says:
then a deadline may have passed that should not have, and it says nothing about the server."""


class _Silence(Mismatch):
    """The server did nothing for as long as a step may take."""


class _Facts(msgspec.Struct, frozen=True):
    """What SV_INFO tells that decides which scenarios can run, and what a server permits."""

    persistEnabled: bool = False
    limits: dict[str, float] = {}
    permitted: bool = True


async def check_server(
    url: str,
    scenarios: Sequence[Scenario],
    timeout: float = STEP_TIMEOUT,
    *,
    profile: Profile = Profile.FULL,
    ca: Path | None = None,
) -> list[Result]:
    """Run scenarios against a server that nobody else uses; it loses what it holds.

    Args:
        url: where it is; with a name and a secret if it asks for credentials.
        scenarios: what to run.
        timeout: how long nothing may come that a step waits for, in seconds.
        profile: how closely to compare its replies.
        ca: file of the certificates by which its own has to be signed; None for the system's.

    Returns:
        What came of each, in order.

    Raises:
        Unreachable: there is no server, or it does not let the kit in.
    """
    target = Target.parse(url, ca)
    facts = await _ask(target, timeout)
    results: dict[str, Result] = {}
    runnable = []
    for scenario in scenarios:
        if why := _unfit(scenario, target, facts):
            results[scenario.id] = Result(scenario, Outcome.SKIPPED, why)
        else:
            runnable.append(scenario)
    not_compared = load_core().not_compared if profile is Profile.CORE else None
    run = partial(_Run, target, timeout, facts.limits, not_compared)
    silent = 0
    for scenario in (scenario for scenario in runnable if not scenario.concurrent):
        if silent == _SILENT:
            result = Result(scenario, Outcome.SKIPPED, "the server no longer answers")
        else:
            result, was_silent = await run(scenario).result()
            silent = silent + 1 if was_silent else 0
        results[scenario.id] = result
    side_by_side = [scenario for scenario in runnable if scenario.concurrent]
    for result, _ in await asyncio.gather(*(run(scenario).result() for scenario in side_by_side)):
        results[result.scenario.id] = result
    return [results[scenario.id] for scenario in scenarios]


async def _ask(target: Target, timeout: float) -> _Facts:
    """Ask the server what it is.

    Raises:
        Unreachable: there is none, or it does not let the kit in.
    """
    try:
        async with asyncio.timeout(timeout):
            end = await End.connect(target, ())
            try:
                await end.write(Frame(Opcode.TEXT, b'{"SV_INFO":{}}').serialize(mask=True))
                told = msgspec.json.decode(await end.message(), type=dict[str, _Facts])
                await end.write(Frame(Opcode.TEXT, b'{"SH_END_ALL":{}}').serialize(mask=True))
                ended = msgspec.json.decode(await end.message(), type=dict[str, Reply])
            finally:
                end.drop()
        permitted = ended["SH_END_ALL_RSP"].st != Status.COMMAND_DISABLED
        return msgspec.structs.replace(told["SV_INFO_RSP"], permitted=permitted)
    except Refused as refusal:
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            raise Unreachable(
                f"{target} requires other credentials; give them in the URL: "
                "ws://NAME:SECRET@HOST:PORT/"
            ) from None
        return _Facts()
    except (Mismatch, TimeoutError, msgspec.MsgspecError, KeyError):
        # What is wrong there, the scenarios tell.
        return _Facts()


def _unfit(scenario: Scenario, target: Target, facts: _Facts) -> str:
    if scenario.persistence is not None and scenario.persistence is not facts.persistEnabled:
        state = "enabled" if scenario.persistence else "disabled"
        return f"they need a server with saving {state}"
    if scenario.limited and facts.permitted:
        return "they need credentials that do not permit SH_END_ALL"
    if not scenario.limited and not facts.permitted:
        return "they need credentials that permit every command"
    if scenario.shows_credentials and target.uri.user_info is None:
        return "they need a server that requires credentials"
    limits = facts.limits
    for name, most in scenario.needs.items():
        if not 0 < limits.get(name, 0) <= most:
            return f"they need a server whose limits.{name} is at most {most}"
        # The lower one of two is met first.
        other = _SAME.get(name, "")
        if 0 < limits.get(other, 0) < limits[name]:
            return f"they need a server whose limits.{name} is at most limits.{other}"
    room = limits.get("messageSize", 0)
    if scenario.needs and room:
        for step in scenario.steps:
            if len(_filled(step.send or "", 1, limits)) > room:
                return "they need a server whose limits.messageSize is higher"
    return ""


_SAME = {"connections": "connectionsPerAddress", "connectionsPerAddress": "connections"}
"""Limits of the same thing."""


class _Run:
    """One scenario under way."""

    def __init__(
        self,
        target: Target,
        timeout: float,
        limits: Mapping[str, float],
        not_compared: Mapping[str, Sequence[str]] | None,
        scenario: Scenario,
    ) -> None:
        self._target = target
        if scenario.path is not None:
            self._target = replace(target, uri=replace(target.uri, path=scenario.path, query=""))
        self._timeout = timeout
        self._limits = limits
        self._not_compared = not_compared
        self._scenario = scenario
        self._conversation = Conversation()
        self._ends: dict[int, End] = {}
        # Since when nothing was sent.
        self._sent = time.monotonic()
        # By when something has to come.
        self._limit = asyncio.timeout(None)
        # What time it is meant to be.
        self._due = time.monotonic()

    @property
    def _awaited(self) -> float:
        # How long the server has to do nothing, because that is what it is to show.
        return sum(self._limits[name] for name in self._scenario.needs if "Timeout" in name)

    @property
    def _patience(self) -> float:
        # The connection itself takes some of what is not read, and the time begins after that.
        return self._awaited and 2 * self._awaited + _GRACE

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
        self._conversation, self._ends = Conversation(self._not_compared), {}
        steps = self._scenario.steps
        try:
            begins_anew = not (self._scenario.concurrent or self._scenario.limited)
            for step in _START if begins_anew else ():
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
            async with asyncio.timeout(self._timeout + self._patience) as self._limit:
                await (action or self._do(step))
        except TimeoutError:
            raise _Silence(f"{where}: nothing within {self._timeout:g} s{_shown(step)}") from None
        except Mismatch as difference:
            raise Mismatch(f"{where}: {difference}{_shown(step, str(difference))}") from None

    def _came(self) -> None:
        """Give the server as much time again: it is slow, perhaps, and not silent."""
        loop = asyncio.get_running_loop()
        self._limit.reschedule(loop.time() + self._timeout + self._patience)

    async def _do(self, step: Step) -> None:
        if step.expect_refused is not None:
            await self._be_refused(step, step.expect_refused)
            return
        if step.expect_unheard:
            began = time.monotonic()
            await self._say_nothing()
            self._check_waited(began)
            return
        end = await self._end(step.on)
        if step.crowd is not None:
            for number in range(len(self._ends) + 1, int(self._limits[step.crowd]) + 1):
                await self._end(number)
        if step.send is not None or step.frames:
            self._sent = time.monotonic()
        flood = _Flood(end, self._message(step, 1)) if step.stalls else None
        sending = asyncio.ensure_future(self._send(end, step) if flood is None else flood.send())
        try:
            if flood is not None and not step.expect_cut_off:
                await self._until_it_reads_no_more(flood, sending)
                flood.is_enough = True
            if flood is None or step.expect_cut_off or sending.done():
                await sending
            times = self._times(step) if flood is None else flood.times
            if step.expect is not None:
                for n in range(1, times + 1):
                    self._conversation.check(
                        _numbered(step.expect, n), await end.message(), step.without
                    )
                    self._came()
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
            self._check_waited(self._sent)
        if step.expect_cut_off and await end.cut_off() == times:
            raise Mismatch("every reply came")

    def _check_waited(self, began: float) -> None:
        waited = time.monotonic() - began
        if waited < self._awaited - _TOLERANCE:
            raise Mismatch(f"the server waited for {waited:.2f} of {self._awaited:g} s")

    def _times(self, step: Step) -> int:
        return step.times if isinstance(step.times, int) else int(self._limits[step.times])

    async def _be_refused(self, step: Step, status: int) -> None:
        uri = self._target.uri
        if step.credentials == "none":
            uri = replace(uri, username=None, password=None)
        elif step.credentials == "wrong":
            uri = replace(uri, password=f"{uri.password}x")
        try:
            end = await End.connect(replace(self._target, uri=uri), ())
        except Refused as refusal:
            if refusal.status != status:
                raise
            return
        end.drop()
        raise Mismatch("the server opened the connection")

    async def _say_nothing(self) -> None:
        reader, writer = await self._target.open()
        try:
            # A server may say why; some systems tell of the end with an error.
            with contextlib.suppress(OSError):
                await reader.read()
        finally:
            writer.close()

    async def _until_it_reads_no_more(self, flood: "_Flood", sending: asyncio.Future[None]) -> None:
        other = await End.connect(self._target, ())
        try:
            before, looks = -1, 0
            while looks < _LOOKS and not sending.done():
                await other.write(Frame(Opcode.TEXT, b'{"SV_INFO":{}}').serialize(mask=True))
                await other.message()
                self._came()
                looks = looks + 1 if flood.left == before else 0
                before = flood.left
                await asyncio.sleep(_PAUSE)
        finally:
            other.drop()

    async def _send(self, end: End, step: Step) -> None:
        size = int(self._limits.get("messageSize", 0))
        raw = b"".join(raw_frame(frame, size) for frame in step.frames)
        for n in range(1, self._times(step) + 1):
            await end.write(raw if step.send is None else self._message(step, n), step.piece)

    def _message(self, step: Step, n: int) -> bytes:
        """Return the frame of the `n`-th message of a step."""
        message = self._conversation.fill(_filled(step.send or "", n, self._limits))
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)

    async def _end(self, number: int) -> End:
        if number not in self._ends:
            expected = self._scenario.subprotocol
            offer = self._scenario.offer or (() if expected is None else (expected,))
            self._ends[number] = end = await End.connect(self._target, offer)
            if end.subprotocol != expected:
                raise Mismatch(f"the server chose {end.subprotocol}, not {expected}, of {offer}")
        return self._ends[number]


class _Flood:
    """A message that is sent again and again.

    Args:
        end: from where.
        frame: the message.

    Attributes:
        times: how often it was sent; the last may be on its way.
        is_enough: set when it is not to be sent any more.
    """

    def __init__(self, end: End, frame: bytes) -> None:
        self._end = end
        self._frame = frame
        self.times = 0
        self.is_enough = False

    @property
    def left(self) -> int:
        """How many bytes have left for the other end."""
        return self.times * len(self._frame) - self._end.unsent

    async def send(self) -> None:
        """Send until it is enough, or the connection is over.

        Raises:
            Mismatch: the server took more than systems keep.
        """
        most = most_kept()
        while not self.is_enough and not self._end.is_gone:
            if self.left > most:
                raise Mismatch("the server continued to read while nobody read its replies")
            self.times += 1
            await self._end.write(self._frame)


def _numbered(text: str, n: int) -> str:
    return text.replace("{{n}}", str(n))


_REPEATED = re.compile(r"\{\{(repeat|each):([A-Za-z]+)([+-][0-9]+)?:([^{}]+)\}\}")


def _filled(send: str, n: int, limits: Mapping[str, float]) -> str:
    """Return the `n`-th message with what it has as often as a limit says."""

    def repeated(found: re.Match[str]) -> str:
        how, limit, more, text = found.groups()
        count = int(limits[limit]) + int(more or 0)
        if how == "repeat":
            return text * count
        return ",".join(text.replace("#", str(number)) for number in range(1, count + 1))

    return _REPEATED.sub(repeated, _numbered(send, n))


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
