"""Operations on the files of a data folder that SQLite does not offer."""

import errno
import fcntl
import os
import sqlite3
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile

from ..errors import StoreError

_DISK_ERRORS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors that are not caused by the contents of the file."""

_MIN_FREE_BYTES = 2**20
"""Free bytes below which SQLite can't write."""


def sync(path: Path) -> None:
    """Make a file or a folder durable: after a power cut it is as it is now.

    Raises:
        OSError: it can't be synced.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> int:
    """Lock the data folder; return a descriptor that holds the lock until it is closed.

    Raises:
        StoreError: another process holds the lock, or the folder can't be used.
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


def is_disk_error(error: Exception) -> bool:
    """Return whether the disk caused an error, and not the contents of a file."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError | MemoryError) or (
        code is not None and code & 0xFF in _DISK_ERRORS
    )


def reason_of(error: Exception, folder: Path) -> str:
    """Return why a file in `folder` could not be used, without naming the file.

    For most causes SQLite only reports an "I/O error". This function finds the cause.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    said = str(error)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY) & 0xFF
    if is_disk_error(error) and code not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        cause = _write_failure(folder)
        return f"{said}: {cause}" if cause else said
    return said


def _write_failure(folder: Path) -> str | None:
    """Return why no file can be written in `folder`; None if a file can be written."""
    try:
        stats = os.statvfs(folder)
        if stats.f_bavail * stats.f_frsize < _MIN_FREE_BYTES:
            return os.strerror(errno.ENOSPC)
        if stats.f_files and not stats.f_favail:
            return f"{os.strerror(errno.ENOSPC)} for another file: no inode is free"
        with TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror


def replace_store(path: Path, new: Path, label: str) -> Path | None:
    """Replace the store at `path` by `new`, and keep the old store under another name.

    An existing store is replaced without a moment in which `path` does not exist: a server that
    found no store would create an empty one. The write-ahead log is moved first, or SQLite would
    apply it to the new file.

    Args:
        path: the store.
        new: the new store, without a write-ahead log.
        label: a word for the name of the old store, such as ``damaged``.

    Returns:
        The new path of the old store; None if there was none.

    Raises:
        OSError: the files can't be replaced.
    """
    sync(new)
    wal, kept_as = Path(f"{path}-wal"), None
    if path.exists():
        names = (path.with_name(f"{path.name}.{label}-{number}") for number in count(1))
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
    """The files that this process has opened: detects that they were removed or replaced.

    Args:
        main: a file that only this process may write.
        others: files and folders that may change, but must not be replaced.

    Raises:
        OSError: one of them does not exist.
    """

    def __init__(self, main: Path, *others: Path) -> None:
        self._main = main
        self._paths = (main, *others)
        self._identities = [*map(_identity, self._paths)]
        self._last_state = _state(main)

    @property
    def size(self) -> int:
        """The size of the main file in bytes after this process wrote it last."""
        return self._last_state[0]

    def are_unchanged(self) -> bool:
        """Return whether no file was removed or replaced, and nobody else has written `main`."""
        try:
            now = [*map(_identity, self._paths)], _state(self._main)
        except OSError:
            return False
        return now == (self._identities, self._last_state)

    def note_write(self) -> None:
        """Note that this process has written the main file."""
        # If it was removed, `are_unchanged` reports that.
        with suppress(OSError):
            self._last_state = _state(self._main)


def _identity(path: Path) -> tuple[int, int]:
    """Return the device and the inode of a file or a folder."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _state(path: Path) -> tuple[int, int]:
    """Return the size of a file in bytes, and the time of its last change in ns."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def is_open_file(descriptor: int, path: Path) -> bool:
    """Return whether the file at `path` is the one that is open as `descriptor`."""
    held = os.fstat(descriptor)
    try:
        return _identity(path) == (held.st_dev, held.st_ino)
    except OSError:
        return False


def check_disk_space(folder: Path, size: int) -> None:
    """Check that a file of `size` bytes can be created in `folder`; create the folder if needed.

    Raises:
        OSError: it can't be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stats = os.statvfs(folder)
    if stats.f_bavail * stats.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with TemporaryFile(dir=folder):
        pass
