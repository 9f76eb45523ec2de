"""The comparison of two reports, which has to fail when ours is worse."""

import json
from pathlib import Path

import pytest

from tests.autobahn.compare import Report, Verdict, main


def verdict(behavior: str, close: str = "OK") -> Verdict:
    return {"behavior": behavior, "behaviorClose": close}


GOOD = verdict("OK")


def compared(report: Report, folder: Path) -> int:
    path = folder / "index.json"
    path.write_text(json.dumps(report))
    return main(path)


@pytest.mark.parametrize(
    ("ours", "plain", "status", "grade"),
    [
        (verdict("NON-STRICT"), GOOD, 1, "worse"),
        (verdict("FAILED"), verdict("NON-STRICT"), 1, "worse"),
        (verdict("OK", "UNCLEAN"), GOOD, 1, "worse"),
        (verdict("OK", "WRONG CODE"), verdict("NON-STRICT"), 1, "worse"),
        (verdict("a verdict of the future"), GOOD, 1, "worse"),
        (GOOD, verdict("NON-STRICT"), 0, "better"),
        (verdict("OK", "UNCLEAN"), verdict("FAILED", "UNCLEAN"), 0, "better"),
        (verdict("INFORMATIONAL", "INFORMATIONAL"), GOOD, 0, "as good"),
        (verdict("FAILED", "WRONG CODE"), verdict("FAILED", "UNCLEAN"), 0, "as good"),
    ],
)
def test_a_difference_is_graded_and_fails_only_if_ours_is_worse(
    ours: Verdict,
    plain: Verdict,
    status: int,
    grade: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = {"ours": {"1.1": GOOD, "10.1.1": ours}, "plain": {"1.1": GOOD, "10.1.1": plain}}
    assert compared(report, tmp_path) == status
    *_, head, _, last = capsys.readouterr().out.splitlines()
    assert head == "| case | ours | plain | ours is |"
    assert last.startswith("| 10.1.1 | ")
    assert last.endswith(f" | {grade} |")


def test_verdicts_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {"2.9": verdict("FAILED"), "2.10": GOOD, "2.11": GOOD}
    assert compared({"ours": cases, "plain": cases}, tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| verdict | ours | plain |",
        "| --- | ---: | ---: |",
        "| OK, close OK | 2 | 2 |",
        "| FAILED, close OK | 1 | 1 |",
        "| all cases | 3 | 3 |",
        "",
        "| case | ours | plain | ours is |",
        "| --- | --- | --- | --- |",
    ]


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ({}, "no verdicts on ours, plain; run the suite against both echoes"),
        ({"ours": {"1.1": GOOD}, "plain": {}}, "no verdicts on plain; run the suite"),
        (
            {"ours": {"1.1": GOOD}, "plain": {"1.1": GOOD, "1.10": GOOD, "1.2": GOOD}},
            "run against one echo only: 1.2, 1.10",
        ),
    ],
)
def test_half_a_run_is_not_compared(
    report: Report, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(report, tmp_path) == 1
    assert told in capsys.readouterr().out
