"""Plain HTTP, as monitoring speaks it."""

import http.client
import re
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import BOUND


def get(
    port: int, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the body of a response."""
    with closing(http.client.HTTPConnection(host, port, timeout=BOUND)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()


def ops_port(log: str) -> int:
    """Return the port for health and metrics of a server that was told to have one."""
    found = re.search(r"health and metrics are at http://[0-9.]+:([0-9]+)/", log)
    assert found, log
    return int(found[1])


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by the name of the sample and its labels."""


def scrape(port: int, **headers: str) -> Samples:
    """Return what a server's page of metrics has."""
    status, _, page = get(port, "/metrics", **headers)
    assert status == 200, page
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def labelled(name: str, port: int, **headers: str) -> dict[str, float]:
    """Return the values of a metric that has one label, by the values of that."""
    return {
        value: count
        for (sample, labels), count in scrape(port, **headers).items()
        if sample == name
        for _, value in labels
    }
