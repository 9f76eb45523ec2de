"""What the client raises.

.. code-block:: text

    NdbException
    ├── ResponseError      the server refused the request
    │   └── SessionNotFound    there is no such session
    ├── UnreadableReply    the request was answered, but not with values Python can hold
    ├── InvalidState       the client is not open, or open already
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
    """The base of everything the client raises of its own."""


class ResponseError(NdbException):
    """The server refused a request.

    Attributes:
        status: why, as a `Status`; a plain integer if this version knows no such status.
        message: why, as a sentence of the server's.
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
    """There is no session of this token, any more or at all (status 100).

    Whoever had it has to log in again.
    """


def refusal(command: str, rsp: dict[str, Any]) -> ResponseError:
    """Return the error for a refusal, given the body of the reply."""
    kind = SessionNotFound if rsp["st"] == Status.SESSION_NOT_EXIST else ResponseError
    return kind(command, rsp)


class UnreadableReply(NdbException):
    """A reply came that has a value Python can't hold, or that is none to this request.

    In the first case the request has run; in the other it may have.
    """


class InvalidState(NdbException):
    """The client is not open when it has to be, or open when it may not be.

    It is open in the event loop, the thread and the process that opened it, and in no other.
    """


class ConnectError(NdbException, ConnectionError):
    """No connection could be made.

    Attributes:
        status: the HTTP status with which the server answered the opening handshake: 401 if it
            refused the credentials or asks for some, 403 if this client may not come in; None if
            no server answered with one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConnectionLost(NdbException, ConnectionError):
    """The connection ended before the reply came, and the request was not sent again.

    Either that is not safe with this command, or it was tried already, or no connection could be
    made again in time.

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
            True if the server may have run it, or may yet.
    """

    def __init__(self, seconds: float, *, maybe_executed: bool, trouble: str | None = None) -> None:
        why = f": {trouble}" if trouble else ""
        super().__init__(f"no reply within {seconds:g} s{why}; {_fate(maybe_executed)}")
        self.maybe_executed = maybe_executed


def _fate(maybe_executed: bool) -> str:
    return f"the request {'may have been executed' if maybe_executed else 'was not sent'}"
