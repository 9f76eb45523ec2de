"""What the rooms of the server tell each other when something is refused."""

from ndb_protocol import Status


class RefusedError(Exception):
    """A well-formed request that can't be done; nothing was changed.

    Attributes:
        status: why, as a status value.
        message: why, as a sentence that names what is wrong.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class DataError(Exception):
    """What is to be read, imported or checked can't be; says what is wrong with it."""
