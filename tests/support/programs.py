"""The programs that tests need beside Python."""

import shutil

import pytest

PACKAGES = {
    "cc": "gcc",
    "chromium": "chromium",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "perl": "perl",
    "strace": "strace",
}
"""The programs, and the packages of Debian that have them."""


def installed(name: str, *others: str) -> str:
    """Return the path of a program, or of another that serves; skip the test without any."""
    found = next(filter(None, map(shutil.which, (name, *others))), None)
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {PACKAGES[name]}")
    return found
