"""The page on metrics has those that a server shows, and no others."""

import re

from prometheus_client.parser import text_string_to_metric_families

from tests.support.http_client import get
from tests.support.project_sources import ROOT
from tests.support.server_process import Server

ROW = re.compile(r"^\| `(ndb_\w+)` \| (\w+) \| ", re.M)


def test_every_metric_is_explained_and_no_other(server: Server) -> None:
    page = get(server.port, "/metrics")[2]
    shown = {
        family.name + "_total" * (family.type == "counter"): family.type
        for family in text_string_to_metric_families(page)
    }
    explained = dict(ROW.findall((ROOT / "docs" / "reference" / "metrics.md").read_text()))
    assert explained == shown
