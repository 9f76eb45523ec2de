"""The compliance test suite of the JSONPath standard.

`cts.json` is `cts.json` of github.com/jsonpath-standard/jsonpath-compliance-test-suite at commit
7be7c1fc28057c91e8eefaf197060fba7ed43acd, a test on a line and without tags; `cts.LICENSE` is its
licence.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from ndb_protocol import Status
from ndb_server.engine import paths
from ndb_server.errors import RefusedError

from tests.support.jsonpath_grammar import recognizes

TESTS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cts.json").read_text())


def test_every_test_of_the_compliance_suite_passes() -> None:
    assert len(TESTS) == 703
    assert [test["name"] for test in TESTS if not passes(test)] == []


def passes(test: dict[str, Any]) -> bool:
    path = test["selector"]
    valid = not test.get("invalid_selector", False)
    if recognizes(path) != valid:
        pytest.fail(f"the grammar of the tests is wrong on {path!r}")
    if not valid:
        with pytest.raises(RefusedError) as caught:
            paths.check_path(path)
        return caught.value.status is Status.PATH_INVALID
    # Most tests have one right answer, some several.
    expected = test.get("results_paths") or [test["result_paths"]]
    return paths.find_paths(path, json.dumps(test["document"]).encode()) in expected
