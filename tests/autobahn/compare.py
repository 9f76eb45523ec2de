"""Compare what the Autobahn test suite says of the two echoes; exit with 1 if ours is worse.

Usage: python -m tests.autobahn.compare REPORTS/index.json
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

OURS, PLAIN = "ours", "plain"
"""What the specification of the run calls the two."""


class Verdict(TypedDict):
    """Of one case, as ``index.json`` has it: on what was said, and on how the connection ended."""

    behavior: str
    behaviorClose: str


Report = dict[str, dict[str, Verdict]]
"""Verdicts by echo and case."""

# Every other verdict is a failure. Of an informational case nothing is expected.
_DEMERITS = {"OK": 0, "INFORMATIONAL": 0, "NON-STRICT": 1}
_FAILURE = 2


def described(verdict: Verdict) -> str:
    return f"{verdict['behavior']}, close {verdict['behaviorClose']}"


def demerits(verdict: Verdict) -> tuple[int, int]:
    return (
        _DEMERITS.get(verdict["behavior"], _FAILURE),
        _DEMERITS.get(verdict["behaviorClose"], _FAILURE),
    )


def is_worse(ours: Verdict, plain: Verdict) -> bool:
    """Return whether ours is worse in anything, whatever it is better in."""
    return any(mine > theirs for mine, theirs in zip(demerits(ours), demerits(plain), strict=True))


def by_number(case: str) -> list[int]:
    return [int(number) for number in case.split(".")]


def counts(report: Report) -> Iterator[str]:
    """Yield the lines of a table: how often each verdict was given."""
    ours, plain = (Counter(map(described, report[echo].values())) for echo in (OURS, PLAIN))
    yield f"| verdict | {OURS} | {PLAIN} |"
    yield "| --- | ---: | ---: |"
    for verdict in sorted(ours | plain, key=lambda verdict: -plain[verdict]):
        yield f"| {verdict} | {ours[verdict]} | {plain[verdict]} |"
    yield f"| all cases | {ours.total()} | {plain.total()} |"


def grade(ours: Verdict, plain: Verdict) -> str:
    if is_worse(ours, plain):
        return "worse"
    return "better" if is_worse(plain, ours) else "as good"


def differences(report: Report) -> Iterator[str]:
    """Yield the lines of a table: the cases of which the verdicts differ."""
    ours, plain = report[OURS], report[PLAIN]
    yield f"| case | {OURS} | {PLAIN} | {OURS} is |"
    yield "| --- | --- | --- | --- |"
    for case in sorted(ours, key=by_number):
        if described(ours[case]) != described(plain[case]):
            verdicts = f"{described(ours[case])} | {described(plain[case])}"
            yield f"| {case} | {verdicts} | {grade(ours[case], plain[case])} |"


def main(path: Path) -> int:
    """Print how the verdicts in a report compare.

    Returns:
        The exit status: 0 if ours is as good.
    """
    report: Report = json.loads(path.read_text())
    missing = [echo for echo in (OURS, PLAIN) if not report.get(echo)]
    if missing:
        print(f"{path}: no verdicts on {', '.join(missing)}; run the suite against both echoes")
        return 1
    alone = report[OURS].keys() ^ report[PLAIN].keys()
    if alone:
        print(f"{path}: run against one echo only: {', '.join(sorted(alone, key=by_number))}")
        return 1
    print(*counts(report), "", *differences(report), sep="\n")
    return int(any(is_worse(report[OURS][case], report[PLAIN][case]) for case in report[OURS]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m tests.autobahn.compare REPORTS/index.json")
    sys.exit(main(Path(sys.argv[1])))
