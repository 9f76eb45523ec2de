"""The AsyncAPI document is one, and has every message."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from ndb_protocol import COMMANDS, Status
from ndb_protocol.asyncapi import asyncapi

from tests.support.schema_validators import DEFINITIONS, is_valid, parse, parts, with_ecma_patterns
from tests.support.vector_messages import SENT, refusal

META_SCHEMA = Path(__file__).parent / "asyncapi" / "3.0.0.json"
DOCUMENT = asyncapi()


def at(reference: str) -> Any:
    """Return what `reference` leads to."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_the_document_is_valid_by_the_schema_of_asyncapi() -> None:
    validator = Draft7Validator(json.loads(META_SCHEMA.read_bytes()))
    validator.validate(DOCUMENT)
    wrong = DOCUMENT | {"operations": {"SH_NEW": {"action": "answer"}}}
    assert not validator.is_valid(wrong)


def test_every_reference_leads_somewhere() -> None:
    references = [part["$ref"] for part in parts(DOCUMENT) if "$ref" in part]
    assert references
    assert all(at(reference) for reference in references)


def test_every_command_is_received_and_answered() -> None:
    assert DOCUMENT["operations"].keys() == {*COMMANDS, "ERR"}
    for command in COMMANDS.values():
        operation = DOCUMENT["operations"][command.name]
        assert operation["action"] == "receive"
        [request], [reply] = operation["messages"], operation["reply"]["messages"]
        assert at(at(request["$ref"])["$ref"])["name"] == command.name
        assert at(at(reply["$ref"])["$ref"])["name"] == command.reply_name


def test_a_message_has_the_schema_that_the_json_schema_has() -> None:
    here, there = json.dumps(DOCUMENT["components"]["schemas"]), json.dumps(DEFINITIONS)
    assert here == there.replace("#/$defs/", "#/components/schemas/")
    for name, message in DOCUMENT["components"]["messages"].items():
        assert message["payload"] == {"$ref": f"#/components/schemas/{name}"}


def test_draft_7_reads_the_schemas_as_2020_12_does() -> None:
    components = {"schemas": DOCUMENT["components"]["schemas"]}
    draft_7 = with_ecma_patterns(Draft7Validator)
    for text in SENT:
        command = text[2 : text.find('"', 2)]
        if command in COMMANDS and refusal(text) is not Status.JSON_INVALID:
            reference = f"#/components/schemas/{command}"
            validator = draft_7({"$ref": reference, "components": components})
            assert validator.is_valid(parse(text)) == is_valid(command, text), text
