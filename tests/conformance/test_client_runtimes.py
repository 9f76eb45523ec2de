"""What clients in other languages run on is named where it is missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.client_runtimes import Missing, chromium, perl


@pytest.mark.parametrize(
    ("program", "package"), [(perl, "perl"), (chromium, "chromium")], ids=["perl", "chromium"]
)
def test_a_program_that_is_missing_is_named(
    program: Callable[[], str], package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=f"{package} is not installed; .*apt-get install {package}"):
        program()
