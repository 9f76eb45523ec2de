"""Operations on the files of a data folder that SQLite does not do."""

import errno
import fcntl
import os
import sqlite3
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile

from ..errors import StoreError

_OF_THE_DISK = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors that are not caused by the contents of the file."""

_LITTLE = 2**20
"""Bytes that are too few for SQLite to begin with."""


def sync(path: Path) -> None:
    """Have a file or a folder survive a power cut as it is.

    Raises:
        OSError: it can't.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> int:
    """Take hold of the data folder; return what holds it until it is closed.

    Raises:
        StoreError: another process has it, or it can't be used.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} can't be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreError(
            f"another server uses {path.parent}: process {holder or 'unknown'}"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path} can't be used: {error.strerror}") from error
    return descriptor


def is_of_the_disk(error: Exception) -> bool:
    """Tell whether an error says nothing of what is in a file."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError | MemoryError) or (
        code is not None and code & 0xFF in _OF_THE_DISK
    )


def reason_of(error: Exception, folder: Path) -> str:
    """Say why a file in `folder` could not be used, without naming the file.

    SQLite tells of most causes that there was an "I/O error"; what it is, the system says.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    said = str(error)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY) & 0xFF
    if is_of_the_disk(error) and code not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        cause = _cause(folder)
        return f"{said}: {cause}" if cause else said
    return said


def _cause(folder: Path) -> str | None:
    """Return why nothing can be written into `folder`; None if something can."""
    try:
        there = os.statvfs(folder)
        if there.f_bavail * there.f_frsize < _LITTLE:
            return os.strerror(errno.ENOSPC)
        if there.f_files and not there.f_favail:
            return f"{os.strerror(errno.ENOSPC)} for another file: no inode is free"
        with TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror


def replace_store(path: Path, new: Path, was: str) -> Path | None:
    """Put `new` where `path` is, and that, with its write-ahead log, under a name that is free.

    If there is a file at `path`, there always is one: a server that found none would begin with an
    empty one. The log has to go first, or SQLite would put it into the new file.

    Args:
        path: the store.
        new: what is to be the store, without a log of its own.
        was: what is the matter with the file that is there, one word for its name.

    Returns:
        What the file that was there is called now; None if there was none.

    Raises:
        OSError: it can't be done.
    """
    sync(new)
    wal, kept_as = Path(f"{path}-wal"), None
    if path.exists():
        names = (path.with_name(f"{path.name}.{was}-{number}") for number in count(1))
        kept_as = next(name for name in names if not name.exists())
        kept_as.hardlink_to(path)
        if wal.exists():
            wal.rename(f"{kept_as}-wal")
    wal.unlink(missing_ok=True)
    Path(f"{path}-shm").unlink(missing_ok=True)
    new.replace(path)
    sync(path.parent)
    return kept_as


class OpenedFiles:
    """The files that this process has opened, to detect that they were removed or replaced.

    Args:
        main: the file that nobody but this process may write.
        others: files and folders that may change, but must not be replaced.

    Raises:
        OSError: one of them is not there.
    """

    def __init__(self, main: Path, *others: Path) -> None:
        self._main = main
        self._paths = (main, *others)
        self._identities = [*map(_identity, self._paths)]
        self._left = _state(main)

    @property
    def size(self) -> int:
        """How large the main file was when this process wrote it last, in bytes."""
        return self._left[0]

    def are_there(self) -> bool:
        """Tell whether they are those that were opened, and nobody else has written `main`."""
        try:
            now = [*map(_identity, self._paths)], _state(self._main)
        except OSError:
            return False
        return now == (self._identities, self._left)

    def written(self) -> None:
        """Take note that this process has written the main one."""
        # That it is another one by now is for `are_there` to find out.
        with suppress(OSError):
            self._left = _state(self._main)


def _identity(path: Path) -> tuple[int, int]:
    """Return what no other file or folder has as long as this one is there."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _state(path: Path) -> tuple[int, int]:
    """Return the size of a file, and when it was written last, in ns."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def has_at(descriptor: int, path: Path) -> bool:
    """Tell whether what is open as `descriptor` is what is at `path`."""
    held = os.fstat(descriptor)
    try:
        return _identity(path) == (held.st_dev, held.st_ino)
    except OSError:
        return False


def check_room(folder: Path, size: int) -> None:
    """See that a file of `size` bytes can be made in `folder`, which is made if it is not there.

    Raises:
        OSError: it can't.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = os.statvfs(folder)
    if there.f_bavail * there.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with TemporaryFile(dir=folder):
        pass
