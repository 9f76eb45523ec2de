"""Runs scenarios against a client: a program that is controlled by JSON lines.

The kit is the server that the client talks to, and knows which requests will come. ``README.md``
describes the lines.
"""

import asyncio
import contextlib
import re
import shlex
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

import msgspec
from websockets.frames import Frame, Opcode

from ndb_protocol import NDB_V1_TEXT, RequestError, decode_request

from .conversation import Mismatch
from .report import Outcome, Result
from .scenarios import ClientScenario, ClientStep
from .wire import End, Unreachable

_TOKEN = re.compile(r"\{\{tkn:([0-9]+)\}\}")
_SECRET = re.compile("[0-9]{16,20}")
"""A token of the scenarios; nothing else in them is like it."""

_PAUSE = 0.002
"""Seconds between pieces, so that the client reads them one by one."""

_LINE_SIZE = 2**24
_SHOWN = 1000
_AS_IT_IS = ClientStep()


class _Client:
    """The client's program.

    Args:
        command: how to start it.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self._calls = 0

    async def say(self, call: str, **members: Any) -> int:
        """Tell it to do something; return the number of the call.

        Raises:
            Unreachable: it can't be started.
        """
        if self._process is None:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *shlex.split(self._command),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_LINE_SIZE,
                )
            except (OSError, ValueError) as error:
                raise Unreachable(f"can't start the client: {error}") from None
        self._calls += 1
        line = msgspec.json.encode({"id": self._calls, "call": call, **members})
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        # It may have ended: then it does not answer.
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()
        return self._calls

    async def hear(self, call: int) -> dict[str, Any]:
        """Return what came of a call.

        Raises:
            Mismatch: the client ended, or its line is not one.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        while call not in self._answers:
            line = await self._process.stdout.readline()
            if not line:
                raise Mismatch(f"the client ended with status {await self._process.wait()}")
            try:
                answer = msgspec.json.decode(line, type=dict[str, Any])
                self._answers[answer.pop("id")] = answer
            except (msgspec.MsgspecError, KeyError, TypeError):
                raise Mismatch(f"not an answer: {line[:500]!r}") from None
        return self._answers.pop(call)

    async def stop(self, patience: float, *, at_once: bool = False) -> None:
        """End it.

        Args:
            patience: how long it may take, in seconds, before it is told more clearly.
            at_once: don't wait until it ends because its input does.
        """
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        for tell in (process.terminate, process.kill):
            if not at_once:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await process.wait()
                        return
            at_once = False
            # It may have ended just now.
            with contextlib.suppress(ProcessLookupError):
                tell()
        await process.wait()


async def check_client(
    command: str, scenarios: Sequence[ClientScenario], timeout: float
) -> list[Result]:
    """Run scenarios against a client.

    Args:
        command: how to start it, as a shell would be told.
        scenarios: what to run.
        timeout: how long it may take for one step, in seconds.

    Returns:
        What came of each, in order.

    Raises:
        Unreachable: it can't be started.
    """
    client = _Client(command)
    results = []
    try:
        for scenario in scenarios:
            began = time.monotonic()
            outcome, detail = Outcome.PASSED, ""
            try:
                if why := await _Run(client, scenario, timeout).run():
                    outcome, detail = Outcome.SKIPPED, why
            except Mismatch as difference:
                outcome, detail = Outcome.FAILED, str(difference)
                # What it does now, it may do because of what went wrong.
                await client.stop(timeout, at_once=True)
            results.append(Result(scenario, outcome, detail, time.monotonic() - began))
    finally:
        await client.stop(timeout)
    return results


class _Taken(Exception):
    """The client took what it may take, since its WebSocket library did not see what is wrong."""


class _Run:
    """One scenario under way."""

    def __init__(self, client: _Client, scenario: ClientScenario, timeout: float) -> None:
        self._client = client
        self._scenario = scenario
        self._timeout = timeout
        self._pending: dict[int, int] = {}
        self._calls = 0
        self._end: End
        self._is_over = False
        # Only the first thing that a client asks may be what the server can do.
        self._may_ask = True
        self._arrived: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def run(self) -> str:
        """Run it; return why it shows nothing of this client, if so.

        Raises:
            Mismatch: the client did not do what it should.
        """

        def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._arrived.put_nowait((reader, writer))

        server = await asyncio.start_server(arrive, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with self._limit("opening"):
                answer = await self._open(f"ws://127.0.0.1:{port}/")
                is_open = self._scenario.refuse is None and not (
                    self._scenario.may_refuse and "error" in answer
                )
                _compare(answer, ClientStep(result={}) if is_open else ClientStep(error="lost"))
            self._is_over = not is_open
            return await self._converse(self._scenario.steps if is_open else ())
        finally:
            server.close()
            if hasattr(self, "_end"):
                self._end.drop()
            while not self._arrived.empty():
                _, writer = self._arrived.get_nowait()
                writer.close()

    async def _open(self, url: str) -> dict[str, Any]:
        """Let the client open a connection; return what it says came of that.

        Raises:
            Mismatch: it did not connect, or sent what it was not told to.
        """
        opening = await self._client.say("open", url=url)
        begun: list[asyncio.Future[Any]] = []
        try:
            begun.append(hearing := asyncio.ensure_future(self._client.hear(opening)))
            begun.append(arriving := asyncio.ensure_future(self._arrived.get()))
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            if not arriving.done():
                raise Mismatch(f"the client answered {await hearing} and did not connect")
            refuse = self._scenario.refuse
            self._end = await End.accept(*arriving.result(), self._scenario.knows, refuse)
            if refuse is None:
                begun.append(greeting := asyncio.ensure_future(self._greet()))
                await asyncio.wait({hearing, greeting}, return_when=asyncio.FIRST_COMPLETED)
                if greeting.done():
                    await greeting
            return await hearing
        finally:
            await _cancel(*begun)

    async def _greet(self) -> None:
        """Until the client ends the connection, answer it if it asks what the server can do.

        Raises:
            Mismatch: it asks for something else, or twice.
        """
        while await self._end.has_message():
            message = await self._end.message()
            if not (self._may_ask and _is_info(message)):
                raise Mismatch(f"the client sent an unexpected message: {message[:_SHOWN]}")
            await self._tell_info()

    async def _converse(self, steps: Sequence[ClientStep]) -> str:
        why = ""
        try:
            for number, step in enumerate(steps, 1):
                await self._take_all(f"step {number} of {len(steps)}", step)
        except _Taken:
            why = "they need a client whose WebSocket library looks at the lengths of frames"
        async with self._limit("closing"):
            closing = await self._client.say("close")
            if not self._is_over:
                await self._closed()
                self._end.drop()
            _compare(await self._client.hear(closing), ClientStep(result={}))
        return why

    async def _take_all(self, where: str, step: ClientStep) -> None:
        """Do a step, as often as it can be cut if it is to be."""
        async with self._limit(where, step):
            if step.cut >= 0:
                await self._take(step)
                return
        assert isinstance(step.reply, str)
        for cut in range(1, len(self._frame(self._filled(step.reply)))):
            again = msgspec.structs.replace(step, cut=cut)
            async with self._limit(f"{where}, cut behind byte {cut}", step):
                await self._take(again)

    @contextlib.asynccontextmanager
    async def _limit(self, where: str, step: ClientStep | None = None) -> AsyncIterator[None]:
        shown = "" if step is None else f"\n    step {msgspec.json.encode(step).decode()[:_SHOWN]}"
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError:
            again = "" if self._arrived.empty() else ", and the client has connected again"
            raise Mismatch(f"{where}: nothing within {self._timeout:g} s{again}{shown}") from None
        except (Mismatch, asyncio.IncompleteReadError) as difference:
            raise Mismatch(f"{where}: {difference}{shown}") from None

    async def _take(self, step: ClientStep) -> None:
        if step.call is not None:
            limit = {} if step.timeout is None else {"timeout": step.timeout}
            self._calls += 1
            self._pending[self._calls] = await self._client.say(
                step.call, params=step.params, **limit
            )
        if step.request is not None:
            _compare_requests(step.request, await self._request(step.request))
        await self._reply(step)
        if step.ping is not None:
            payload = step.ping.encode()
            await self._end.write(Frame(Opcode.PING, payload).serialize(mask=False))
            await self._expect_pong(payload)
        if step.raw:
            await self._end.write(bytes.fromhex(step.raw))
        if step.close is not None:
            self._end.send_close(step.close)
        if step.drop:
            self._is_over = True
            self._end.drop()
        ends = step.close is not None or step.ends
        has_outcome = step.result is not None or step.error is not None
        await _together(
            *([self._leave(step)] if ends else ()),
            *([self._hear(step)] if has_outcome else ()),
        )
        if step.expect_close and not step.ends:
            self._is_over = True
            code, _ = await self._closed()
            self._end.drop()
            if code not in step.expect_close:
                raise Mismatch(f"the client closed with {code}")

    async def _leave(self, step: ClientStep) -> None:
        """Wait until the client has ended the connection."""
        await self._end.ended()
        self._is_over = True
        self._end.drop()
        code = self._end.close_code
        if step.expect_close and code is not None and code not in step.expect_close:
            raise Mismatch(f"the client closed with {code}")

    async def _hear(self, step: ClientStep) -> None:
        """Wait until the client says what came of a call.

        Raises:
            Mismatch: it is something else than should have.
            _Taken: it did not see what was wrong.
        """
        answer = await self._answer(self._pending.pop(step.of or min(self._pending)), step)
        if step.may_take is not None and "result" in answer:
            _compare(answer, ClientStep(result=step.may_take))
            raise _Taken
        _compare(answer, step)
        if step.result is not None and answer.get("error") == "lost":
            await self._leave(step)

    async def _answer(self, call: int, step: ClientStep) -> dict[str, Any]:
        if not (self._may_ask and step.request is not None and _is_info(step.request)):
            return await self._client.hear(call)
        self._may_ask = False
        # The client may have asked by itself, and not yet for the call.
        hearing = asyncio.ensure_future(self._client.hear(call))
        asking = asyncio.ensure_future(self._end.has_message())
        try:
            await asyncio.wait({hearing, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done() and await asking:
                _compare_requests(step.request, await self._end.message())
                await self._reply(step)
            return await hearing
        finally:
            await _cancel(hearing, asking)

    async def _closed(self) -> tuple[int, str]:
        if self._may_ask:
            await self._greet()
        return await self._end.closed()

    async def _request(self, expected: str) -> str:
        """Return the next request; before the first, the client may ask what the server can do."""
        message = await self._end.message()
        if _is_info(expected):
            return message
        if self._may_ask and _is_info(message):
            await self._tell_info()
            message = await self._end.message()
        self._may_ask = False
        return message

    async def _tell_info(self) -> None:
        self._may_ask = False
        await self._end.write(self._frame(self._scenario.info.encode()))

    async def _reply(self, step: ClientStep) -> None:
        replies = (step.reply,) if isinstance(step.reply, str) else step.reply
        if not replies:
            return
        data = b"".join(self._frame(self._filled(reply), step) for reply in replies)
        piece = step.cut or step.piece or len(data)
        await self._end.write(data[:piece])
        rest = data[piece:]
        piece = step.piece or len(rest) or 1
        for start in range(0, len(rest), piece):
            await asyncio.sleep(_PAUSE)
            await self._end.write(rest[start : start + piece])
        # Of several pings, the last may be answered alone (RFC 6455, section 5.5.3).
        while step.pings and await self._end.pong() != _LAST:
            pass

    def _filled(self, reply: str) -> bytes:
        form = r'"\1"' if self._end.subprotocol == NDB_V1_TEXT else r"\1"
        return _TOKEN.sub(form, reply).encode()

    @staticmethod
    def _frame(payload: bytes, step: ClientStep = _AS_IT_IS) -> bytes:
        if not step.fragment:
            return Frame(Opcode.TEXT, payload).serialize(mask=False)
        return b"".join(_fragments(payload, step.fragment, pings=step.pings))

    async def _expect_pong(self, payload: bytes) -> None:
        pong = await self._end.pong()
        if pong != payload:
            raise Mismatch(f"a pong with {pong!r}, not {payload!r}")


async def _together(*what: Coroutine[Any, Any, None]) -> None:
    """Wait for all of it; if something goes wrong, no longer for the rest."""
    tasks = [asyncio.ensure_future(one) for one in what]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _cancel(*tasks)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_LAST = b"0"
"""The payload of the last ping of a reply."""


def _fragments(payload: bytes, size: int, *, pings: bool) -> Iterator[bytes]:
    """Yield frames with `payload`, and with `pings` before each how many come behind it."""
    starts = range(0, len(payload), size)
    for behind, start in zip(reversed(range(len(starts))), starts, strict=True):
        if pings:
            yield Frame(Opcode.PING, b"%d" % behind).serialize(mask=False)
        opcode = Opcode.CONT if start else Opcode.TEXT
        fragment = payload[start : start + size]
        yield Frame(opcode, fragment, fin=behind == 0).serialize(mask=False)


def _compare(answer: dict[str, Any], step: ClientStep) -> None:
    """Compare what came of a call with what should have: members that nobody expects don't matter.

    Raises:
        Mismatch: it is something else.
    """
    if step.may_fail is not None and answer.get("error") == step.may_fail:
        return
    if step.error is not None:
        expected: dict[str, Any] = {"error": step.error}
        got: Any = answer
        if _SECRET.search(str(answer)):
            raise Mismatch("a token in an error")
        if step.status is not None:
            expected["status"] = step.status
    else:
        expected, got = step.result or {}, answer.get("result")
    if not isinstance(got, dict) or {name: got.get(name) for name in expected} != expected:
        raise Mismatch(f"the client answered {str(answer)[:_SHOWN]}, not {str(expected)[:_SHOWN]}")


def _is_info(message: str) -> bool:
    try:
        return _decoded(message)[0] == "SV_INFO"
    except RequestError:
        return False


def _compare_requests(expected: str, got: str) -> None:
    try:
        requests = [_decoded(message) for message in (expected, got)]
    except RequestError as error:
        raise Mismatch(f"a server refuses this request: {error}\n     got {got}") from None
    if requests[0] != requests[1]:
        raise Mismatch(f"another request\nexpected {expected}\n     got {got}")


def _decoded(message: str) -> tuple[str, Any]:
    """Return what a server would understand: tokens in either form, defaults filled in."""
    command, params = decode_request(message.encode())
    return command.name, msgspec.json.decode(msgspec.json.encode(params))
