"""Libraries that are loaded in front of the system's, and change what it does."""

import subprocess
from pathlib import Path

from tests.support.programs import installed


def compiled(folder: Path, source: str = "file_calls.c") -> Path:
    """Return what is to be loaded with LD_PRELOAD: see the source."""
    library = folder / f"{source}.so"
    path = Path(__file__).with_name(source)
    command = [installed("cc"), "-shared", "-fPIC", "-O1", "-o", str(library), str(path), "-ldl"]
    subprocess.run(command, check=True)
    return library
