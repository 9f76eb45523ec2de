"""What clients send on an open connection, and everything they get for it until it has ended.

Each runs against a server process, and in process with its bytes cut at every position.
"""

import json
from typing import NamedTuple

from websockets.frames import Frame, Opcode

from tests.support.raw_client import close, frame, header, text

Said = str | tuple[int, str] | bytes
"""A message, a close frame's code and reason, or a pong's payload."""


class Exchange(NamedTuple):
    """The bytes sent, and what comes back; it ends with the server's close frame."""

    name: str
    sent: bytes
    received: list[Said]


COUNT = text({"KV_COUNT": {}})
COUNTED = '{"KV_COUNT_RSP":{"st":1,"cnt":0}}'
SET = text({"KV_SET": {"keys": {"a": 1}}})
DONE = '{"KV_SET_RSP":{"st":1}}'
COUNTED_ONE = '{"KV_COUNT_RSP":{"st":1,"cnt":1}}'
NOT_TEXT = '{"ERR":{"st":2,"m":"the message is binary; send each request as a text message"}}'
BYE: Said = (1000, "")

REQUEST = json.dumps({"KV_SET": {"keys": {"k": "grüße, 世界 🌍"}}}, ensure_ascii=False).encode()
GET = text({"KV_GET": {"keys": ["k"]}})
GOT = '{"KV_GET_RSP":{"st":1,"keys":{"k":"grüße, 世界 🌍"}}}'
INSIDE_A_CHARACTER = REQUEST.index("世".encode()) + 1
INVALID_UTF8 = b'{"KV_SET":{"keys":{"a":"\xff"}}}'

text_frame, continuation = Opcode.TEXT, Opcode.CONT


def unusual(opcode: Opcode, data: bytes, first: int) -> bytes:
    """Return a frame whose first byte is another."""
    return bytes([first]) + frame(opcode, data)[1:]


def wide(first: int, length: int, width: int, payload: bytes = b"") -> bytes:
    """Return a frame that has its length in `width` bytes, however few it needs."""
    extended = 126 if width == 2 else 127
    return bytes([first, 0x80 | extended]) + length.to_bytes(width) + bytes(4) + payload


NOT_SHORTEST: Said = (1002, "length not in its shortest form")
ANSWERED = [
    Exchange("requests, then a close frame", SET + COUNT + close(), [DONE, COUNTED_ONE, BYE]),
    Exchange("the client's code and reason", COUNT + close(4001, "bye"), [COUNTED, (4001, "bye")]),
    Exchange("a close frame without a code", frame(Opcode.CLOSE), [(1005, "")]),
    Exchange("a request behind a close frame", close() + SET, [BYE]),
    Exchange("what is no frame behind a close frame", COUNT + close() + bytes(9), [COUNTED, BYE]),
    Exchange(
        "pings among requests, answered in order",
        frame(Opcode.PING, b"1") + SET + frame(Opcode.PING, b"2") + COUNT + close(),
        [b"1", DONE, b"2", COUNTED_ONE, BYE],
    ),
    Exchange("a ping without payload", frame(Opcode.PING) + close(), [b"", BYE]),
    Exchange("the longest ping", frame(Opcode.PING, b"p" * 125) + close(), [b"p" * 125, BYE]),
    Exchange("a pong nobody asked for", frame(Opcode.PONG, b"1") + COUNT + close(), [COUNTED, BYE]),
    Exchange(
        "a message in fragments",
        frame(text_frame, REQUEST[:7], fin=False)
        + frame(continuation, REQUEST[7:20], fin=False)
        + frame(continuation, REQUEST[20:])
        + GET
        + close(),
        [DONE, GOT, BYE],
    ),
    Exchange(
        "a message cut inside a character, with a ping in between",
        frame(text_frame, REQUEST[:INSIDE_A_CHARACTER], fin=False)
        + frame(Opcode.PING, b"between")
        + frame(continuation, REQUEST[INSIDE_A_CHARACTER:])
        + GET
        + close(),
        [b"between", DONE, GOT, BYE],
    ),
    Exchange(
        "empty fragments around a message",
        frame(text_frame, fin=False)
        + frame(continuation, REQUEST, fin=False)
        + frame(continuation)
        + GET
        + close(),
        [DONE, GOT, BYE],
    ),
    Exchange(
        "a binary message", COUNT + frame(Opcode.BINARY, b"{}") + close(), [COUNTED, NOT_TEXT, BYE]
    ),
    Exchange(
        "a binary message in fragments",
        frame(Opcode.BINARY, b"\xff", fin=False)
        + frame(Opcode.PING, b"1")
        + frame(continuation, b"\xfe")
        + COUNT
        + close(),
        [b"1", NOT_TEXT, COUNTED, BYE],
    ),
    Exchange(
        "a message of the middle length",
        text({"KV_SET": {"keys": {"a": "x" * 200}}}) + COUNT + close(),
        [DONE, COUNTED_ONE, BYE],
    ),
]
"""Exchanges that the client ends."""

BROKEN = [
    Exchange(
        "a frame that is not masked",
        SET + Frame(Opcode.TEXT, b"{}").serialize(mask=False) + SET,
        [DONE, (1002, "incorrect masking")],
    ),
    Exchange(
        "an opcode that is none",
        SET + unusual(text_frame, b"{}", 0x83) + SET,
        [DONE, (1002, "invalid opcode")],
    ),
    Exchange(
        "a reserved bit on a text message",
        SET + unusual(text_frame, b"{}", 0xC1),
        [DONE, (1002, "reserved bits must be 0")],
    ),
    Exchange(
        "a reserved bit on a ping",
        SET + unusual(Opcode.PING, b"", 0x99),
        [DONE, (1002, "reserved bits must be 0")],
    ),
    Exchange(
        "a ping in fragments",
        SET + frame(Opcode.PING, b"1") + unusual(Opcode.PING, b"2", 0x09),
        [DONE, b"1", (1002, "fragmented control frame")],
    ),
    Exchange(
        "a ping that is too long",
        SET + header(0x89, 126) + bytes(126),
        [DONE, (1002, "control frame too long")],
    ),
    *(
        Exchange(
            f"{name} of {length} bytes whose length takes {width}",
            SET + wide(first, length, width, bytes(length)) + SET,
            [DONE, NOT_SHORTEST],
        )
        for name, first in (("a text", 0x81), ("a binary message", 0x82), ("a ping", 0x89))
        for length, width in ((0, 2), (125, 2), (0, 8), (126, 8))
    ),
    *(
        Exchange(
            f"a length of {length:#x} in the header of {name}",
            SET + wide(first, length, 8) + SET,
            [DONE, (1002, "length with its most significant bit set")],
        )
        for name, first in (("a text", 0x81), ("a ping", 0x89))
        for length in (2**63, 2**63 + 5, 2**64 - 1)
    ),
    *(
        Exchange(
            f"the header of {name} of {length:,} bytes",
            SET + wide(first, length, width),
            [DONE, (1002, "control frame too long")],
        )
        for name, first in (("a close frame", 0x88), ("a ping", 0x89), ("a pong", 0x8A))
        for length, width in ((126, 2), (2**16, 8), (2**40, 8))
    ),
    Exchange(
        "a continuation whose length is not in its shortest form",
        SET + frame(text_frame, b"{", fin=False) + wide(0x80, 1, 2, b"}"),
        [DONE, NOT_SHORTEST],
    ),
    Exchange(
        "a continuation of nothing",
        SET + frame(continuation, b"{}"),
        [DONE, (1002, "unexpected continuation frame")],
    ),
    Exchange(
        "a text message inside another",
        SET + frame(text_frame, b"{", fin=False) + COUNT,
        [DONE, (1002, "expected a continuation frame")],
    ),
    Exchange(
        "a binary message inside another",
        SET + frame(text_frame, b"{", fin=False) + frame(Opcode.BINARY, b"}"),
        [DONE, (1002, "expected a continuation frame")],
    ),
    Exchange(
        "a close frame inside a message",
        SET + frame(text_frame, b"{", fin=False) + close(),
        [DONE, (1002, "incomplete fragmented message")],
    ),
    Exchange(
        "a close frame of one byte",
        SET + frame(Opcode.CLOSE, b"\x03"),
        [DONE, (1002, "close frame too short")],
    ),
    Exchange(
        "a close code that must not be sent",
        SET + frame(Opcode.CLOSE, b"\x03\xed"),
        [DONE, (1002, "invalid status code")],
    ),
    Exchange(
        "a close reason that is not UTF-8",
        SET + frame(Opcode.CLOSE, b"\x03\xe8\xff"),
        [DONE, (1007, "invalid start byte at position 0")],
    ),
    Exchange(
        "text that is not UTF-8",
        SET + frame(text_frame, INVALID_UTF8) + SET,
        [DONE, (1007, "invalid start byte at position 24")],
    ),
    Exchange(
        "text in fragments that is not UTF-8",
        SET
        + frame(text_frame, INVALID_UTF8[:10], fin=False)
        + frame(Opcode.PING, b"1")
        + frame(continuation, INVALID_UTF8[10:]),
        [DONE, b"1", (1007, "invalid start byte at position 24")],
    ),
    Exchange(
        "the length of a message over the limit",
        SET + header(0x81, 2**22 + 1),
        [DONE, (1009, "frame with 4194305 bytes exceeds limit of 4194304 bytes")],
    ),
    Exchange(
        "the greatest length there is",
        SET + header(0x82, 2**63 - 1),
        [DONE, (1009, "frame with 9223372036854775807 bytes exceeds limit of 4194304 bytes")],
    ),
]
"""Exchanges that a violation ends; the requests in front of it are answered."""
