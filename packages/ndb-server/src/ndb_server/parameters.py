"""What the parameters of the commands have in common."""

from typing import Annotated

from cyclopts import Parameter


def _not_empty(_: object, value: str | None) -> None:
    if value == "":
        # As an address it would mean all there are, as a path the current folder.
        raise ValueError("Must not be empty.")


Text = Annotated[str, Parameter(validator=_not_empty)]
