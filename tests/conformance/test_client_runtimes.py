"""A test that needs a program that is missing is skipped, and says how to get it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.client_runtimes import chromium, perl


@pytest.mark.parametrize(
    ("program", "package"), [(perl, "perl"), (chromium, "chromium")], ids=["perl", "chromium"]
)
def test_a_test_without_its_program_is_skipped_and_names_it(
    program: Callable[[], str], package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        pytest.skip.Exception, match=f"{package} is not installed; .*apt-get install {package}"
    ):
        program()
