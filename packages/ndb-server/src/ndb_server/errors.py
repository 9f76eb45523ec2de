"""Errors that the components of the server raise for each other."""

import traceback

from ndb_protocol import Status


class RefusedError(Exception):
    """A well-formed request that can't be done; nothing was changed.

    Attributes:
        status: why, as a status value.
        message: why, as a sentence that names what is wrong.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class DataError(Exception):
    """Data can't be read, imported or checked; says what is wrong with it."""


class StoreError(Exception):
    """The store can't be opened, or read; says why and what to do."""


def trace_of(error: BaseException) -> str:
    """Say where `error` was raised, and what led to it, without a token or a value.

    An exception's message may hold one; its type and the lines of code do not.
    """
    lines = ["Traceback (most recent call last):\n"]
    cause: BaseException | None = error
    while cause is not None:
        lines += [*traceback.format_tb(cause.__traceback__), f"{type(cause).__name__}\n"]
        cause = cause.__cause__ or cause.__context__
    return "".join(lines)
