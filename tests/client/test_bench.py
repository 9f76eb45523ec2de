"""The statistics of `ndb bench`, and the mixes it takes."""

import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb.bench import DEFAULT_MIX, OPERATIONS, format_mix, parse_mix
from ndb.figures import QUANTILES, Histogram, Tally, total
from ndb_protocol import COMMANDS

durations = st.lists(st.integers(0, 2**60) | st.integers(0, 1000), min_size=1, max_size=200)
ERROR = 0.004


def histogram(values: list[int]) -> Histogram:
    counted = Histogram()
    for value in values:
        counted.record(value)
    return counted


@given(durations, st.integers(1, 1000))
def test_a_quantile_is_the_value_of_that_rank_to_within_its_error(
    values: list[int], thousandths: int
) -> None:
    exact = sorted(values)[math.ceil(len(values) * thousandths / 1000) - 1]
    told = histogram(values).quantile(thousandths)
    assert told is not None
    assert abs(told - exact) <= exact * ERROR
    assert exact >= 256 or told == exact


@given(durations, durations)
def test_histograms_add_up(some: list[int], others: list[int]) -> None:
    added = histogram(some)
    added.add(histogram(others))
    together = histogram(some + others)
    assert len(added) == len(some) + len(others)
    for thousandths in QUANTILES.values():
        assert added.quantile(thousandths) == together.quantile(thousandths)


def test_p99_9_of_a_thousand_leaves_out_the_one_outlier() -> None:
    counted = histogram([100] * 999 + [200])
    assert counted.quantile(999) == 100
    assert counted.quantile(1000) == 200


def test_a_histogram_grows_with_the_range_of_its_values_and_not_with_their_number() -> None:
    counted = histogram(list(range(100_000)))
    assert len(counted) == 100_000
    assert len(counted._counts) < 1500


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert Histogram().quantile(500) is None


def test_a_summary_tells_milliseconds_and_requests_per_second() -> None:
    tally = Tally(histogram([250_000_000] * 4), Counter({"CONFLICT": 2}))
    summary = tally.summary(2.0)
    assert summary["requests"] == 4
    assert summary["throughput"] == 2.0
    assert summary["latencyMs"] == pytest.approx(dict.fromkeys(QUANTILES, 250), rel=ERROR)
    assert summary["errors"] == {"CONFLICT": 2}


def test_a_summary_of_nothing_has_no_latencies() -> None:
    assert Tally().summary(1.0) == {
        "requests": 0,
        "throughput": 0.0,
        "latencyMs": {"p50": None, "p99": None, "p99.9": None},
        "errors": {},
    }


def test_a_total_leaves_its_parts_as_they_were() -> None:
    parts = [
        Tally(histogram([1, 2]), Counter(a=1)),
        Tally(histogram([3]), Counter(a=1, b=1)),
    ]
    everything = total(parts)
    assert len(everything.latencies) == 3
    assert everything.errors == {"a": 2, "b": 1}
    assert [len(part.latencies) for part in parts] == [2, 1]


@given(st.dictionaries(st.sampled_from(list(OPERATIONS)), st.integers(1, 10**9), min_size=1))
def test_a_mix_is_read_as_it_is_written(mix: dict[str, int]) -> None:
    assert parse_mix(format_mix(mix)) == mix


def test_a_mix_may_have_spaces() -> None:
    assert parse_mix(" get = 80, set=20 ") == DEFAULT_MIX


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not an operation; the operations are get, "),
        ("get=80,", "'' is not an operation"),
        ("end=1", "'end' is not an operation"),
        ("GET=1", "'GET' is not an operation"),
        ("get", "the weight of get is ''"),
        ("get=", "the weight of get is ''"),
        ("get=0", "the weight of get is '0', not a positive integer"),
        ("get=-1", "the weight of get is '-1'"),
        ("get=1.5", "the weight of get is '1.5'"),
        ("get=²", "the weight of get is '²'"),
        ("get=1=2", "the weight of get is '1=2'"),
        ("get=1,set=1,get=2", "get is given twice"),
    ],
)
def test_a_bad_mix_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        parse_mix(text)


def test_operations_are_commands_on_one_session() -> None:
    for name in OPERATIONS:
        assert "tkn" in COMMANDS[f"SH_{name.upper()}"].params.__struct_fields__
