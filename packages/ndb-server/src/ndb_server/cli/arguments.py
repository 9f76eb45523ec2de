"""Validators that the parameters of several commands share."""

from typing import Annotated

from cyclopts import Parameter


def not_empty(value: str | None) -> None:
    """Refuse a value that is empty.

    Raises:
        ValueError: it is.
    """
    if value == "":
        # As an address it would mean all there are, as a path the current folder.
        raise ValueError("Must not be empty.")


def _not_empty(_: object, value: str | None) -> None:
    not_empty(value)


Text = Annotated[str, Parameter(validator=_not_empty)]
