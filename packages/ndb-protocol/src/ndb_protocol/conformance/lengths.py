"""The lengths of frames as RFC 6455, section 5.2, demands them; ``websockets`` takes any.

On purpose without `ndb_protocol.frame_lengths`, which the programs that it checks use.
"""

import math

_LEAST = {2: 126, 8: 2**16}
"""The least length that needs so many bytes."""

WIDTHS = {126: 2, 127: 8}
"""How many bytes of length follow which second byte of a frame, its masking bit aside."""

_MASKED = 0x80
_CLOSE = 0x8


class Lengths:
    """Reads the headers of the frames that one end sends."""

    def __init__(self) -> None:
        self._header = b""
        # Of the masking key and the payload, how many bytes are still to come.
        self._rest: float = 0

    def violation(self, data: bytes) -> str:
        """Return what is wrong with a length in the next bytes that came, if anything is."""
        at = 0
        while at < len(data):
            if self._rest:
                passed = int(min(self._rest, len(data) - at))
                self._rest -= passed
                at += passed
                continue
            self._header += data[at : at + 1]
            at += 1
            if len(self._header) >= 2 and (reason := self._read_header()):
                return reason
        return ""

    def _read_header(self) -> str:
        second = self._header[1]
        length = second & ~_MASKED
        width = WIDTHS.get(length, 0)
        if len(self._header) < 2 + width:
            return ""
        if width:
            length = int.from_bytes(self._header[2:])
            if length < _LEAST[width]:
                return f"the length {length} takes {8 * width} bits: not in its shortest form"
            if length >> 63:
                return f"the length {length} has its most significant bit set"
        # What stands behind a close frame is not read (section 1.4).
        is_close = self._header[0] & 0x0F == _CLOSE
        self._rest = math.inf if is_close else length + (4 if second & _MASKED else 0)
        self._header = b""
        return ""
