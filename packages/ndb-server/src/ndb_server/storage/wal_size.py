"""The size of the write-ahead log of a store: the part that is in use, not the size of its file."""

import os
from pathlib import Path

LOOK = 2**20
"""Bytes that may be written between two looks at the file."""

_PAGE_SIZE = 4096
_MAGIC = 0x377F0682
_HEADER, _FRAME_HEADER = 32, 24


class WriteAheadLog:
    """The write-ahead log of a file that this process writes.

    Args:
        path: its file.

    Attributes:
        least: how large the file is at least, in bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.least = 0
        # Bytes at the last look, at the last checkpoint, and, at most, since the last look.
        self._size = self._checkpointed = self._since = 0

    def wrote(self, size: int) -> None:
        """Take note that a row of `size` bytes was written."""
        # It takes one more page as a rule, and one for what is left over.
        self._since += (_FRAME_HEADER + _PAGE_SIZE) * (2 + size // (_PAGE_SIZE - 4))
        self.least = self._size or _FRAME_HEADER + _PAGE_SIZE

    @property
    def is_idle(self) -> bool:
        """Whether no row was written since the last look."""
        return not self._since

    def grown(self, *, look: bool = False) -> int:
        """Return how many bytes have come since the last checkpoint, about.

        Args:
            look: look at the file, even if little was written.

        Raises:
            OSError: it can't be read.
        """
        if look or self._since >= LOOK:
            self._size = _in_use(self.path)
            self._since = 0
        return self._size - self._checkpointed

    def checkpoint(self, *, begins_anew: bool) -> None:
        """Take note of a checkpoint, and whether the log begins anew with the next write."""
        if begins_anew:
            # The next write may make its file shorter.
            self._size = self.least = 0
        self._checkpointed = self._size


def _in_use(path: Path) -> int:
    """Return how many bytes of a write-ahead log count.

    Behind those there may be frames of before it began anew, which have another salt
    (https://www.sqlite.org/fileformat2.html, 4.1).
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        header = os.pread(descriptor, _HEADER, 0)
        if int.from_bytes(header[:4], "big") & ~1 != _MAGIC:
            return 0
        frame = _FRAME_HEADER + int.from_bytes(header[8:12], "big")
        first, behind = 0, (os.fstat(descriptor).st_size - _HEADER) // frame
        while first < behind:
            middle = (first + behind) // 2
            salt = os.pread(descriptor, 8, _HEADER + middle * frame + 8)
            first, behind = (middle + 1, behind) if salt == header[16:24] else (first, middle)
        return _HEADER + first * frame
    finally:
        os.close(descriptor)
