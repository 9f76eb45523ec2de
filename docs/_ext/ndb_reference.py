"""Directives that write the reference from the code, so that the two can't differ.

``{ndb-statuses}`` lists `ndb_protocol.Status`, ``{ndb-commands}`` the rows of
`ndb_protocol.COMMANDS` whose names begin with its argument, ``{ndb-vector}`` shows the conformance
vector that its argument names as ``SH_NEW: its name``, ``{ndb-server-options}`` what
``ndb-server --help`` knows, ``{ndb-server-commands}`` what its commands do, and
``{ndb-bench-options}`` what ``ndb bench --help`` does.
"""

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from cyclopts import App
from docutils import nodes
from msgspec import Raw, UnsetType
from ndb.bench_command import app as client_command
from ndb_protocol import COMMANDS, COMMON_STATUSES, Command, Role, Status
from ndb_protocol.messages import TOKEN, Params, Reply, rules_of
from ndb_protocol.vectors import Exchange, Vector, load_vectors
from ndb_server.cli.main import app as server_command
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

ROLES = {
    Role.APP: "programs that use sessions",
    Role.KV: "programs that use independent keys",
    Role.ADMIN: "administrators: it affects all sessions or keys",
    None: "everybody",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return [*lines, ""]


def types_of(annotation: Any) -> Iterator[Any]:
    """Yield the types that `annotation` allows, one by one, without its constraints."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from types_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from types_of(member)
    elif annotation is not UnsetType:
        yield annotation


JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", Raw: "any value"}
PLURALS = {
    "integer": "integers",
    "string": "strings",
    "token": "tokens",
    "any value": "values",
}


def json_type(annotation: Any) -> str:
    """Return what the values of a reply's member are called in JSON."""
    kinds = list(dict.fromkeys(types_of(annotation)))
    if len(kinds) > 1:
        # The one union on the wire: a token is a number or, on ndb.v1.text, a string.
        return "array of tokens" if get_origin(kinds[0]) is list else "token"
    [kind] = kinds
    if get_origin(kind) is list:
        return f"array of {PLURALS[json_type(get_args(kind)[0])]}"
    if get_origin(kind) is dict:
        return f"object of {PLURALS[json_type(get_args(kind)[1])]}"
    return "object" if issubclass(kind, msgspec.Struct) else JSON_TYPES[kind]


def structs_of(annotation: Any) -> Iterator[type[msgspec.Struct]]:
    for kind in types_of(annotation):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind


def parameter_rows(params: type[Params], within: str = "") -> Iterator[list[str]]:
    hints, rules = get_type_hints(params), rules_of(params)
    for field in msgspec.structs.fields(params):
        rule = rules[field.name]
        bound = f"; {rule.within}, otherwise {int(rule.status)}" if rule.within else ""
        if rule is TOKEN:
            bound = f", otherwise {int(Status.SESSION_NOT_EXIST)}"
        yield [
            f"`{within}{field.name}`",
            "yes" if field.required else "no",
            rule.must + bound,
            "" if field.required or field.default is msgspec.UNSET else default_of(field),
        ]
        for struct in structs_of(hints[field.name]):
            yield from parameter_rows(struct, f"{field.name}.")  # type: ignore[arg-type]


def default_of(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


def units_of(hint: Any) -> Iterator[str]:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description:
            yield meta.description


def reply_rows(reply: type[msgspec.Struct], within: str = "") -> Iterator[list[str]]:
    hints = get_type_hints(reply, include_extras=True)
    for field in msgspec.structs.fields(reply):
        if field.name in Reply.__struct_fields__:
            continue
        hint = hints[field.name]
        # In replies, only what is not always there can be unset.
        sometimes = UnsetType in get_args(hint)
        kind = ", ".join([json_type(hint), *units_of(hint)])
        yield [f"`{within}{field.name}`", kind, "not always" if sometimes else "yes"]
        for struct in structs_of(hint):
            yield from reply_rows(struct, f"{field.name}.")


VECTORS = load_vectors()

EXAMPLES = {
    "SH_NEW": "All settings are kept",
    "SH_INFO": "'remaining' is the seconds left, rounded up",
    "SH_INFO_ALL": "Independent keys are not counted",
    "SH_SET": "Other keys stay, and an overwritten key keeps its place",
    "KV_SET": "Other keys stay, and an overwritten key keeps its place",
}
"""The vectors that show a command best, where that is not the first of its file."""

TOKENS = {"tkn1": "3487291659421678123", "tkn2": "11740291659421678123", "tkn3": "507"}


def vector(file: str, name: str) -> Vector:
    """Return the vector of this name.

    Raises:
        LookupError: there is none.
    """
    for candidate in VECTORS:
        if (candidate.file, candidate.name) == (file, name):
            return candidate
    raise LookupError(f"{file}.json has no vector '{name}'")


def example(command: Command) -> Vector:
    """Return the vector that shows `command`."""
    first = next(candidate for candidate in VECTORS if candidate.file == command.name)
    return vector(command.name, EXAMPLES.get(command.name, first.name))


def conversation(shown: Vector, until: str = "") -> Iterator[str]:
    """Yield the lines of a block of what is said in a vector, until its last word on `until`."""
    last = max(
        at
        for at, step in enumerate(shown.steps)
        if isinstance(step, Exchange) and until in step.send
    )
    yield "```text"
    for step in shown.steps[: last + 1]:
        if isinstance(step, Exchange):
            yield from (f"→ {filled(step.send)}", f"← {filled(step.expect)}")
        else:
            yield f"  {step.advance_ms} ms pass"
    yield from ("```", "")


def filled(text: str) -> str:
    """Return a message of a vector with tokens, and with … for what may be anything."""
    return re.sub(r"\{\{(tkn\d|any:\w+|naming:\w+)\}\}", lambda at: TOKENS.get(at[1], "…"), text)


def describe(command: Command) -> Iterator[str]:
    """Yield the lines of a command's section."""
    yield from (
        f"(command-{command.name.lower()})=",
        f"### {command.name}",
        "",
        command.summary,
        "",
    )
    parameters = list(parameter_rows(command.params))
    if parameters:
        yield from table(["parameter", "required", "must be", "default"], parameters)
    else:
        yield from ("No parameters.", "")
    replies = [list(reply_rows(reply)) for reply in command.replies]
    for rows in filter(None, replies):
        head = "reply" if len(replies) == 1 else "reply, one of"
        yield from table([head, "type", "present"], rows)
    if not any(replies):
        yield from ("The reply holds `st` only.", "")
    statuses = ", ".join(
        f"[{int(s)}](#status-{int(s)})" for s in sorted({*command.statuses, *COMMON_STATUSES})
    )
    facts = [
        f"Status values: {statuses}.",
        "Changes data." if command.changes else "Changes nothing.",
        f"Safe to send again when its reply was lost: {'yes' if command.repeatable else 'no'}.",
        f"Meant for {ROLES[command.role]}.",
    ]
    if command.extends is not None and command.name.startswith("SH_"):
        facts.insert(2, f"Extends a session that was created with `{command.extends.value}`.")
    yield from ("- " + fact for fact in facts)
    shown = example(command)
    yield from ("", f"{shown.name}:", "")
    yield from conversation(shown, until=f'"{command.name}"')


class Generated(SphinxDirective):
    """A directive whose content is Markdown that `lines` makes."""

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        try:
            text = "\n".join(self.lines())
        except LookupError as error:
            raise self.error(str(error)) from error
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Statuses(Generated):
    def lines(self) -> Iterator[str]:
        answers = {
            status: [c.name for c in COMMANDS.values() if status in c.statuses] for status in Status
        }
        for status in Status:
            yield from (f"(status-{int(status)})=", f"## {int(status)} {status.name}", "")
            yield f"{status.meaning[0].upper()}{status.meaning[1:]}."
            commands = answers[status]
            if 0 < len(commands) < len(COMMANDS) / 2:
                yield (
                    "Answered by "
                    + ", ".join(f"[{n}](#command-{n.lower()})" for n in commands)
                    + "."
                )
            yield ""


class Commands(Generated):
    required_arguments = 1

    def lines(self) -> Iterator[str]:
        for command in COMMANDS.values():
            if command.name.startswith(self.arguments[0]):
                yield from describe(command)


class VectorShown(Generated):
    required_arguments = 1
    final_argument_whitespace = True

    def lines(self) -> Iterator[str]:
        yield from conversation(vector(*self.arguments[0].split(": ", 1)))


def options_of(command: App) -> Iterator[str]:
    """Yield the lines of a Markdown list of the options of a command."""
    page = command.generate_docs("markdown", recursive=False)
    yield from re.findall(r"^\* `--.*(?:\n    .*)*", page, re.M)


class ServerOptions(Generated):
    def lines(self) -> Iterator[str]:
        yield from options_of(server_command)
        yield "* `--version`: Print the version and exit."
        yield "* `--help`: Print all options and exit."


COMMANDS_OF_SERVER = ("datasets", "check", "export", "import")


class ServerCommands(Generated):
    def lines(self) -> Iterator[str]:
        for name in COMMANDS_OF_SERVER:
            page = server_command[name].generate_docs("markdown", recursive=False)
            # A heading and a block with the usage come first.
            _, usage, text = page.split("```", 2)
            yield from (f"### ndb-server {name}", "", "```text")
            yield f"ndb-server {usage.removeprefix('console').strip()}"
            yield from ("```", text, "")


class BenchOptions(Generated):
    def lines(self) -> Iterator[str]:
        yield from options_of(client_command["bench"])


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("ndb-statuses", Statuses)
    app.add_directive("ndb-commands", Commands)
    app.add_directive("ndb-vector", VectorShown)
    app.add_directive("ndb-server-options", ServerOptions)
    app.add_directive("ndb-server-commands", ServerCommands)
    app.add_directive("ndb-bench-options", BenchOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
