"""The lengths of WebSocket frames (RFC 6455, sections 5.2 and 5.5), for client and server. Pure.

`websockets` takes any length, or waits for the payload. The conformance kit has the rule a second
time: what checks a server or a client must not share its faults.
"""

LEAST = {2: 126, 8: 2**16}
"""The least length that needs so many bytes."""

_CONTROL = 0x08
"""The bit of a frame's first byte that says that the frame is a control frame."""


def length_violation(first: int, length: int, width: int) -> str:
    """Return what is wrong with an extended payload length; nothing if it is allowed.

    Args:
        first: the first byte of the frame.
        length: the length.
        width: how many bytes the length takes, 2 or 8.
    """
    if length < LEAST[width]:
        return "length not in its shortest form"
    if length >> 63:
        return "length with its most significant bit set"
    return "control frame too long" if first & _CONTROL else ""
