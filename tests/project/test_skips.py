"""A test that can't run here is skipped and says what is missing; in CI that is a failure."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.project_sources import ROOT

SKIPPING = {
    "test_in_a_test.py": "def test_it():\n    pytest.skip('there is no strace')",
    "test_module.py": "pytest.skip('there is no strace', allow_module_level=True)",
    "test_mark.py": "@pytest.mark.skip(reason='there is no strace')\ndef test_it():\n    pass",
}


def run(folder: Path, ci: str) -> tuple[int, str]:
    """Run tests as those of this project; return the exit status and what is printed."""
    options = ("-c", "pyproject.toml", "-p", "tests.conftest", "--continue-on-collection-errors")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_skip_says_why_and_is_a_failure_in_ci(tmp_path: Path) -> None:
    for name, source in SKIPPING.items():
        (tmp_path / name).write_text(f"import pytest\n{source}\n")
    status, said = run(tmp_path, ci="")
    assert status == 0
    assert said.count("there is no strace") == 3
    assert "3 skipped" in said
    status, said = run(tmp_path, ci="true")
    assert status != 0
    assert "CI allows no skip" in said
    assert "1 failed, 2 errors in" in said
