"""The check of `nox -s compat` finds today's client and today's server to work together."""

import sys
from pathlib import Path

import pytest

from tests.compat.pairs import Failed, check

TODAY = Path(sys.executable)


def test_all_is_well_but_for_a_command_that_is_left_out() -> None:
    # What was never sent is looked at last: all else went well, and every real command was sent.
    with pytest.raises(Failed, match=r"^never sent: SH_MADE_UP\n$"):
        check(TODAY, TODAY, more=("SH_MADE_UP",))
