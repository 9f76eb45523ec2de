"""What each production of RFC 9535's grammar (appendix A) allows, and what it doesn't.

Each is tried where it stands in a path. The grammar that other tests trust is held to it too.
"""

import pytest
from ndb_protocol import Status
from ndb_server.engine import paths
from ndb_server.errors import RefusedError

from tests.support.jsonpath_grammar import SAFE, recognizes

UNICODE = ["é", "\ue000", "\ud7ff", "🙂", "\U0010ffff", "\x80"]
BLANKS = [" ", "\t", "\n", "\r", " \t\n\r "]
NO_BLANKS = ["\x0b", "\f", "\0", "\xa0", "\u2028"]

# The production; where it stands; what it allows; what it doesn't.
# fmt: off
TABLE: list[tuple[str, str, list[str], list[str]]] = [
    ("jsonpath-query", "{}",
        ["$", "$.a", "$[0]"],
        ["", "@", "@.a", "a", "$$", " $", "$ ", "$.a ", "\ufeff$"]),
    ("segments", "${}",
        ["", ".a.b", " .a", "\n[0]\t..b", *(f"{b}.a" for b in BLANKS)],
        ["a", "0", ".a b", *BLANKS, *(f"{b}.a" for b in NO_BLANKS)]),
    ("child-segment", "${}",
        ["[0]", ".*", ".a"],
        [".", ". a", ". *", ".[0]", ".'a'", ".1", ".-1", "*", ".a*", ".**"]),
    ("descendant-segment", "${}",
        ["..[0]", "..*", "..a", "..['a',1]"],
        ["..", ".. a", "...a", ". .a", "..[", "..'a'", "..[]"]),
    ("bracketed-selection", "${}",
        ["[0]", "[0,1]", "['a', *, 1:2,?@]", *(f"[{b}0{b},{b}1{b}]" for b in BLANKS)],
        ["[]", "[,]", "[0,]", "[,0]", "[0 1]", "[0", "0]", "[[0]]", "[0]]",
         *(f"[{b}0]" for b in NO_BLANKS)]),
    ("member-name-shorthand", "$.{}",
        ["a", "_", "Z9", "a_b", "true", "null", *UNICODE, "é1"],
        ["1a", "-", "a-b", "a b", "$", "@", "a'", "a\\u0062", "\x7f", "\0", "a\x1f"]),
    ("name-selector", "$[{}]",
        ["'a'", '"a"', "''", '""'],
        ["a", "`a`", "'a", "a'", "'a\"", "''''", "'a' 'b'"]),
    ("double-quoted", '$["{}"]',
        ["'", '\\"', " ", "\x7f", "[]", *UNICODE],
        ['"', "\\'", "\\", "\n", "\t", "\0", "\x1f", "\\a", "\\0", "\\x41", "\\\n"]),
    ("single-quoted", "$['{}']",
        ['"', "\\'", " ", "\x7f", "[]", *UNICODE],
        ["'", '\\"', "\\", "\n", "\t", "\0", "\x1f", "\\a", "\\0", "\\v"]),
    ("escapable", "$['\\{}']",
        [*"bfnrt/\\", "u0041", "u00e9", "u00E9", "uFFFF"],
        [*'"aBUvx$0 ', "u", "u004", "u004g", "u{41}", "U0041", "x41"]),
    ("hexchar", "$['\\u{}']",
        ["0000", "d7ff", "D7FF", "e000", "abcd", "d83d\\uDE00", "DBFF\\udfff"],
        ["d800", "DFFF", "dc00\\ud800", "d83d", "d83d\\u0041", "d83dde00", "d83d\\n", "d83d\\ud83d",
         "d83d\\Ude00", "+041", "00 1"]),
    ("wildcard-selector", "$[{}]",
        ["*", " * "],
        ["**", "'a'*", "*.a"]),
    ("index-selector", "$[{}]",
        ["0", "1", "-1", "10", str(SAFE), str(-SAFE)],
        ["-0", "00", "01", "-01", "+1", "1.0", "1e0", "0x1", "--1", "- 1", "1 0", str(SAFE + 1),
         str(-SAFE - 1), "١", "１", "²"]),
    ("slice-selector", "$[{}]",
        [":", "::", "1:", ":1", "::1", "1:2:3", "-1:-2:-3", "::0", "1 : 2 : 3", " : : ", "1: :",
         f"{SAFE}:{-SAFE}:{SAFE}"],
        [":::", "1:2:3:4", "-0:", ":-0", "::-0", "01:", ":01", "::01", "1.0:", "a:", ":'a'",
         f"{SAFE + 1}:", f":{SAFE + 1}", f"::{-SAFE - 1}", "1 2:", "*:"]),
    ("filter-selector", "$[{}]",
        ["?@", "? @", "?\n@", "?@,?@", "?(@)"],
        ["?", "@", "??@", "?@?", "?*", "(@)", "?()"]),
    ("logical-or-expr", "$[?{}]",
        ["@||@", "@ || @", "@\n||\n@||@", "@&&@||@&&@"],
        ["@|@", "@|||@", "||@", "@||", "@ or @", "@| |@", "@||||@"]),
    ("logical-and-expr", "$[?{}]",
        ["@&&@", "@ && @", "@\t&&\r@&&@"],
        ["@&@", "@&&&@", "&&@", "@&&", "@ and @", "@& &@"]),
    ("paren-expr", "$[?{}]",
        ["(@)", "( @ )", "!(@)", "! (@)", "((@))", "!(!(@))", "(@==1)", "(@||@)&&@", "!(@==1)"],
        ["()", "(@", "@)", "!!(@)", "(1)", "(@)(@)", "(@.a)==1", "1==(@.a)", "(@)==(@)", "!(@)==1",
         "(@==1)==true", "(@).a", "(1)==1"]),
    ("logical-not-op", "$[?{}]",
        ["!@", "! @", "!$.a", "!@.*", "!match(@,'a')"],
        ["!", "!!@", "@!", "!1", "!'a'", "!true", "not @", "!@==1", "!@.a==1", "!1==1", "!@<1",
         "!length(@)==1", "!count(@.*)"]),
    ("test-expr", "$[?{}]",
        ["@", "$", "@.a", "@.*", "@..a", "@[0]", "@[?@]", "$[?@].a", "match(@,'a')", "@['a','b']"],
        ["1", "'a'", "true", "null", "false", "''", "a", "*", ".a", "['a']", "@a", "@.",
         "length(@)", "count(@.*)", "value(@.*)"]),
    ("comparison-expr", "$[?{}]",
        ["@==1", "1==@", "1==1", "@ == 1", "@\n==\r1", "@.a==$.b", "'a'=='b'", "true!=null"],
        ["@==", "==1", "@ 1", "@==1==1", "@.a<1<2", "1<@<2", "@==1!=2", "@==!@", "@==(1)", "@==@||",
         "@==1 1", "@.a==1.a"]),
    ("comparison-op", "$[?@{}1]",
        ["==", "!=", "<", "<=", ">", ">="],
        ["=", "===", "!==", "<>", "=<", "=>", "!", "<<", "= =", "< =", "~=", "=~", " in ", "≤"]),
    ("comparable", "$[?{}==1]",
        ["1", "'a'", "@", "$", "@.a", "@[0]", "@['a'][-1].b", "length(@)", "count(@.*)",
         "value(@..a)"],
        ["@.*", "@..a", "@[*]", "@[0,1]", "@[:]", "@[?@]", "@.a.*", "@..[0]", "match(@,'a')",
         "search(@,'a')", "a", "[1]", "{}"]),
    ("literal", "$[?@=={}]",
        ["1", "'a'", '"a"', "true", "false", "null"],
        ["True", "TRUE", "None", "nil", "undefined", "truee", "nulll", "true1", "NaN", "Infinity",
         "[]", "{}", "[1]"]),
    ("number", "$[?@=={}]",
        ["0", "-0", "1", "-1", "10", "0.0", "-0.0", "1.5", "0.50", "1e5", "1E5", "1e+5", "1e-5",
         "1e05", "-0e0", "-0.1E-0", "1e400", "-1e400", "1e99999999999999999999", "9" * 400,
         "0." + "0" * 400 + "1", str(SAFE + 1)],
        ["00", "01", "-00", "-01", "+1", "1.", ".1", "-.1", "-", "--1", "1e", "1e+", "1.e1", "1 .0",
         "1e 5", "1e1.0", "0x1", "1_0", "- 1", "1d", "١"]),
    ("singular-query-segments", "$[?{}==1]",
        ["@.a", "@ .a", "@\n['a']\t[0]", '@["a"]', "$.a[-1]", "@.a .b"],
        ["@[ 'a']", "@['a' ]", "@[ 0 ]", "@[0,0]", "@['a','a']", "@..a", "@.*", "@. a", "@[]",
         "@[1:2]"]),
    ("function-name", "$[?{}(@.*)==1]",
        ["count", "value"],
        ["Count", "COUNT", "count ", " ", "", "_count", "1", "len", "a", "count1", "coünt", "true",
         "keys", "sum"]),
    ("function-expr", "$[?{}==1]",
        ["length(@)", "length( @ )", "length(\n@\t)", "length('a')", "length(1)",
         "length(length(@))", "count(@)", "count($..*)", "value(@[?@])", "length(value(@.*))"],
        ["length", "length()", "length(@", "length @", "length(@,@)", "length(@,)", "length(,@)",
         "count()", "count(@,@)", "length((@))", "count((@))", "length(@)()", "length(@).a"]),
    ("function-argument", "$[?match({})]",
        ["@,'a'", "'a','a'", "@.a,$.b", " @ , 'a' ", "1,null", "value(@.*),'a'", "length(@),'a'",
         "@,@.a[0]"],
        ["@", "@,'a','b'", "", "@,", ",'a'", "@ 'a'", "@.*,'a'", "'a',@..a", "@==1,'a'", "@||@,'a'",
         "!@,'a'", "(@),'a'", "match(@,'a'),'a'", "@[ 'a' ],'a'", "search(@,'a'),'b'", "a,'a'"]),
]
# fmt: on


@pytest.mark.parametrize(
    ("context", "allowed", "refused"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_a_production_allows_what_the_grammar_says_and_nothing_else(
    context: str, allowed: list[str], refused: list[str]
) -> None:
    for text in [*allowed, *refused]:
        path = context.replace("{}", text)
        assert (path, recognizes(path)) == (path, text in allowed)
        assert (path, taken(path)) == (path, text in allowed)


def taken(path: str) -> bool:
    try:
        paths.check_path(path)
    except RefusedError as refused:
        assert refused.status is Status.PATH_INVALID
        assert "at character " in refused.message
        return False
    return True


@pytest.mark.parametrize("name", ["match", "search"])
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{}(@,'a')", True),
        ("!{}(@,'a')", True),
        ("{}(@,'a')&&{}(@.a,@.b)", True),
        ("{}(@,'a')==true", False),
        ("true=={}(@,'a')", False),
        ("{}(@,{}(@,'a'))", False),
        ("length({}(@,'a'))==1", False),
        ("count({}(@,'a'))==1", False),
    ],
)
def test_a_logical_function_is_tested_and_never_compared(
    name: str, condition: str, expected: bool
) -> None:
    path = f"$[?{condition.replace('{}', name)}]"
    assert (taken(path), recognizes(path)) == (expected, expected)


@pytest.mark.parametrize("name", ["count", "value"])
@pytest.mark.parametrize("argument", ["1", "'a'", "true", "length(@)", "value(@.*)", "@==1", "!@"])
def test_a_function_of_nodes_takes_a_query_and_nothing_else(name: str, argument: str) -> None:
    path = f"$[?{name}({argument})==1]"
    assert (taken(path), recognizes(path)) == (False, False)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "at character 1, '$' is expected, not the end"),
        ("$.a[", "at character 5, a selector is expected, not the end"),
        ("$.a[01]", "at character 6, ']' is expected, not '1'"),
        ("$[9007199254740992]", "at character 19, the index or bound that ends here exceeds"),
        ("$[?@.* == 1]", "at character 12, the operand that ends here is not a literal"),
        ("$[?f(@)]", "at character 6, the called function is not one of length, count,"),
        (
            "$[?count(1)==1]",
            "at character 11, the argument of count() that ends here is not a query",
        ),
        (
            "$[?length(@)]",
            "at character 13, the value that ends here is neither compared nor tested",
        ),
    ],
)
def test_a_refusal_says_where_the_path_is_wrong(path: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        paths.check_path(path)
    assert message in caught.value.message
