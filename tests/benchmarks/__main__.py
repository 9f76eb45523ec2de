"""Measure, and print the table of ``tests/benchmarks/README.md``.

Usage: python -m tests.benchmarks [--short] [GROUP …]

`--short` shows that everything works; its figures mean nothing.
"""

import argparse
import sys

from . import peers
from .machine import describe
from .rows import GROUPS, SHORT, Row, Scale, Table


def _mark(row: Row) -> str:
    if row.target is None:
        return ""
    sign = "≤" if row.at_most else "≥"
    return f"{sign} {row.target:g} {'✓' if row.met else '✗'}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    groups = {group.__name__: group for group in GROUPS}
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--short", action="store_true", help="only show that it works")
    parser.add_argument("group", nargs="*", choices=[*groups, []], help="measure only these")
    arguments = parser.parse_args()
    table = Table(SHORT if arguments.short else Scale())
    for name in arguments.group or groups:
        print(f"{name}: {groups[name].__doc__}", file=sys.stderr)
        try:
            groups[name](table)
        except (peers.MissingError, ImportError) as error:
            table.missing.append(f"{name}: {error}")
    print(f"Measured on {describe()}.\n")
    print("| what | ours | against | theirs | ratio | target |")
    print("|---|---:|---|---:|---:|---|")
    for row in table.rows:
        figures = f"{_figure(row.ours)} | {row.against} | {_figure(row.theirs)}"
        print(f"| {row.what} | {figures} | {row.ratio:.3g} | {_mark(row)} |")
    for what in table.missing:
        print(f"\nNot measured: {what}")


if __name__ == "__main__":
    main()
