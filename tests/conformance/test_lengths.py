"""The kit looks at the length of every frame, wherever the bytes of its header are cut."""

import pytest
from ndb_protocol.conformance.lengths import Lengths
from websockets.frames import Frame, Opcode

GOOD = b"".join(
    Frame(Opcode.TEXT, bytes(size)).serialize(mask=mask)
    for size in (0, 1, 125, 126, 65535, 65536)
    for mask in (False, True)
)
WRONG = {
    "817e0000": "the length 0 takes 16 bits: not in its shortest form",
    "81fe007d": "the length 125 takes 16 bits: not in its shortest form",
    "007f000000000000007e": "the length 126 takes 64 bits: not in its shortest form",
    "80ff000000000000ffff": "the length 65535 takes 64 bits: not in its shortest form",
    "887e0002": "the length 2 takes 16 bits: not in its shortest form",
    "817f8000000000000000": "the length 9223372036854775808 has its most significant bit set",
    "817fffffffffffffffff": "the length 18446744073709551615 has its most significant bit set",
}


@pytest.mark.parametrize("header", WRONG)
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 4096, 2**20])
def test_the_first_length_that_is_not_allowed_is_found(header: str, piece: int) -> None:
    lengths = Lengths()
    data = GOOD + bytes.fromhex(header)
    found = [lengths.violation(data[at : at + piece]) for at in range(0, len(data), piece)]
    assert found[-1] == WRONG[header]
    assert not any(found[:-1])


def test_nothing_behind_a_close_frame_is_looked_at() -> None:
    lengths = Lengths()
    assert lengths.violation(b"\x88\x02\x03\xe8" + bytes.fromhex("817e0000")) == ""
    assert lengths.violation(bytes.fromhex("817e0000")) == ""


@pytest.mark.parametrize("most", [2**63 - 1, 2**40])
def test_a_length_may_be_larger_than_any_message(most: int) -> None:
    assert Lengths().violation(b"\x81\x7f" + most.to_bytes(8)) == ""
