"""The kit finds out a server that is broken, in any of many ways, and passes one that is not."""

from pathlib import Path

import pytest
from ndb_protocol.conformance.report import Outcome
from ndb_protocol.conformance.scenarios import load_scenarios
from ndb_protocol.conformance.servers import check_server
from ndb_server.server.server import Options

from tests.support.break_registry import Break
from tests.support.in_process_server import running
from tests.support.project_sources import ROOT

from .breaks import BREAKS, table

SCENARIOS = {scenario.id: scenario for scenario in load_scenarios()}
SOON = 1.0
"""Seconds after which a broken server's silence is taken for what it is."""


@pytest.mark.parametrize("broken", BREAKS.values(), ids=lambda broken: broken.name)
async def test_a_broken_server_is_found_out(
    broken: Break, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.apply(monkeypatch)
    async with running(Options(port=0, data_dir=tmp_path)) as url:
        [result] = await check_server(url, [SCENARIOS[broken.caught_by]], SOON)
    assert result.outcome is Outcome.FAILED


def test_there_are_enough_ways_to_break_it() -> None:
    assert len(BREAKS) >= 30


def test_the_documentation_lists_them() -> None:
    assert table() in (ROOT / "docs" / "explanation" / "conformance.md").read_text()
