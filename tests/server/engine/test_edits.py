"""The edits by which commands change a map of keys."""

from msgspec import Raw
from ndb_server.engine.edits import Edit

ONE, TWO = b"1", b'{"a": [1.50]}'


def test_an_edit_clears_then_removes_then_puts() -> None:
    one, two = Raw(ONE), Raw(TWO)
    values = {"a": one, "b": one}
    Edit({"b": two, "c": one}, remove=("a",)).apply(values)
    assert list(values.items()) == [("b", two), ("c", one)]
    Edit({"a": two}, clear=True).apply(values)
    assert values == {"a": two}
    Edit().apply(values)
    assert values == {"a": two}


def test_an_empty_edit_shares_nothing_that_can_be_changed() -> None:
    Edit().apply(values := {"a": Raw(ONE)})
    values["b"] = Raw(ONE)
    assert (dict(Edit().put), Edit().remove, Edit().clear) == ({}, (), False)
