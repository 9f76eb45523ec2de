"""The conformance vectors: that they say what they should, of everything there is to say."""

import json
import re
from collections import defaultdict

import msgspec
import pytest
from ndb_protocol import COMMANDS, COMMON_STATUSES, Command, Status
from ndb_protocol.conformance.conversation import Conversation, Mismatch, compact
from ndb_protocol.messages import EXPIRY, KEY_NAMES, KEY_VALUES, TOKEN, VALUE, Rule, rules_of
from ndb_protocol.vectors import Advance, Exchange, Vector, load_vectors

from tests.support.vector_messages import NOT_BY_TEXT

VECTORS = load_vectors()


OF_NO_COMMAND = {Status.JSON_INVALID, Status.COMMAND_SYNTAX, Status.COMMAND_NOT_EXIST}
"""Statuses of messages that name no command there is."""

_ANSWER = re.compile(r'\{"(\w+)":\{"st":(\d+)[,}]')


def _exchanges(vectors: list[Vector]) -> list[Exchange]:
    return [step for vector in vectors for step in vector.steps if isinstance(step, Exchange)]


def _answers() -> dict[str, set[int]]:
    answers = defaultdict(set)
    for exchange in _exchanges(VECTORS):
        found = _ANSWER.match(exchange.expect)
        assert found, exchange.expect
        answers[found[1]].add(int(found[2]))
    return answers


ANSWERS = _answers()


def test_there_is_one_file_per_command_and_one_for_messages() -> None:
    assert {vector.file for vector in VECTORS} == {*COMMANDS, "message"}


def test_the_names_of_a_file_are_unique() -> None:
    names = [(vector.file, vector.name) for vector in VECTORS]
    assert len(set(names)) == len(names)


def test_every_vector_of_a_file_sends_its_command() -> None:
    for vector in VECTORS:
        if vector.file != "message":
            sent = [exchange.send for exchange in _exchanges([vector])]
            assert any(f'"{vector.file}"' in send for send in sent), vector


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_the_vectors_show_exactly_the_statuses_of_a_command(command: Command) -> None:
    # Where no client is told from another, what is not permitted is switched off.
    allowed = {*command.statuses, *COMMON_STATUSES} - {Status.COMMAND_DISABLED}
    allowed |= {*command.statuses}
    assert ANSWERS[command.reply_name] == allowed - NOT_BY_TEXT


def test_what_names_no_command_is_shown_with_every_status() -> None:
    of_err = ANSWERS["ERR"]
    assert of_err == OF_NO_COMMAND
    known = {command.reply_name for command in COMMANDS.values()}
    for name in ANSWERS.keys() - known - {"ERR"}:
        assert ANSWERS[name] == {Status.COMMAND_NOT_EXIST}


def test_only_the_named_statuses_are_not_shown() -> None:
    of_commands = {status for command in COMMANDS.values() for status in command.statuses}
    shown = set().union(*ANSWERS.values())
    assert (of_commands | OF_NO_COMMAND | {*COMMON_STATUSES, Status.OP_CODE_INVALID}) - shown == (
        NOT_BY_TEXT
    )


def _parameters() -> list[tuple[str, str, bool, Rule]]:
    rows = []
    for command in COMMANDS.values():
        for field in msgspec.structs.fields(command.params):
            rule = rules_of(command.params)[field.name]
            rows.append((command.name, field.name, field.required, rule))
    return rows


@pytest.mark.parametrize(
    ("command", "name", "required", "rule"),
    _parameters(),
    ids=[f"{command}.{name}" for command, name, _, _ in _parameters()],
)
def test_every_check_of_a_parameter_is_shown(
    command: str, name: str, required: bool, rule: Rule
) -> None:
    refusals = {
        int(found[1])
        for exchange in _exchanges(VECTORS)
        if (
            found := re.match(
                rf'\{{"{command}_RSP":\{{"st":(\d+),"m":\{{\{{naming:{name}\}}', exchange.expect
            )
        )
    }
    if rule is TOKEN:
        assert Status.SESSION_NOT_EXIST in refusals
        return
    assert (Status.PARAM_MISSING in refusals) == required
    assert rule is VALUE or Status.VALUE_TYPE_INVALID in refusals
    bounded = rule not in (KEY_NAMES, KEY_VALUES, EXPIRY) and rule.within != ""
    assert not bounded or rule.status in refusals


def test_every_failed_reply_has_a_sentence_and_no_other_has() -> None:
    done = {Status.OK, Status.SAVE_COMPLETE, Status.LOAD_COMPLETE}
    for exchange in _exchanges(VECTORS):
        found = _ANSWER.match(exchange.expect)
        assert found
        assert (int(found[2]) in done) == ('"m":{{' not in exchange.expect), exchange


def test_expected_replies_have_no_insignificant_white_space() -> None:
    for exchange in _exchanges(VECTORS):
        assert compact(exchange.expect) == exchange.expect


def test_a_placeholder_is_one_that_the_readme_names() -> None:
    known = re.compile(
        r"\{\{(tkn[1-9]|any:(string|uint|boolean|array|object)|naming:\w+)\}\}|\{\{\{?$"
    )
    for exchange in _exchanges(VECTORS):
        for text in (exchange.send, exchange.expect):
            for at in re.finditer(r"\{\{(?=[a-z])", text):
                assert known.match(text, at.start()), text


def test_a_dataset_that_a_vector_loads_is_saved_by_no_other() -> None:
    saved: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    loaded: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for vector in VECTORS:
        for exchange in _exchanges([vector]):
            found = re.match(r'\{"(..)_(SAVE|LOAD)_RSP":.*"name":"([^"]+)"', exchange.expect)
            if found:
                users = saved if found[2] == "SAVE" else loaded
                users[found[1], found[3]].add((vector.file, vector.name))
    assert loaded
    for dataset, readers in loaded.items():
        assert saved[dataset] == readers


def test_vectors_with_time_are_told_from_those_without() -> None:
    timed = [vector for vector in VECTORS if vector.takes_time]
    assert 0 < len(timed) < len(VECTORS)
    assert all(any(isinstance(step, Advance) for step in vector.steps) for vector in timed)


def _passes(expect: str, *replies: str) -> bool:
    conversation = Conversation()
    try:
        for reply in replies:
            conversation.check(expect, reply)
    except Mismatch:
        return False
    return True


@pytest.mark.parametrize(
    ("expect", "reply"),
    [
        ('{"A":{"st":1}}', ' { "A" :\t{ "st" : 1 }\n} '),
        ('{"A":{"st":1,"v":" x  y "}}', '{"A":{"st":1, "v":" x  y "}}'),
        ('{"A":{"st":1,"tkn":{{tkn1}}}}', '{"A":{"st":1,"tkn":18446744073709551615}}'),
        ('{"A":{"st":1,"tkn":"{{tkn1}}"}}', '{"A":{"st":1,"tkn":"7"}}'),
        ('{"A":{"st":1,"d":{{any:uint}}}}', '{"A":{"st":1,"d":0}}'),
        ('{"A":{"st":1,"a":1,"b":2}}', '{"A":{"st":1,"b":2,"unknown":3,"a":1}}'),
        ('{"A":{"st":1,"d":{{listing:x}}}}', '{"A":{"st":1,"d":["y","x"]}}'),
        ('{"A":{"st":1,"d":{{having:x}}}}', '{"A":{"st":1,"d":{"x":0.5}}}'),
        ('{"A":{"st":1,"d":{{any:object}},"e":1}}', '{"A":{"st":1,"d":{"x":[{}]},"e":1}}'),
        ('{"A":{"st":26,"m":{{naming:keys}}}}', '{"A":{"st":26,"m":"\'keys\' is \\"missing\\""}}'),
    ],
)
def test_a_reply_as_expected_passes(expect: str, reply: str) -> None:
    assert _passes(expect, reply)


@pytest.mark.parametrize(
    ("expect", "reply"),
    [
        ('{"A":{"st":1}}', '{"A":{"st":1}} x'),
        ('{"A":{"st":1}}', '{"A":{"st":10}}'),
        ('{"A":{"st":1,"v":"x y"}}', '{"A":{"st":1,"v":"xy"}}'),
        ('{"A":{"st":1,"v":1.50}}', '{"A":{"st":1,"v":1.5}}'),
        ('{"A":{"st":1,"tkn":{{tkn1}}}}', '{"A":{"st":1,"tkn":0}}'),
        ('{"A":{"st":1,"tkn":{{tkn1}}}}', '{"A":{"st":1,"tkn":01}}'),
        ('{"A":{"st":1,"tkn":{{tkn1}}}}', '{"A":{"st":1,"tkn":"7"}}'),
        ('{"A":{"st":1,"tkn":{{tkn1}}}}', '{"A":{"st":1,"tkn":18446744073709551616}}'),
        ('{"A":{"st":1,"a":{{tkn1}},"b":{{tkn1}}}}', '{"A":{"st":1,"a":7,"b":8}}'),
        ('{"A":{"st":1,"d":{{any:uint}}}}', '{"A":{"st":1,"d":-1}}'),
        ('{"A":{"st":1,"d":{{any:uint}}}}', '{"A":{"st":1,"d":true}}'),
        ('{"A":{"st":1,"d":{{any:array}}}}', '{"A":{"st":1,"d":{}}}'),
        ('{"A":{"st":26,"m":{{naming:keys}}}}', '{"A":{"st":26,"m":"something is missing"}}'),
        ('{"A":{"st":26,"m":{{any:string}}}}', '{"A":{"st":26}}'),
        ('{"A":{"st":26,"m":{{any:string}}}}', '{"A":{"st":26,"m":""}}'),
        ('{"A":{"st":1,"cnt":1}}', '{"A":{"cnt":1,"st":1}}'),
        ('{"A":{"st":1}}', '{"A":{"st":1,"cnt":1}}'),
        ('{"A":{"st":1}}', "[]"),
        ('{"A":{"st":1,"a":{{tkn1}},"b":{{tkn2}}}}', '{"A":{"st":1,"a":7,"b":7}}'),
        ('{"A":{"st":1,"d":{{listing:x}}}}', '{"A":{"st":1,"d":["y"]}}'),
        ('{"A":{"st":1,"d":{{having:x}}}}', '{"A":{"st":1,"d":{"x":0}}}'),
        ('{"A":{"st":1,"d":{{having:x}}}}', '{"A":{"st":1,"d":{"x":true}}}'),
        ('{"A":{"st":26,"m":{{any:string}}}}', '{"A":{"st":26,"m":1}}'),
    ],
)
def test_any_other_reply_does_not(expect: str, reply: str) -> None:
    assert not _passes(expect, reply)


def test_a_reply_with_a_token_in_its_sentence_does_not_pass() -> None:
    conversation = Conversation()
    conversation.check('{"A":{"st":1,"tkn":{{tkn1}}}}', '{"A":{"st":1,"tkn":123456789}}')
    conversation.check('{"A":{"st":100,"m":{{any:string}}}}', '{"A":{"st":100,"m":"no session"}}')
    with pytest.raises(Mismatch):
        conversation.check(
            '{"A":{"st":100,"m":{{any:string}}}}',
            json.dumps({"A": {"st": 100, "m": "no 123456789"}}, separators=(",", ":")),
        )


def test_a_token_is_filled_in_as_it_came() -> None:
    conversation = Conversation()
    conversation.check('{"A":{"st":1,"tkn":"{{tkn1}}"}}', '{"A":{"st":1,"tkn":"9007199254740993"}}')
    assert conversation.fill('{"B":{"tkn":{{tkn1}}}}') == '{"B":{"tkn":9007199254740993}}'
