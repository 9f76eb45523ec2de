"""The frames of the short path are what `websockets` says they are."""

from itertools import islice

import pytest
from ndb.frames import frame_bounds, mask_keys, text_frame
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 70000]


@pytest.mark.parametrize("size", SIZES)
def test_a_server_reads_the_message_back(size: int) -> None:
    message = bytes(i % 251 for i in range(size))
    server = ServerProtocol(state=OPEN)
    server.receive_data(text_frame(message, b"\x01\x02\x03\x04"))
    [event] = server.events_received()
    assert event == Frame(Opcode.TEXT, message)


def test_masking_keys_are_four_bytes_and_do_not_repeat() -> None:
    keys = list(islice(mask_keys(), 3000))
    assert {len(key) for key in keys} == {4}
    # Of 3,000 random keys, two are equal in one of a thousand runs, four pairs never.
    assert len(set(keys)) > len(keys) - 4


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_bounds_of_a_frame_are_known_when_its_header_is_whole(size: int, masked: bool) -> None:
    payload = bytes(size)
    data = Frame(Opcode.TEXT, payload).serialize(mask=masked)
    header = len(data) - size
    before = b"before"
    start = len(before)
    for end in range(header + 1):
        bounds = frame_bounds(bytearray(before + data[:end]), start)
        whole = end >= header - (4 if masked else 0)
        assert bounds == ((start + header, start + len(data)) if whole else None)
