"""WebSocket connections: from the bytes of a TCP read to messages, and from replies to one write.

`ServerProtocol` of ``websockets`` implements the protocol: the opening handshake, control frames,
fragments, closing and every violation. In front of it is a fast path for nearly every frame: final,
text, masked, complete in the buffer, not inside a fragmented message. Every other frame is passed
on complete, and one at a time. If `ServerProtocol` got a whole read at once, it would enter the
closing state before the requests in front of a close frame, or of a violation, are answered.

Replies leave in the order of the requests. If the client does not read them, requests wait: first
in the buffer here, then, as reading pauses, in the socket (back-pressure). A client that reads
nothing for `Timeouts.write` seconds is cut off.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, cast

from ndb_protocol import NDB_V1, NDB_V1_TEXT
from ndb_protocol.frame_lengths import LEAST, length_violation
from websockets.exceptions import InvalidHeader
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ..http.responses import Answer, Refusal, refusal_response
from ..http.routes import Authorizer, asks_for_websocket, upgrade_required
from ..interfaces import CommitGate, Respond, ThrottledReply
from ..limits import UNLIMITED, Limits
from .opening import Opening, check_handshake, wrong_header
from .peer import Peer, peer_of

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

logger = logging.getLogger("ndb_server.transport")

# At DEBUG it would log frames, and with them tokens.
_protocol_logger = logger.getChild("protocol")
_protocol_logger.setLevel(logging.WARNING)

SUBPROTOCOLS = [Subprotocol(NDB_V1), Subprotocol(NDB_V1_TEXT)]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the server waits, in seconds.

    Attributes:
        handshake: for a new connection's opening handshake.
        close: for the client to close the TCP connection once the closing handshake is under way.
        write: for the client to read any of the replies that wait for it; and for a reply that is
            held back from it, once it has ended its side.
        ping: for any sign of life before a ping is sent, and again before the connection is closed.
        idle: for a request; 0 for ever.
    """

    handshake: float = 10
    close: float = 10
    write: float = 30
    ping: float = 20
    idle: float = 0


@dataclass(slots=True)
class Traffic:
    """What has happened on all connections that share it since the start.

    Attributes:
        received: bytes that were read.
        sent: bytes that were written.
        opened: WebSocket connections that were opened.
        binary: binary messages that were answered.
        waiting: bytes that are buffered now: of unread replies, and of incomplete messages.
    """

    received: int = 0
    sent: int = 0
    opened: int = 0
    binary: int = 0
    waiting: int = 0


class Admission(Authorizer, Protocol):
    """Decides on the first request of one connection, and is told when that has ended."""

    def forwarded_for(self, request: Request) -> str | None:
        """Return the client's address where it is not the peer's, as a proxy says."""
        raise NotImplementedError

    def admit(self, request: Request) -> Refusal | Respond:
        """Decide on a handshake that is one: refuse it, or say what answers the client."""
        raise NotImplementedError

    def refused(self, reason: str) -> None:
        """Count that the client was refused, for one of a few reasons."""

    def leave(self) -> None:
        """Take notice of the end."""

    def reached(self, limit: str) -> None:
        """Count that the client came to a limit."""

    @property
    def withdrawn(self) -> bool:
        """Whether what it was let in for is none any more."""
        raise NotImplementedError


MAX_MESSAGE_SIZE = UNLIMITED.message_size
"""The largest message taken, in bytes, unless told otherwise; a larger one closes the connection
with 1009."""

AnswerHttp = Callable[[Request, Admission | None], Answer | None]
"""Answers a request of plain HTTP; None if it is for others."""

_HELD = 16
"""Reads whose replies may be held before no more is read from a connection."""

_READ_AHEAD = 2**16
"""Bytes taken in behind a request that is being answered; enough to see pings."""

# To look a member of an enum up takes longer than to compare it.
_CONNECTING, _OPEN = State.CONNECTING, State.OPEN

_FINAL_TEXT = 0x81
_PING = 0x89
_PONG = 0x8A
_MASKED = 0x80
_MASK_END = 6
"""Where the payload of a short frame begins, behind its two first bytes and the masking key."""

_CONTROL_PAYLOAD_SIZE = 125
"""The most bytes that a ping has (RFC 6455, section 5.5)."""


_SHORT_HEADERS = [b"\x81%c" % size for size in range(126)]


def text_header(size: int) -> bytes:
    """Return the header of a final, unmasked text frame of `size` bytes (RFC 6455, section 5.2)."""
    if size < 126:
        return _SHORT_HEADERS[size]
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2)
    return b"\x81\x7f" + size.to_bytes(8)


def text_messages(
    data: bytes, position: int, turns: range, max_size: int
) -> tuple[list[bytes], list[int]]:
    """Return the text messages that are whole in frames one after the other from `position` on.

    It stops at the first frame that is anything else or larger than `max_size` bytes, at a message
    that is not UTF-8, and when there is a message for each of `turns`.

    Returns:
        The messages, and where the frame of each ends.
    """
    messages: list[bytes] = []
    ends: list[int] = []
    total = len(data)
    for _ in turns:
        if total - position < _MASK_END or data[position] != _FINAL_TEXT:
            break
        length = data[position + 1] - _MASKED
        payload = position + _MASK_END
        if length > _CONTROL_PAYLOAD_SIZE:
            wide = 2 if length == 126 else 8
            payload += wide
            length = int.from_bytes(data[position + 2 : position + 2 + wide])
            if length > max_size or length < LEAST[wide]:
                break
        position = payload + length
        if length < 0 or position > total:
            break
        message = apply_mask(data[payload:position], data[payload - 4 : payload])
        if not message.isascii() and not_utf8(message):
            break
        messages.append(message)
        ends.append(position)
    return messages, ends


def not_utf8(message: bytes | bytearray) -> str:
    """Return why `message` is not UTF-8; nothing if it is."""
    try:
        message.decode()
    except UnicodeDecodeError as error:
        return f"{error.reason} at position {error.start}"
    return ""


def select_subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first of the client's offers that is known here; none is needed."""
    return next((name for name in offered if name in SUBPROTOCOLS), None)


# Event loops fill it and say so in one step, so all connections can share it.
_read_buffer = memoryview(bytearray(2**18))


class Connection(asyncio.Protocol, asyncio.BufferedProtocol):
    """One client.

    It is both kinds of protocol, and each event loop takes the one that it is the faster with. The
    buffer that asyncio makes for each read of a `Protocol` is mapped and unmapped each time, at the
    price of several requests; uvloop has one buffer of its own.

    Args:
        respond: answers text messages.
        clock: returns the time in ms that `respond` is given: the requests of one read have one.
        not_text: the answer to a binary message.
        connections: where this connection is listed while it is open.
        timeouts: how long to wait for what.
        traffic: what is counted of it.
        answer_http: answers a request of plain HTTP, given who decides on it; None leaves it to be
            an opening handshake.
        admit_client: is given the client's address, and returns who decides on its handshake;
            None to end the connection at once. Without it every client is accepted.
        limits: the limits for a client.
    """

    def __init__(
        self,
        respond: Respond,
        clock: Callable[[], int],
        not_text: bytes,
        connections: "set[Connection]",
        timeouts: Timeouts,
        traffic: Traffic | None = None,
        answer_http: AnswerHttp = upgrade_required,
        admit_client: Callable[[str], Admission | None] | None = None,
        limits: Limits = UNLIMITED,
    ) -> None:
        self._respond = respond
        self._clock = clock
        self._not_text = not_text
        self._connections = connections
        self._timeouts = timeouts
        self._traffic = Traffic() if traffic is None else traffic
        self._answer_http = answer_http
        self._arrive = admit_client
        self._admission: Admission | None = None
        self._peer = Peer()
        self._max_size = limits.message_size
        self._most_waiting = limits.memory or sys.maxsize
        self._kept = 0
        self._turns = range(limits.in_flight or sys.maxsize)
        self._loop = asyncio.get_running_loop()
        self._ws = ServerProtocol(
            subprotocols=SUBPROTOCOLS,
            select_subprotocol=select_subprotocol,
            max_size=limits.message_size,
            logger=_protocol_logger,
        )
        # None once the opening handshake is done.
        self._opening: Opening | None = Opening()
        self._text_tokens = False
        # Bytes that could not be processed yet, and how many there must be to go on.
        self._pending = bytearray()
        self._needed = 0
        # Opcode and payload so far of a fragmented message.
        self._fragments: tuple[Opcode, bytearray] | None = None
        # The request whose answer takes a thread; those behind it wait.
        self._answering: asyncio.Future[None] | None = None
        self._is_throttled = False
        # Replies of reads, some of which wait until a change is durable, and how many were sent.
        self._held: deque[tuple[Sequence[bytes], int, CommitGate | None]] = deque()
        # There are more requests here than are answered together: the others' turn comes first.
        self._turn: asyncio.Handle | None = None
        # The client has until the timer to end the connection.
        self._ending = False
        # The client has ended its side; the server is shutting down.
        self._at_eof = False
        self._going_away = False
        self._write_paused = False
        self._unsent = 0
        self._writing: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = True
        self._pinged = False
        self._requested = 0
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether the opening handshake is done, and no closing handshake has begun."""
        return self._ws.state is State.OPEN

    @property
    def peer(self) -> str:
        """The client's address and port; of a Unix socket's client, its user and process."""
        return str(self._peer)

    # asyncio.Protocol and asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = peer_of(transport)
        self._connections.add(self)
        self._timer = self._loop.call_later(self._timeouts.handshake, self._abort_handshake)
        if self._arrive is not None:
            self._admission = self._arrive(self._peer.address)
            if self._admission is None:
                self._abort("too many connections")

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            data = bytes(_read_buffer[:nbytes])
        except MemoryError:
            self._give_up()
        else:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._traffic.received += len(data)
        pending = self._pending
        try:
            if self._turn is not None:
                pending += data
            elif not pending:
                consumed = self._process(data)
                if consumed < len(data):
                    pending += memoryview(data)[consumed:]
            else:
                pending += data
                if len(pending) >= self._needed:
                    self._process_pending()
            if pending or self._kept:
                self._keep()
            if self._waits:
                self._proceed()
        except MemoryError:
            self._give_up()

    def eof_received(self) -> bool:
        # Whoever has asked may end its side, and be answered still.
        self._at_eof = True
        self._bound_waiting()
        self._go_on()
        # With TLS the connection ends here, whatever is returned.
        return self._transport.can_write_eof()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._keep()
        self._watch_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._unsent = 0
        self._keep()
        self._stop_watching()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._stop_watching()
        if self._turn is not None:
            self._turn.cancel()
        self._connections.discard(self)
        if self._admission is not None:
            self._admission.leave()
        self._pending.clear()
        self._let_go()
        self.closed.set_result(None)

    # What waits

    def _keep(self) -> None:
        """Count what waits here; if there is too much on all connections, cut off who has most."""
        if self._transport.is_closing():
            return
        kept = len(self._pending) + self._unsent
        if self._fragments is not None:
            kept += len(self._fragments[1])
        self._traffic.waiting += kept - self._kept
        self._kept = kept
        if self._traffic.waiting > self._most_waiting:
            greediest = max(self._connections, key=lambda one: one._kept)
            greediest._let_go()
            greediest._reached("waiting")
            greediest._abort("too much data waits for clients, and most of it for this one")

    def _let_go(self) -> None:
        self._traffic.waiting -= self._kept
        self._kept = 0

    # Reading

    @property
    def _waits(self) -> bool:
        """Whether requests that are here can't be answered yet."""
        return (
            self._write_paused
            or self._answering is not None
            or self._turn is not None
            or bool(self._held)
        )

    def _take_turn(self) -> None:
        self._turn = None
        self._go_on()

    def _go_on(self) -> None:
        # Where it is the others' turn, this goes on behind them.
        if not self._transport.is_closing() and self._turn is None:
            try:
                self._process_pending()
                self._proceed()
            except MemoryError:
                self._give_up()

    def _give_up(self) -> None:
        """End the connection: there is no memory for what comes, or for what is to be said."""
        self._reached("process_memory")
        self._abort("the server ran out of memory")

    def _process_pending(self) -> None:
        if self._pending:
            # Processing may fill the buffer no more: nothing reads meanwhile.
            consumed = self._process(bytes(self._pending))
            del self._pending[:consumed]

    def _proceed(self) -> None:
        """Do what follows once all that can be processed by now has been."""
        waiting = self._waits
        if not waiting and self._at_eof:
            self._ws.receive_eof()
            self._transport.close()
            self._set_timer(self._timeouts.close, "the client does not read its replies")
        elif not waiting and self._going_away and self._ws.state is State.OPEN:
            self._ws.send_close(CloseCode.GOING_AWAY, "server is shutting down")
            self._write_protocol()
        if self._transport.is_closing():
            return
        # Read from the socket only while what is read can be processed soon.
        if (
            self._write_paused
            or self._turn is not None
            or len(self._held) >= _HELD
            or (
                (self._answering is not None or self._held)
                and (self._going_away or len(self._pending) >= _READ_AHEAD)
            )
        ):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _process(self, data: bytes) -> int:
        """Process the frames at the beginning of `data`; return how many bytes they have."""
        self._needed = position = 0
        total = len(data)
        state = self._ws.state
        if state is _CONNECTING:
            position = self._handshake(data)
            state = self._ws.state
        now = self._clock()
        is_open = state is _OPEN
        handed_over = 0
        while is_open and position < total and not self._write_paused and len(self._held) < _HELD:
            if self._answering is None and self._fragments is None:
                messages, ends = text_messages(data, position, self._turns, self._max_size)
                if messages:
                    run = self._answer(messages, now)
                    position = ends[run - 1]
                    if position < total and len(messages) == len(self._turns):
                        self._reached("in_flight")
                    elif run == len(messages) or self._answering is not None:
                        continue
                    # The others' turn comes first.
                    self._turn = self._loop.call_soon(self._take_turn)
                    break
            if total - position < 2:
                break
            if handed_over == len(self._turns):
                # Frames that ask for nothing take time too.
                self._reached("in_flight")
                self._turn = self._loop.call_soon(self._take_turn)
                break
            first, second = data[position], data[position + 1]
            if (self._answering is not None or self._held) and not (
                first in (_PING, _PONG) and _MASKED <= second <= _MASKED + _CONTROL_PAYLOAD_SIZE
            ):
                # Even a violation waits: the request in front of it is answered first.
                break
            if second < _MASKED:
                # A violation, whatever follows.
                self._hand_over(data[position:])
                is_open = False
                position = total
                break
            payload = position + _MASK_END
            length = second - _MASKED
            if length > 125:
                wide = 2 if length == 126 else 8
                payload += wide
                if total < payload:
                    break
                length = int.from_bytes(data[position + 2 : position + 2 + wide])
                if reason := length_violation(first, length, wide):
                    self._ws.fail(CloseCode.PROTOCOL_ERROR, reason)
                    self._log_closing()
                    is_open = False
                    break
                if length > self._max_size:
                    # Refused for its header alone: nothing of it is buffered.
                    self._hand_over(data[position:payload])
                    is_open = False
                    position = payload
                    break
            end = payload + length
            if end > total:
                self._needed = end - position
                break
            message = self._hand_over(data[position:end])
            handed_over += 1
            position = end
            if message is not None:
                self._answer([message], now)
            is_open = self._ws.state is _OPEN
        if is_open or (self._ws.state is _CONNECTING and not self._ws.close_expected()):
            return position
        # Requests behind a close frame, sent or received, are not run (RFC 6455, section 1.4): what
        # matters of the rest is the client's own close frame.
        self._ws.receive_data(data[position:])
        self._ws.events_received()
        self._write_protocol()
        return total

    def _handshake(self, data: bytes) -> int:
        """Read the first request; return how many bytes of `data` belong to it."""
        if self._opening is None:
            return 0
        found = self._opening.receive(data)
        if found is None:
            return len(data)
        rest = len(self._opening.rest)
        self._opening = None
        if isinstance(found, Refusal):
            self._answer_with(found)
        else:
            self._accept(found)
        self._write_protocol()
        return len(data) - rest

    def _accept(self, request: Request) -> None:
        if self._admission is not None and (address := self._admission.forwarded_for(request)):
            self._peer = Peer(address, f"through {self._peer}")
        answer = self._answer_http(request, self._admission)
        if answer is not None:
            self._answer_with(answer, request)
            return
        refusal = check_handshake(request)
        # `ServerProtocol` takes no other protocols beside it, as RFC 6455, section 4.2.1, does.
        del request.headers["Upgrade"]
        request.headers["Upgrade"] = "websocket"
        response = self._ws.accept(request)
        if refusal is None and response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            error = self._ws.handshake_exc
            assert isinstance(error, InvalidHeader), error
            refusal = wrong_header(error.name)
        decision = refusal or (
            self._respond if self._admission is None else self._admission.admit(request)
        )
        if isinstance(decision, Refusal):
            self._answer_with(decision, request)
            return
        self._respond = decision
        # The request was read by another parser; this has its own go on to the frames.
        self._ws.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        self._ws.events_received()
        self._open(response)

    def _answer_with(self, answer: Answer, request: Request | None = None) -> None:
        """Answer the first request with something else than a WebSocket connection."""
        if isinstance(answer, Refusal):
            is_handshake = request is not None and asks_for_websocket(request)
            what = "handshake" if is_handshake else "request"
            self._refused(what, answer.cause, answer.message)
            answer = refusal_response(answer)
        if request is not None and request.method == "HEAD":
            answer.body = b""
        self._ws.send_response(answer)

    def _open(self, response: Response) -> None:
        self._ws.send_response(response)
        self._cancel_timer()
        if self._timeouts.idle:
            self._requested = self._clock()
            self._timer = self._loop.call_later(self._timeouts.idle, self._check_idle)
        self._traffic.opened += 1
        self._text_tokens = self._ws.subprotocol == NDB_V1_TEXT

    def _refused(self, what: str, cause: str, reason: str) -> None:
        if self._admission is not None:
            self._admission.refused(cause)
        logger.info(
            "%s refused, from %s: %s",
            what,
            self.peer,
            reason,
            extra={"peer": self.peer, "reason": reason},
        )

    def _hand_over(self, data: bytes) -> bytes | None:
        """Let `ServerProtocol` process a frame, and send what it says to it.

        Returns:
            The text message that the frame ends, if it ends one.
        """
        text = None
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            frame = cast(Frame, event)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._fragments = (frame.opcode, bytearray(frame.data))
            elif frame.opcode is Opcode.CONT and self._fragments is not None:
                self._fragments[1].extend(frame.data)
            else:
                continue
            if frame.fin:
                opcode, message = self._fragments
                self._fragments = None
                if opcode is Opcode.BINARY:
                    self._answer_binary(bytes(message))
                elif reason := not_utf8(message):
                    # RFC 6455, section 8.1.
                    self._ws.fail(CloseCode.INVALID_DATA, reason)
                else:
                    text = bytes(message)
        self._log_closing()
        if chunks := self._ws.data_to_send():
            self._write(chunks)
        return text

    def _log_closing(self) -> None:
        """Say why the connection is closed, if that is the client's fault."""
        closing = self._ws.close_sent
        if closing is not None and self._ws.close_rcvd is None:
            logger.info("connection closed, from %s: %s", self.peer, closing)
            if closing.code == CloseCode.MESSAGE_TOO_BIG:
                self._reached("message_size")

    # Answering

    def _answer(self, messages: Sequence[bytes], now: int) -> int:
        """Answer `messages`, or the first of them; return how many were run."""
        self._requested = now
        replies, hold = self._respond(messages, now, self._text_tokens)
        run = len(replies)
        last = replies[-1]
        if type(last) is not bytes:
            replies = replies[:-1]
            self._answering = asyncio.ensure_future(
                self._answer_later(cast(Awaitable[bytes], last))
            )
            self._is_throttled = isinstance(last, ThrottledReply)
            self._bound_waiting()
        texts = cast(Sequence[bytes], replies)
        if hold is None and not self._held:
            self._send(texts)
            return run
        sent = 0
        if hold is not None:
            hold.batch.waiters[self] = None
            if not self._held:
                sent = hold.first
                self._send(texts[:sent])
        if sent < len(texts):
            self._held.append((texts, sent, hold))
        return run

    @property
    def gates(self) -> Iterator[CommitGate]:
        """What replies wait for, in their order; those of a client that has gone too."""
        return (hold for _, _, hold in self._held if hold is not None)

    def batch_done(self) -> None:
        """Send the replies that nothing holds any more."""
        try:
            self._send_settled()
        except MemoryError:
            self._give_up()
        # Not before everyone has been told what became of the batch.
        self._loop.call_soon(self._go_on)

    def _send_settled(self) -> None:
        held, now = self._held, self._clock()
        while held:
            texts, sent, hold = held[0]
            if hold is not None and hold.batch.committed is None:
                break
            if hold is not None and hold.batch.committed is False:
                numbers = range(hold.first, len(texts))
                texts = [
                    *texts[: hold.first],
                    *(hold.reply_if_undone(number, now) for number in numbers),
                ]
            held.popleft()
            if not self.closed.done():
                self._send(texts[sent:])

    def _send(self, texts: Sequence[bytes]) -> None:
        chunks: list[bytes] = []
        for text in texts:
            size = len(text)
            chunks.append(_SHORT_HEADERS[size] if size < 126 else text_header(size))
            chunks.append(text)
        if chunks:
            self._write(chunks)

    def _answer_binary(self, message: bytes) -> None:
        self._traffic.binary += 1
        self._send([self._not_text])

    def _bound_waiting(self) -> None:
        """See to it that who ended its side is not kept for hours for a reply held back from it."""
        if self._at_eof and self._is_throttled:
            self._set_timer(
                self._timeouts.write, "the client ended its side while its reply was held back"
            )

    async def _answer_later(self, reply: Awaitable[bytes]) -> None:
        message = await reply
        if self.closed.done():
            return
        self._answering = None
        if self._at_eof and self._is_throttled:
            self._cancel_timer()
        self._is_throttled = False
        if self._held:
            self._held.append(([message], 0, None))
        else:
            self._send([message])
        self._go_on()

    # Writing

    def _write(self, chunks: list[bytes]) -> None:
        data = b"".join(chunks)
        self._traffic.sent += len(data)
        if self._write_paused:
            self._unsent += len(data)
            self._keep()
        self._transport.write(data)

    def _write_protocol(self) -> None:
        """Write what `ServerProtocol` has to say, and see to the end if that was its last word."""
        if chunks := self._ws.data_to_send():
            self._write(chunks)
        if self._ws.eof_sent and self._transport.can_write_eof():
            # Half a close: the client reads our last frames before it sees the end, and what it
            # still sends is read, so that no reset overtakes them.
            # A client that has reset the connection meanwhile has no end to see.
            with suppress(OSError):
                self._transport.write_eof()
        elif self._ws.eof_sent:
            # With TLS there are no halves; what is written leaves before the end.
            self._transport.close()
        if self._ws.close_expected() and not self._ending:
            self._ending = True
            self._set_timer(self._timeouts.close, "the client did not close the connection")

    def _watch_writing(self) -> None:
        self._writing = self._loop.call_later(self._timeouts.write, self._check_writing)

    def _stop_watching(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _check_writing(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent = unsent
            self._keep()
            self._watch_writing()
        else:
            self._reached("write")
            self._abort("the client does not read its replies")

    # Time

    def _set_timer(self, delay: float, reason: str) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay, self._abort, reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort_handshake(self) -> None:
        self._reached("handshake")
        self._abort("the opening handshake was not complete in time")

    def _check_idle(self) -> None:
        now = self._clock()
        if self._waits:
            self._requested = now
        left = self._timeouts.idle - (now - self._requested) / 1000
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        elif self._ws.state is State.OPEN:
            self._reached("idle")
            self._end(CloseCode.GOING_AWAY, f"no request for {self._timeouts.idle:g} seconds")

    def withdraw(self) -> None:
        """Close the connection with 1008 if what it was let in for is none any more."""
        if self._admission is None or not self._admission.withdrawn:
            return
        if self._waits:
            self._abort("the credentials were revoked")
        elif self._ws.state is State.OPEN:
            self._end(CloseCode.POLICY_VIOLATION, "the credentials were revoked")

    def _end(self, code: CloseCode, reason: str) -> None:
        logger.info("connection closed, from %s: %s", self.peer, reason)
        self._ws.fail(code, reason)
        self._write_protocol()

    def _reached(self, limit: str) -> None:
        if self._admission is not None:
            self._admission.reached(limit)

    def _abort(self, reason: str) -> None:
        logger.info(
            "connection aborted, from %s: %s",
            self.peer,
            reason,
            extra={"peer": self.peer, "reason": reason},
        )
        self._transport.abort()

    def cut(self) -> None:
        """End the connection now, whatever was to be said on it still."""
        if self._answering is not None:
            self._answering.cancel()
        self._transport.abort()

    def check_alive(self) -> None:
        """Ping a client that has been silent since the last call, close one that stays so."""
        if self._ws.state is not State.OPEN or self._waits:
            # It is the server's turn; and what the client says may not be read.
            return
        if self._heard:
            self._heard = self._pinged = False
        elif not self._pinged:
            self._pinged = True
            self._ws.send_ping(b"")
        else:
            self._ws.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        self._write_protocol()

    async def shut_down(self) -> None:
        """Answer what has arrived, close with 1001 and wait until the connection has ended."""
        self._going_away = True
        if self._ws.state is State.CONNECTING:
            self._transport.abort()
        self._go_on()
        await self.closed
