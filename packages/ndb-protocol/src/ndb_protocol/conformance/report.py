"""The results of the scenarios, as text and as JUnit XML."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from xml.etree import ElementTree

from .scenarios import ClientScenario, Scenario


class Outcome(Enum):
    """The outcome of a scenario."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one scenario.

    Attributes:
        scenario: the scenario.
        outcome: its outcome.
        detail: why it failed or was skipped.
        seconds: how long it took.
    """

    scenario: Scenario | ClientScenario
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


def _counts(results: Iterable[Result], outcomes: Iterable[Outcome]) -> str:
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in outcomes)


def total(results: Sequence[Result]) -> str:
    """Return the one-line total."""
    return _counts(results, Outcome)


def _by_section(results: Iterable[Result]) -> dict[str, list[Result]]:
    sections: dict[str, list[Result]] = {}
    for result in results:
        sections.setdefault(result.scenario.section, []).append(result)
    return sections


def text(results: Sequence[Result]) -> str:
    """Return the report: each section, each failure, why some were skipped, the total last."""
    lines = []
    sections = _by_section(results)
    width = max(map(len, sections), default=0)
    for section, its_results in sections.items():
        present = [o for o in Outcome if any(r.outcome is o for r in its_results)]
        lines.append(f"{section:{width}}  {_counts(its_results, present)}")
    lines.append("")
    for result in results:
        if result.outcome is Outcome.FAILED:
            lines.append(f"FAILED {result.scenario.section}: {result.scenario.id}")
            lines += [f"    {line}" for line in result.detail.splitlines()]
            lines.append("")
    skipped = Counter(r.detail for r in results if r.outcome is Outcome.SKIPPED)
    lines += [f"skipped {count}: {why}" for why, count in skipped.items()]
    return "\n".join([*lines, total(results)])


def write_junit(results: Sequence[Result], file: Path) -> None:
    """Write the report as JUnit XML: a test suite for each section, a test case for each scenario.

    Raises:
        OSError: the file can't be written.
    """
    root = ElementTree.Element("testsuites", name="ndb-conformance")
    for section, its_results in _by_section(results).items():
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=section,
            tests=str(len(its_results)),
            failures=str(sum(r.outcome is Outcome.FAILED for r in its_results)),
            errors="0",
            skipped=str(sum(r.outcome is Outcome.SKIPPED for r in its_results)),
            time=f"{sum(r.seconds for r in its_results):.3f}",
        )
        for result in its_results:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=result.scenario.file,
                name=result.scenario.name,
                time=f"{result.seconds:.3f}",
            )
            if result.outcome is Outcome.FAILED:
                first, *_ = result.detail.splitlines()
                failure = ElementTree.SubElement(case, "failure", message=_writable(first))
                failure.text = _writable(result.detail)
            elif result.outcome is Outcome.SKIPPED:
                ElementTree.SubElement(case, "skipped", message=result.detail)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _writable(text: str) -> str:
    """Return `text` with the characters escaped that XML 1.0 can't hold."""
    return "".join(
        c
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
        else f"\\u{ord(c):04x}"
        for c in text
    )
