"""The standard descriptors 0, 1 and 2 of a program: all are open, and no output is lost silently.

A program can be started with one of them closed (``>&-``). The next file or socket that it opens
gets the number, and printed text is written into it. libuv ends a process that closes one.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

_STREAMS = (
    # The wrong way round, so that reading and writing fail as they do on a closed descriptor.
    ("stdin", "r", os.O_WRONLY),
    ("stdout", "w", os.O_RDONLY),
    # There is nowhere to say that an error can't be said.
    ("stderr", "w", os.O_WRONLY),
)


class OutputError(Exception):
    """The output of a program could not be written to standard output; says why.

    It is not an `OSError`, because argparse would ignore that.

    Attributes:
        reason: what the system says.
        closed: standard output was closed by whoever started the program.
    """

    def __init__(self, error: OSError) -> None:
        self.reason = error.strerror
        super().__init__(f"cannot write to standard output: {self.reason}")
        self.closed = error.errno == errno.EBADF


def open_missing_descriptors() -> None:
    """Open ``/dev/null`` as each standard descriptor that is missing.

    To be called before anything else is opened. Standard input can't be read then, nor standard
    output be written (``EBADF``); what is written to standard error is lost.

    Raises:
        OSError: ``/dev/null`` can't be opened.
    """
    for number, (name, mode, flags) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one. Programs that are started have it too.
            os.set_inheritable(os.open(os.devnull, flags), True)
            stream = io.FileIO(number, mode, closefd=False)
            buffered = io.BufferedReader(stream) if mode == "r" else io.BufferedWriter(stream)
            text = io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace")
            setattr(sys, name, text)


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # Python tries again to write it when it exits.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            raise OutputError(error) from error


@contextmanager
def all_output() -> Iterator[None]:
    """See that all that is printed meanwhile has been written at the end.

    Raises:
        OutputError: it has not; where it is printed, or at the end.
    """
    before = cast(io.TextIOWrapper, sys.stdout)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(before.fileno(), "w", closefd=False)),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering or before.write_through,
    )
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout = before
