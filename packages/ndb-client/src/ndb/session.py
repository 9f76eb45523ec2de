"""Sessions as programs hold them."""

from dataclasses import dataclass, field

from ndb_protocol import NO_TOKEN, TOKEN_MAX, Status, parse_token


@dataclass(frozen=True, slots=True)
class Session:
    """A session, identified by its token; or, if `isValid` is False, the refusal to create one.

    Every method that takes a token also takes a `Session`. Sessions are equal if their tokens are.
    The token is a secret, because anyone who has it can use the session. So ``repr`` does not show
    it.

    Attributes:
        tkn: the token, an unsigned 64-bit integer; 0 if there is no session.
        status: the status of the request to create it; a plain integer if this version knows no
            such status.
        message: why the session was refused; empty if it was not.
    """

    tkn: int = field(repr=False)
    status: Status | int = field(default=Status.OK, compare=False)
    message: str = field(default="", compare=False)

    @property
    def token(self) -> int:
        """The token, as `tkn` is."""
        return self.tkn

    @property
    def isValid(self) -> bool:
        """Whether there is a session."""
        return self.tkn != NO_TOKEN

    @property
    def tknValid(self) -> bool:
        """Whether there is a session, by the name it has in NemesisDB 0.7."""
        return self.isValid


Tkn = int | str | Session
"""A session, by its token, as an integer or as decimal text, or as the `Session` that holds it."""


def token_of(tkn: Tkn) -> int:
    """Return the token that `tkn` is or holds.

    Returns:
        The token. For an integer or text that can't be one, 0, which no session has: what comes
        back in a cookie may be anything, and is answered as an unknown token is.

    Raises:
        TypeError: `tkn` is neither an integer nor a string nor the `Session` of one.
    """
    if isinstance(tkn, Session):
        tkn = tkn.tkn
    # What is nearly always given comes first.
    if type(tkn) is int and NO_TOKEN < tkn <= TOKEN_MAX:
        return tkn
    if type(tkn) is int or isinstance(tkn, str):
        return parse_token(tkn)
    raise TypeError(f"tkn must be a Session, an int or a str, not {type(tkn).__name__}")
