"""How many descriptors a server may have, and who gets them."""

import sys

import pytest
from ndb_server import limits as limits_module
from ndb_server.limits import (
    DESCRIPTORS_KEPT,
    descriptor_limit,
    few_descriptors,
    for_clients,
    for_operators,
    raise_file_limit,
)


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    # Where there is no such thing, nothing happens.
    monkeypatch.setattr(limits_module, "resource", None)
    raise_file_limit()
    assert descriptor_limit() is None
    assert sys.platform


def test_the_server_keeps_some_descriptors_for_itself() -> None:
    assert for_clients(10_000) == 10_000 - DESCRIPTORS_KEPT
    assert for_clients(100) == 75
    assert for_clients(None) is None


def test_operators_have_half_of_the_descriptors_that_clients_leave() -> None:
    assert for_operators(10_000) == 10_000 - DESCRIPTORS_KEPT // 2
    assert for_operators(100) == 88
    assert for_operators(None) is None


def test_too_few_descriptors_are_told_where_a_number_of_connections_is_promised() -> None:
    assert few_descriptors(10_320, 10_000) is None
    assert "descriptors" in (few_descriptors(10_319, 10_000) or "")
    # Nothing is promised, or anything can be.
    assert few_descriptors(100, 0) is None
    assert few_descriptors(None, 10_000) is None
