"""The errors that the client raises.

.. code-block:: text

    NdbException
    ├── ResponseError      the server refused the request
    │   └── SessionNotFound    there is no such session
    ├── UnreadableReply    the request was answered, but the reply can't be read
    ├── InvalidState       the client is not open, or already open
    ├── ConnectError       also a ConnectionError: no connection could be made
    ├── ConnectionLost     also a ConnectionError: the connection ended before the reply came
    └── RequestTimeout     also a TimeoutError: no reply came in time

An argument that can't be sent is a `ValueError` or a `TypeError`, raised before anything is sent.
No message and no ``repr`` holds a session token or a value.
"""

from typing import Any

from ndb_protocol import Status

_STATUSES: dict[int, Status] = {int(status): status for status in Status}


class NdbException(Exception):
    """The base class of the client's own errors."""


class ResponseError(NdbException):
    """The server refused a request.

    Attributes:
        status: why, as a `Status`; a plain integer if this version knows no such status.
        message: why, as a sentence from the server.
        command: the command that was refused.
        rsp: the reply's body.
    """

    def __init__(self, command: str, rsp: dict[str, Any]) -> None:
        status = _STATUSES.get(rsp["st"])
        meaning, name = (status.meaning, f"{status.name}, ") if status else ("refused", "status ")
        self.status: Status | int = status or rsp["st"]
        self.message = str(rsp.get("m") or meaning)
        self.command = command
        self.rsp = rsp
        super().__init__(f"{command}: {self.message} ({name}{self.status:d})")


class SessionNotFound(ResponseError):
    """No session has this token: it never existed, has ended or has expired (status 100).

    Create a new session, for example by letting the user log in again.
    """


def refusal(command: str, rsp: dict[str, Any]) -> ResponseError:
    """Return the error for a refusal, given the body of the reply."""
    kind = SessionNotFound if rsp["st"] == Status.SESSION_NOT_EXIST else ResponseError
    return kind(command, rsp)


class UnreadableReply(NdbException):
    """The reply has a value that Python can't represent, or is not a reply to this request.

    In the first case the request has run; in the second case it may have run.
    """


class InvalidState(NdbException):
    """The client is not open although it must be, or open although it must not be.

    It is open only in the event loop, the thread and the process that opened it.
    """


class ConnectError(NdbException, ConnectionError):
    """No connection could be made.

    Attributes:
        status: the HTTP status with which the server answered the opening handshake: 401 if it
            requires credentials or refused them, 403 if this client may not connect; None if no
            server answered with a status.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConnectionLost(NdbException, ConnectionError):
    """The connection ended before the reply came, and the request was not sent again.

    It is not safe to send the command again, or it was sent a second time already, or the client
    could not reconnect in time.

    Attributes:
        maybe_executed: False if the request was never handed to the socket, so that it is safe
            to send again; True if the server may have run it.
    """

    def __init__(self, reason: str, *, maybe_executed: bool) -> None:
        super().__init__(f"{reason}; {_fate(maybe_executed)}")
        self.maybe_executed = maybe_executed


class RequestTimeout(NdbException, TimeoutError):
    """No reply came in time. The client stays usable.

    Attributes:
        maybe_executed: False if the request was never handed to the socket and never will be;
            True if the server may have run it, or may still run it.
    """

    def __init__(self, seconds: float, *, maybe_executed: bool, trouble: str | None = None) -> None:
        why = f": {trouble}" if trouble else ""
        super().__init__(f"no reply within {seconds:g} s{why}; {_fate(maybe_executed)}")
        self.maybe_executed = maybe_executed


def _fate(maybe_executed: bool) -> str:
    return f"the request {'may have been executed' if maybe_executed else 'was not sent'}"
