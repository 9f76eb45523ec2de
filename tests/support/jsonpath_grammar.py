"""The grammar of RFC 9535 (appendix A), as a recursive regular expression.

It shares nothing with the server's parser, and only tells whether a text is of a production. Where
the grammar has one production for calls of functions, there are two here: for functions whose
result is a value, and for those whose result is logical. So what is not well-typed (section 2.4.3)
is not recognized either.
"""

import regex

SAFE = 2**53 - 1


def _up_to(most: int) -> str:
    """Return what matches the decimal digits of 1 to `most`."""
    digits = str(most)
    less = [
        f"{digits[:at]}[{int(at == 0)}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > int(at == 0)
    ]
    return "|".join([f"[1-9][0-9]{{0,{len(digits) - 2}}}", *less, digits])


_PRODUCTIONS = {
    "jsonpath_query": r"\$<segments>",
    "segments": r"(?:<S><segment>)*",
    "S": r"[ \t\n\r]*",
    "segment": r"<child_segment>|<descendant_segment>",
    "child_segment": r"<bracketed_selection>|\.(?:\*|<member_name_shorthand>)",
    "descendant_segment": r"\.\.(?:<bracketed_selection>|\*|<member_name_shorthand>)",
    "bracketed_selection": r"\[<S><selector>(?:<S>,<S><selector>)*<S>\]",
    "member_name_shorthand": r"<name_first>(?:<name_first>|[0-9])*",
    "name_first": r"[A-Za-z_\x80-\uD7FF\uE000-\U0010FFFF]",
    "selector": r"<string_literal>|\*|<slice_selector>|<int>|<filter_selector>",
    "string_literal": r""""<double_quoted>*"|'<single_quoted>*'""",
    "double_quoted": r"""<unescaped>|'|\\"|\\<escapable>""",
    "single_quoted": r"""<unescaped>|"|\\'|\\<escapable>""",
    "unescaped": r"[\x20-\x21\x23-\x26\x28-\x5B\x5D-\uD7FF\uE000-\U0010FFFF]",
    "escapable": r"[bfnrt/\\]|u<hexchar>",
    "hexchar": r"<non_surrogate>|<high_surrogate>\\u<low_surrogate>",
    "non_surrogate": r"[0-9A-CEFa-cef]<HEXDIG>{3}|[Dd][0-7]<HEXDIG>{2}",
    "high_surrogate": r"[Dd][89ABab]<HEXDIG>{2}",
    "low_surrogate": r"[Dd][C-Fc-f]<HEXDIG>{2}",
    "HEXDIG": r"[0-9A-Fa-f]",
    "int": rf"0|-?(?:{_up_to(SAFE)})(?![0-9])",
    "slice_selector": r"(?:<int><S>)?:<S>(?:<int><S>)?(?::(?:<S><int>)?)?",
    "filter_selector": r"\?<S><logical_expr>",
    "logical_expr": r"<logical_and_expr>(?:<S>\|\|<S><logical_and_expr>)*",
    "logical_and_expr": r"<basic_expr>(?:<S>&&<S><basic_expr>)*",
    "basic_expr": r"<paren_expr>|<comparison_expr>|<test_expr>",
    "paren_expr": r"(?:!<S>)?\(<S><logical_expr><S>\)",
    "test_expr": r"(?:!<S>)?(?:<filter_query>|<logical_function>)",
    "filter_query": r"@<segments>|<jsonpath_query>",
    "comparison_expr": r"<comparable><S><comparison_op><S><comparable>",
    "comparison_op": r"==|!=|<=|>=|<|>",
    "comparable": r"<literal>|<singular_query>|<value_function>",
    "literal": r"<number>|<string_literal>|true|false|null",
    "number": r"(?:0|-?[1-9][0-9]*|-0)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?",
    "singular_query": r"[@$](?:<S>(?:<name_segment>|<index_segment>))*",
    "name_segment": r"\[<string_literal>\]|\.<member_name_shorthand>",
    "index_segment": r"\[<int>\]",
    "value_function": r"length\(<S><value_argument><S>\)|(?:count|value)\(<S><filter_query><S>\)",
    "logical_function": r"(?:match|search)\(<S><value_argument><S>,<S><value_argument><S>\)",
    "value_argument": r"<literal>|<singular_query>|<value_function>",
}


_NAMED = regex.compile("<([A-Za-z_]+)>")


def _defined(name: str, body: str) -> str:
    return f"(?P<{name}>{_NAMED.sub(lambda named: f'(?&{named[1]})', body)})"


_DEFINITIONS = "".join(_defined(*production) for production in _PRODUCTIONS.items())
_RECOGNIZERS = {
    name: regex.compile(f"(?(DEFINE){_DEFINITIONS})(?&{name})") for name in _PRODUCTIONS
}


def recognizes(text: str, production: str = "jsonpath_query") -> bool:
    """Tell whether `text` is of a production of the grammar, and well-typed."""
    return _RECOGNIZERS[production].fullmatch(text) is not None
