"""Measures the write-ahead log of a store: the part in use, not the size of the file."""

import os
from pathlib import Path

MEASURE_AFTER = 2**20
"""Bytes that may be written between two measurements."""

_PAGE_SIZE = 4096
_MAGIC = 0x377F0682
_HEADER, _FRAME_HEADER = 32, 24


class WalSize:
    """The size of a write-ahead log that this process writes.

    Args:
        path: the file of the log.

    Attributes:
        min_file_size: the least bytes that the file has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.min_file_size = 0
        # Bytes at the last measurement, at the last checkpoint, and at most since the measurement.
        self._size = self._checkpointed = self._unmeasured = 0

    def note_write(self, size: int) -> None:
        """Note that a row of `size` bytes was written."""
        # Beside full pages, one page has the rest of the row, and usually one other page changes.
        self._unmeasured += (_FRAME_HEADER + _PAGE_SIZE) * (2 + size // (_PAGE_SIZE - 4))
        self.min_file_size = self._size or _FRAME_HEADER + _PAGE_SIZE

    @property
    def is_unchanged(self) -> bool:
        """Whether no row was written since the last measurement."""
        return not self._unmeasured

    def growth(self, *, measure: bool = False) -> int:
        """Return about how many bytes were written since the last checkpoint.

        Args:
            measure: measure the file even if little was written.

        Raises:
            OSError: it can't be read.
        """
        if measure or self._unmeasured >= MEASURE_AFTER:
            self._size = _bytes_in_use(self.path)
            self._unmeasured = 0
        return self._size - self._checkpointed

    def note_checkpoint(self, *, restarts: bool) -> None:
        """Note a checkpoint, and whether the next write restarts the log from its beginning."""
        if restarts:
            # The next write may truncate the file.
            self._size = self.min_file_size = 0
        self._checkpointed = self._size


def _bytes_in_use(path: Path) -> int:
    """Return how many bytes of a write-ahead log are in use.

    Frames from before the last restart may follow them. These have another salt
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
