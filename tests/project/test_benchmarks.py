"""The benchmark says what it could not measure, and never leaves it out in silence."""

import subprocess
import sys
from pathlib import Path

from tests.support.project_sources import ROOT


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--short", "python_programs", "own_commands"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Not measured: python_programs: redis-server is not installed" in ran.stdout
    assert "Not measured: own_commands: a C compiler is not installed" in ran.stdout


def test_where_instructions_cannot_be_counted_what_is_missing_is_named(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.instructions"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert ran.stderr == "Not measured: valgrind is not installed (apt-get install valgrind)\n"


def test_what_is_measured_is_a_row_of_the_table() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--short", "by_size"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "| µs for SH_INFO_ALL with 2,000 sessions |" in ran.stdout
    assert "Not measured" not in ran.stdout
