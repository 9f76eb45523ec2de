"""The row that is kept on disk of a session, and what comes back from it."""

import pytest
from ndb_protocol import TOKEN_MAX
from ndb_protocol.messages import Expiry
from ndb_server.engine.record import deadline_of, expiry_of, row_of, signed, unsigned
from ndb_server.engine.session import NEVER, Session


@pytest.mark.parametrize("token", [1, 2**63 - 1, 2**63, TOKEN_MAX])
def test_a_token_is_a_signed_integer_and_back(token: int) -> None:
    assert -(2**63) <= signed(token) < 2**63
    assert unsigned(signed(token)) == token
    assert row_of(token, Session(None, NEVER, b"{}"))[0] == signed(token)


@pytest.mark.parametrize(
    "expiry",
    [
        Expiry(duration=1),
        Expiry(duration=4_294_967_295, deleteSession=True),
        Expiry(duration=2, extendOnSetAdd=True),
        Expiry(duration=3, extendOnGet=True),
        Expiry(duration=4, deleteSession=True, extendOnSetAdd=True, extendOnGet=True),
    ],
)
def test_settings_and_deadline_come_back_from_a_row(expiry: Expiry) -> None:
    row = row_of(1, Session(expiry, 5, b"{}"))
    assert (expiry_of(row), deadline_of(row)) == (expiry, 5)


def test_a_session_that_never_expires_has_neither() -> None:
    row = row_of(1, Session(None, NEVER, b"{}"))
    assert (expiry_of(row), deadline_of(row)) == (None, NEVER)
