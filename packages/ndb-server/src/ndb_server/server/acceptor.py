"""Accepts connections, with a limited number of file descriptors.

Event loops can accept connections themselves, but handle a lack of descriptors badly: asyncio
tries thousands of times and logs each attempt, and uvloop silently closes every new connection.
Here accepting pauses: new connections wait in the kernel, and the begin and the end of the pause
are logged once each.

It pauses before all descriptors are used. The server needs some for itself, to save and to answer
operators. So acceptors for clients leave some descriptors free, and acceptors for operators leave a
few. The system always assigns the lowest free number, so the number of a new descriptor shows how
many are in use.
"""

import asyncio
import errno
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .listeners import SocketFile

logger = logging.getLogger("ndb_server.accepting")

_AT_ONCE = 64
"""Connections that are accepted in one turn of the event loop; the others' turn comes first."""

_RETRY = 0.1
"""Seconds until it is tried again."""

_CALM = 1.0
"""Seconds that it has to go well until all is well again: what stops and starts is one trouble."""

RAISE_THE_LIMIT = "raise the limit (ulimit -n, LimitNOFILE= of systemd)"

# The client is gone already, as accept(2) says of these.
_GONE = {errno.ECONNABORTED, errno.EINTR, errno.EPROTO}


class AcceptPause:
    """Knows whether the server accepts connections, and has it tried again when it doesn't.

    All `Acceptor` of a server share it: descriptors are the process'.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Callable[[], None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._begin: float | None = None
        self._last = 0.0
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """For how many seconds no connections were accepted, in all."""
        now = self._loop.time()
        return self._seconds + (0 if self._begin is None else now - self._begin)

    def begin(self, again: Callable[[], None], reason: str) -> None:
        """Have `again` be called later, as accepting has failed.

        Args:
            again: tries again.
            reason: why it failed, for the log.
        """
        self._last = self._loop.time()
        self._waiting[again] = None
        if self._begin is None:
            self._begin = self._last
            logger.warning(
                "not accepting connections: %s; existing connections are still served", reason
            )
        if self._timer is None:
            self._timer = self._loop.call_later(_RETRY, self._try)

    def forget(self, again: Callable[[], None]) -> None:
        """Call `again` no more."""
        self._waiting.pop(again, None)
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None

    def _try(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._timer = None
        for again in waiting:
            again()
        now = self._loop.time()
        if now - self._last < _CALM:
            self._timer = self._timer or self._loop.call_later(_RETRY, self._try)
        elif self._begin is not None:
            seconds = now - self._begin
            self._seconds += seconds
            self._begin = None
            logger.info(
                "accepting connections again after %.0f s",
                seconds,
                extra={"duration_ms": round(seconds * 1000)},
            )


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How connections are encrypted.

    Attributes:
        context: the certificates.
        handshake_timeout: seconds for the handshake of TLS.
        shutdown_timeout: seconds for its end.
    """

    context: ssl.SSLContext
    handshake_timeout: float
    shutdown_timeout: float


class Acceptor:
    """Accepts connections on one socket that listens, from now on.

    Args:
        listening: the socket; it is closed in the end.
        meet: makes the protocol of a connection.
        pause: is told when connections can't be accepted.
        most: descriptors that there may be in the process; None for as many as the system lets it.
        encryption: how connections are encrypted; None for not at all.
        file: the socket's file, to be removed in the end.
    """

    def __init__(
        self,
        listening: socket.socket,
        meet: Callable[[], asyncio.BaseProtocol],
        pause: AcceptPause,
        most: int | None = None,
        encryption: TlsSettings | None = None,
        file: SocketFile | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.socket = listening
        self._meet = meet
        self._pause = pause
        self._most = sys.maxsize if most is None else most
        self._encryption = encryption
        self._file = file
        self._meeting: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def has_room(self, others: int) -> bool:
        """Tell whether there is a descriptor for a connection.

        Args:
            others: descriptors in use that will be free again.
        """
        try:
            return self._next() - others < self._most
        except OSError:
            # It is those others, if there are any.
            return others > 0

    def _next(self) -> int:
        """Return the number that the next descriptor will have.

        Raises:
            OSError: there is none.
        """
        number = os.dup(self.socket.fileno())
        os.close(number)
        return number

    async def stop(self) -> None:
        """Accept no more; return when those that were accepted are met."""
        self._loop.remove_reader(self.socket)
        self._pause.forget(self._again)
        if self._file is not None:
            self._file.remove()
        self.socket.close()
        if self._encryption is not None:
            # A handshake may take its time.
            for task in self._meeting:
                task.cancel()
        if self._meeting:
            await asyncio.wait(self._meeting)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._hold(_reason(error))
                return
            number = connection.fileno()
            task = self._loop.create_task(self._make(connection))
            self._meeting.add(task)
            task.add_done_callback(self._meeting.discard)
            if number >= self._most:
                self._hold_for_descriptors()
                return

    async def _make(self, connection: socket.socket) -> None:
        tls = self._encryption
        # The client may have gone, or TLS refuse it, which is told elsewhere.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._meet,
                connection,
                ssl=None if tls is None else tls.context,
                ssl_handshake_timeout=None if tls is None else tls.handshake_timeout,
                ssl_shutdown_timeout=None if tls is None else tls.shutdown_timeout,
            )

    def _hold_for_descriptors(self) -> None:
        self._hold(
            f"{self._most} descriptors are in use, and the server reserves the rest; "
            f"{RAISE_THE_LIMIT}"
        )

    def _hold(self, reason: str) -> None:
        # The socket stays readable: the loop would call again and again.
        self._loop.remove_reader(self.socket)
        self._pause.begin(self._again, reason)

    def _again(self) -> None:
        try:
            number = self._next()
        except OSError as error:
            self._hold(_reason(error))
            return
        if number >= self._most:
            self._hold_for_descriptors()
            return
        self._loop.add_reader(self.socket, self._accept)
        self._accept()


def _reason(error: OSError) -> str:
    reason = os.strerror(error.errno or 0)
    return f"{reason}; {RAISE_THE_LIMIT}" if error.errno == errno.EMFILE else reason
