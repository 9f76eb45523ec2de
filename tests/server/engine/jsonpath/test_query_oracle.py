"""Any path on any value: what is selected, against an oracle too simple to be wrong."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from ndb_protocol import Status
from ndb_server.engine import paths
from ndb_server.errors import RefusedError

from tests.support import jsonpath_oracle as oracle
from tests.support import reference_model as model
from tests.support.jsonpath_generator import Generator
from tests.support.jsonpath_grammar import recognizes


@settings(max_examples=150)
@given(st.randoms(use_true_random=True))
def test_a_path_selects_what_the_oracle_says(random: Random) -> None:
    generator = Generator(random)
    for _ in range(20):
        query = generator.query()
        path = generator.spelled(query)
        text, value = generator.document()
        assert recognizes(path)
        nodes = oracle.nodes(query, None, value)
        expected = [model.normalized(location) for location, _ in nodes]
        assert (path, text, paths.find_paths(path, text.encode())) == (path, text, expected)
        assert paths.matches(path, text.encode()) == bool(expected)


PIECES = st.one_of(
    st.sampled_from("$@.[]()*?!:,'\"\\ \n=<>&|0159-+eEab_é\0\x7f"),
    st.sampled_from(
        ["..", "==", "&&", "||", "true", "null", "-0", "1.5", "\\u00", "\\ud83d", "[?"]
    ),
    st.sampled_from(["@.a", "$.b", "['a']", "length(", "count(", "value(", "match(", "search("]),
)


@settings(max_examples=600)
@given(st.randoms(use_true_random=True), st.lists(PIECES | st.just(""), min_size=1, max_size=3))
def test_a_path_that_was_tampered_with_is_taken_if_the_grammar_has_it(
    random: Random, pieces: list[str]
) -> None:
    generator = Generator(random)
    path = generator.spelled(generator.query())
    for piece in pieces:
        begin = random.randint(0, len(path))
        path = path[:begin] + piece + path[begin + random.randint(0, 2) :]
    assert_taken_if_recognized(path)


@settings(max_examples=600)
@given(st.lists(PIECES, max_size=7).map("".join), st.sampled_from(["$", "$[?", "$[?@.a", "$['"]))
def test_pieces_of_paths_in_any_order_are_taken_if_the_grammar_has_them(
    pieces: str, beginning: str
) -> None:
    assert_taken_if_recognized(beginning + pieces)
    assert_taken_if_recognized(beginning + pieces + "]")


def assert_taken_if_recognized(path: str) -> None:
    try:
        paths.check_path(path)
    except RefusedError as refused:
        assert refused.status is Status.PATH_INVALID
        assert not recognizes(path)
    else:
        assert recognizes(path)
