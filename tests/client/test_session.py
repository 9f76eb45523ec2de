"""A session as a program holds it."""

from ndb import Session, Status

TOKEN = 1234567890123456789


def test_a_session_does_not_show_its_token() -> None:
    for shown in (repr(Session(TOKEN)), str(Session(TOKEN)), f"{Session(TOKEN)}"):
        assert "1234567" not in shown


def test_a_session_has_its_token_under_both_names() -> None:
    session = Session(TOKEN)
    assert session.tkn == session.token == TOKEN


def test_a_session_is_valid_if_it_has_a_token() -> None:
    assert Session(TOKEN).isValid
    assert Session(TOKEN).tknValid
    assert not Session(0).isValid
    assert not Session(0).tknValid


def test_sessions_are_equal_and_hashed_by_token() -> None:
    refused = Session(0, Status.SESSION_NEW_FAIL, "why")
    assert {Session(1), Session(1), Session(2), Session(0), refused} == {
        Session(0),
        Session(1),
        Session(2),
    }
