"""Lines of the log for machines."""

import json
import logging
from typing import Any

from ndb_server.server.logs import JsonFormatter


def formatted(message: str, *arguments: object, **more: Any) -> dict[str, Any]:
    """Return what a record is on its line."""
    record = logging.getLogger("ndb_server.x").makeRecord(
        "ndb_server.x", logging.WARNING, "x.py", 1, message, arguments, **more
    )
    record.created = 1.5
    line = JsonFormatter().format(record)
    assert "\n" not in line
    decoded: dict[str, Any] = json.loads(line)
    return decoded


def test_a_record_is_an_object_with_its_fields() -> None:
    assert formatted("%d é\n", 5, exc_info=None, extra={"peer": "here", "path": object}) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "warning",
        "logger": "ndb_server.x",
        "message": "5 é\n",
        "peer": "here",
        "path": "<class 'object'>",
    }


def test_what_was_raised_is_one_of_the_fields() -> None:
    try:
        raise LookupError("nothing is there")
    except LookupError as error:
        line = formatted("it failed", exc_info=(type(error), error, error.__traceback__))
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("LookupError: nothing is there")
