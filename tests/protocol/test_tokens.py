"""Tokens: what is one, in which forms, and where they come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndb_protocol import NO_TOKEN, TOKEN_MAX, new_token, parse_token

tokens = st.integers(1, TOKEN_MAX)


@given(tokens)
def test_a_token_is_read_from_an_integer_and_from_its_decimal_text(token: int) -> None:
    assert parse_token(token) == parse_token(str(token)) == token


@given(st.integers().filter(lambda number: not 0 < number <= TOKEN_MAX))
def test_an_integer_out_of_range_is_no_token_in_either_form(number: int) -> None:
    assert parse_token(number) == parse_token(str(number)) == NO_TOKEN


@given(st.text())
def test_a_text_is_a_token_only_if_it_is_how_that_token_is_written(text: str) -> None:
    token = parse_token(text)
    assert token == NO_TOKEN or str(token) == text


@given(tokens, st.sampled_from([" {}", "{} ", "{}\n", "+{}", "-{}", "0{}", "{}.0", "{}e0", "0x{}"]))
def test_a_token_has_one_text_form(token: int, spelling: str) -> None:
    assert parse_token(spelling.format(token)) == NO_TOKEN


@pytest.mark.parametrize("text", ["1_000", "\u0661", "\uff11", "²", "", "0", "00", "9" * 5000])
def test_what_python_alone_calls_an_integer_is_no_token(text: str) -> None:
    assert parse_token(text) == NO_TOKEN


@given(st.none() | st.booleans() | st.floats() | st.lists(tokens) | st.binary() | tokens.map(float))
def test_values_of_other_types_are_no_tokens(value: object) -> None:
    assert parse_token(value) == NO_TOKEN


def test_new_tokens_are_tokens_and_differ() -> None:
    made = [new_token() for _ in range(1000)]
    assert all(parse_token(token) == token for token in made)
    assert len(set(made)) == len(made)


def test_a_new_token_is_any_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def least(bound: int) -> int:
        asked.append(bound)
        return 0

    monkeypatch.setattr("secrets.randbelow", least)
    assert new_token() == 1
    monkeypatch.setattr("secrets.randbelow", lambda bound: bound - 1)
    assert new_token() == TOKEN_MAX
    assert asked == [TOKEN_MAX]
