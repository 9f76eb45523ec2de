"""Ways to break what is checked, each with the scenario that has to notice."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Break:
    """A way to break something.

    Attributes:
        name: what it does then, as words that a command line takes.
        apply: breaks it.
        caught_by: the id of a scenario that fails then, or a pattern of several.
    """

    name: str
    apply: Callable[[Patch], None]
    caught_by: str


class Breaks(dict[str, Break]):
    """The list of them, by their names."""

    def enter(
        self, name: str, caught_by: str
    ) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
        """Enter a function that breaks something into the list."""

        def entered(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
            self[name] = Break(name, apply, caught_by)
            return apply

        return entered
