"""Libraries that are loaded in front of the system's, and change what it does."""

import shutil
import subprocess
from pathlib import Path

import pytest


def compiled(folder: Path, source: str = "file_calls.c") -> Path:
    """Return what is to be loaded with LD_PRELOAD: see the source."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is not installed")
    library = folder / f"{source}.so"
    path = Path(__file__).with_name(source)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(path), "-ldl"]
    subprocess.run(command, check=True)
    return library
