"""What the figures were measured on, and how processes are laid on its processors."""

import os
import platform
import shutil
import sysconfig
from pathlib import Path


def describe() -> str:
    """Return one line that says what the figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    options = f"{sysconfig.get_config_var('CONFIG_ARGS')}"
    build = [
        name
        for name, option in (("PGO", "--enable-optimizations"), ("LTO", "--with-lto"))
        if option in options
    ]
    return (
        f"{cpu}, {os.cpu_count()} processors, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()} "
        f"(configured with {' and '.join(build) or 'neither PGO nor LTO'})"
    )


def on_processor(number: int) -> list[str]:
    """Return the words to put in front of a command that is to stay on one processor.

    The server runs on processor 0, whoever loads it on processor 1. With a single processor, or
    without util-linux, nothing is pinned.
    """
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return []
    return ["taskset", "--cpu-list", str(number)]
