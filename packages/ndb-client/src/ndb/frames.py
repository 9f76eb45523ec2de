"""WebSocket frames (RFC 6455, section 5.2), as far as the client's short path needs them.

Every other frame is left to `websockets`.
"""

import os
import struct
from collections.abc import Iterator

from ndb_protocol.frame_lengths import length_violation

# The function in C if websockets was built with it, else the one in Python.
from websockets.frames import apply_mask  # type: ignore[attr-defined]

FINAL_TEXT = 0x81
"""The first byte of a text frame that is a whole message, with no reserved bit set."""

MASKED = 0x80
"""The bit of the second byte that says that the payload is masked."""

_POOL = 4096
_pack_short = struct.Struct("!BB").pack
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack


def mask_keys() -> Iterator[bytes]:
    """Yield masking keys of strong entropy (RFC 6455, section 5.3), without end.

    They are cut from a pool: a system call for each would cost more than the request.
    """
    while True:
        for (key,) in struct.iter_unpack("4s", os.urandom(_POOL)):
            yield key


def text_frame(message: bytes, mask_key: bytes) -> bytes:
    """Return the frame that a client sends `message` in."""
    size = len(message)
    if size < 126:
        header = _pack_short(FINAL_TEXT, MASKED | size)
    elif size < 65536:
        header = _pack_medium(FINAL_TEXT, MASKED | 126, size)
    else:
        header = _pack_long(FINAL_TEXT, MASKED | 127, size)
    return b"".join((header, mask_key, apply_mask(message, mask_key)))


def frame_bounds(data: bytes | bytearray, start: int) -> tuple[int, int] | None:
    """Return where the payload of the frame at `start` begins, and where the frame ends.

    The end may lie beyond `data`. None if the header is not whole yet.

    Raises:
        ValueError: RFC 6455 does not allow the length.
    """
    payload = start + 2
    if len(data) < payload:
        return None
    size = data[start + 1]
    if size < 126:
        return payload, payload + size
    if size & MASKED:
        size ^= MASKED
        payload += 4
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(data) < start + 2 + width:
            return None
        size = int.from_bytes(data[start + 2 : start + 2 + width])
        if reason := length_violation(data[start], size, width):
            raise ValueError(reason)
        payload += width
    return payload, payload + size
