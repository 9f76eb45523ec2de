"""Valid paths and JSON values of every kind, made at random, for the server and for the oracle."""

import json
from fractions import Fraction
from random import Random
from typing import Any, TypeVar

from tests.support.jsonpath_oracle import Part

T = TypeVar("T")

NAMES = ["a", "b", "a", "b", "", "é", "a b", "it's", 'quo"te', "\n\\", "🙂", "\x7f", "true"]
TEXTS = [*NAMES, "ab", "aab", "1", "\ue000", "null"]
NUMBERS = [
    *["0", "1", "2", "-1", "-0", "-0.0", "0e9", "1.0", "10e-1", "0.1", "0.10", "1e2", "100"],
    *["1E+2", "0.3", "0.30000000000000004", "9007199254740993", "9007199254740992.0", "1e23"],
    *["1e400", "-1e400", "1e-400", "1e4400", "1" + "0" * 23, "0." + "3" * 40],
]
TOO_LONG_FOR_A_PATH = "1" + "0" * 4400
WORDS = {"null": None, "true": True, "false": False}
PATTERNS = ["a", "a*b", ".*", "[ab]+", "a|b", ""]
SHORTHANDS = {"*", "a", "b", "é", "🙂", "true"}
OPERATORS = ["==", "!=", "<", "<=", ">", ">="]


def fraction(text: str) -> Fraction:
    """Return the number that `text` spells; Python itself reads no more than 4,300 digits."""
    digits, _, exponent = text.lower().partition("e")
    whole, _, decimals = digits.partition(".")
    shift = int(exponent or 0) - len(decimals)
    every = (whole + decimals).rstrip("0")
    shift += len(whole + decimals) - len(every)
    return Fraction(int(every.rstrip("-") or 0)) * Fraction(10) ** shift


class Generator:
    """Makes values, queries and spellings of queries.

    Args:
        random: the source of all chance.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    def _one(self, *choices: T) -> T:
        return self._random.choice(choices)

    def _some(self, least: int, most: int) -> range:
        return range(self._random.randint(least, most))

    def document(self, depth: int = 3) -> tuple[str, Any]:
        """Return a JSON text, and its value; numbers are fractions."""
        kind = self._one("array", "object", "scalar") if depth else "scalar"
        if kind == "array":
            parts = [self.document(depth - 1) for _ in self._some(0, 4)]
            return f"[{','.join(text for text, _ in parts)}]", [value for _, value in parts]
        if kind == "object":
            members = {self._one(*NAMES): self.document(depth - 1) for _ in self._some(0, 4)}
            inside = ",".join(f"{json.dumps(name)}:{text}" for name, (text, _) in members.items())
            return f"{{{inside}}}", {name: value for name, (_, value) in members.items()}
        text, value = self._scalar(TOO_LONG_FOR_A_PATH)
        return text or json.dumps(value, ensure_ascii=self._one(True, False)), value

    def _scalar(self, *more: str) -> tuple[str | None, Any]:
        """Return a value that is no array or object, and how it is spelled, if it is no text."""
        match self._one("word", "text", "number", "number"):
            case "word":
                return self._one(*WORDS.items())
            case "text":
                return None, self._one(*TEXTS)
        number = self._one(*NUMBERS, *more)
        return number, fraction(number)

    def query(self, roots: str = "$", filters: int = 2) -> Part:
        """Return a query from one of `roots`, with filters in filters so deep."""
        return self._one(*roots), [
            (self._one(True, False, False), [self._selector(filters) for _ in self._some(1, 2)])
            for _ in self._some(0, 3)
        ]

    def _selector(self, filters: int) -> Part:
        match self._one("wildcard", "slice", "step", "step", *["filter"] * 3 * bool(filters)):
            case "wildcard":
                return ("wildcard",)
            case "slice":
                return ("slice", *(self._one(None, *range(-4, 5)) for _ in range(3)))
            case "filter":
                return ("filter", self._condition(filters - 1))
        return self._step()

    def _step(self) -> Part:
        return self._one(("name", self._one(*NAMES)), ("index", self._one(*range(-3, 4))))

    def _condition(self, filters: int, depth: int = 2) -> Part:
        nested = ["not", "and", "or"] * bool(depth)
        match self._one("exists", "match", "search", *["compare"] * 4, *nested):
            case "exists":
                return ("exists", self.query("@@$", filters))
            case "match" | "search" as name:
                pattern = self._one(("literal", None, self._one(*PATTERNS)), self._value(filters))
                return (name, self._value(filters), pattern)
            case "not":
                return ("not", self._condition(filters, depth - 1))
            case "and" | "or" as name:
                return (name, [self._condition(filters, depth - 1) for _ in self._some(2, 3)])
        return ("compare", self._value(filters), self._one(*OPERATORS), self._value(filters))

    def _value(self, filters: int) -> Part:
        match self._one("length", "count", "value", *["literal", "query"] * 3):
            case "length":
                return ("length", self._value(filters))
            case "count" | "value" as name:
                return (name, self.query("@@$", filters))
            case "literal":
                return ("literal", *self._scalar())
        steps = [(False, [self._step()]) for _ in self._some(0, 2)]
        return ("query", (self._one(*"@@$"), steps))

    # Spelling

    def _blank(self) -> str:
        return self._one("", "", "", " ", "\t", "\n\r")

    def _blanks(self, *parts: str) -> str:
        """Join `parts` with blank space, or none."""
        return "".join(part + self._blank() for part in parts[:-1]) + parts[-1]

    def spelled(self, query: Part, *, singular: bool = False) -> str:
        """Spell a query in one of the many ways there are."""
        root, segments = query
        return self._blanks(
            root, *(self._segment(*segment, singular=singular) for segment in segments)
        )

    def _segment(self, descends: bool, selectors: list[Part], *, singular: bool) -> str:
        dots = ".." if descends else "."
        short = {"wildcard": "*", "name": selectors[0][-1]}.get(selectors[0][0])
        if len(selectors) == 1 and short in SHORTHANDS and self._one(True, False):
            return f"{dots}{short}"
        inside = f"{self._blank()},{self._blank()}".join(map(self._selector_text, selectors))
        inside = inside if singular else self._blanks("", inside, "")
        return f"{'..' if descends else ''}[{inside}]"

    def _selector_text(self, selector: Part) -> str:
        match selector:
            case ("name", name):
                return self._quoted(name)
            case ("wildcard",):
                return "*"
            case ("slice", start, end, step):
                bounds = [[str(at)] if at is not None else [] for at in (start, end, step)]
                more = self._one([], [":"]) if step is None else [":", *bounds[2]]
                return self._blanks(*bounds[0], ":", *bounds[1], *more)
            case ("filter", condition):
                return self._blanks("?", self._condition_text(condition))
        return str(selector[1])

    def _condition_text(self, condition: Part) -> str:
        match condition:
            case ("or", parts):
                return f"{self._blank()}||{self._blank()}".join(map(self._condition_text, parts))
            case ("and", parts):
                return f"{self._blank()}&&{self._blank()}".join(
                    self._grouped(part) if part[0] == "or" else self._condition_text(part)
                    for part in parts
                )
            case ("not", part):
                is_test = part[0] in {"exists", "match", "search"}
                return self._blanks(
                    "!", self._condition_text(part) if is_test else self._grouped(part)
                )
            case ("exists", query):
                return self.spelled(query)
            case ("compare", left, operator, right):
                return self._blanks(self._value_text(left), operator, self._value_text(right))
        return self._called(condition)

    def _grouped(self, condition: Part) -> str:
        return self._blanks("(", self._condition_text(condition), ")")

    def _value_text(self, value: Part) -> str:
        match value:
            case ("literal", spelling, text):
                return self._quoted(text) if spelling is None else str(spelling)
            case ("query", query):
                return self.spelled(query, singular=True)
            case ("count" | "value" as name, query):
                return f"{name}{self._blanks('(', self.spelled(query), ')')}"
        return self._called(value)

    def _called(self, call: Part) -> str:
        name, *arguments = call
        first, *more = map(self._value_text, arguments)
        others = [piece for argument in more for piece in (",", argument)]
        return f"{name}{self._blanks('(', first, *others, ')')}"

    def _quoted(self, text: str) -> str:
        quote = self._one("'", '"')
        escapes = {"\n": "\\n", "\\": "\\\\", quote: f"\\{quote}"}
        if self._one(True, False):
            return quote + "".join(escapes.get(one, one) for one in text) + quote
        spell = self._one("\\u{:04x}", "\\u{:04X}")
        units = text.encode("utf-16-be")
        pairs = zip(units[::2], units[1::2], strict=True)
        return quote + "".join(spell.format(256 * high + low) for high, low in pairs) + quote
