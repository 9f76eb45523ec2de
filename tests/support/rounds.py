"""Tests that try much at random: a little with every run, and much in ``nox -s torture``."""

import os

import pytest

SEED = os.environ.get("TORTURE_SEED", "1")
"""What decides on the random choices of those tests that make the same ones each time."""

_TIMES = int(os.environ.get("TORTURE", "1"))
"""How many times as much is tried in ``nox -s torture``."""

TORTURE = [pytest.mark.torture, pytest.mark.timeout(900 * _TIMES)]
"""The marks of what takes long. What is marked so also has a short form, which always runs."""


def rounds(few: int, many: int) -> pytest.MarkDecorator:
    """Run a test twice, with another argument `rounds`: `few` always, `many` in torture only."""
    return pytest.mark.parametrize(
        "rounds",
        [pytest.param(few, id="few"), pytest.param(many * _TIMES, id="many", marks=TORTURE)],
    )
