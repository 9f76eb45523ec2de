"""The pure part of the client."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from ndb import (
    ConnectionLost,
    NdbException,
    RequestTimeout,
    ResponseError,
    Session,
    SessionNotFound,
    Status,
    UnreadableReply,
    commands,
)
from ndb.core import Capabilities, OutOfStep, Pipeline, Request, StrayRefusal, StrayReply
from ndb_protocol import COMMANDS


class Waiting:
    """Someone who waits, until told to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.outcome: Any = None

    def done(self) -> bool:
        return self.stopped

    def set_result(self, result: Any) -> None:
        self.outcome, self.stopped = result, True

    set_exception = set_result


COUNT = commands.count(commands.KV)


def pipeline_to(*, pipelining: bool = True, message_size: float = math.inf) -> Pipeline:
    pipeline = Pipeline()
    pipeline.connected(Capabilities(pipelining, message_size))
    return pipeline


def ask(
    pipeline: Pipeline,
    message: str = "message",
    command: str = "KV_COUNT",
    deadline: float = math.inf,
) -> Waiting:
    """Make a request, and return who waits for its result."""
    request = Request(command, {}, lambda body, _: body["cnt"])
    request.message = message.encode()
    request.waiter = waiter = Waiting()
    request.deadline = deadline
    pipeline.add(request)
    return waiter


def count(number: int) -> str:
    return '{"KV_COUNT_RSP":{"st":1,"cnt":%d}}' % number


def test_replies_are_matched_in_the_order_of_sending() -> None:
    pipeline = pipeline_to()
    waiters = [ask(pipeline, str(number)) for number in range(4)]
    assert pipeline.take(100) == [b"0", b"1", b"2", b"3"]
    for number in range(4):
        pipeline.answer(count(number))
    assert [waiter.outcome for waiter in waiters] == [0, 1, 2, 3]
    with pytest.raises(StrayReply, match="answers no request"):
        pipeline.answer(count(5))


def test_a_server_that_promises_no_replies_is_asked_one_thing_at_a_time() -> None:
    pipeline = pipeline_to(pipelining=False)
    waiters = [ask(pipeline, str(number)) for number in range(3)]
    for number in range(3):
        assert pipeline.take(100) == [b"%d" % number]
        assert pipeline.take(100) == []
        pipeline.answer(count(number))
    assert [waiter.outcome for waiter in waiters] == [0, 1, 2]


@pytest.mark.parametrize("name", ["ERR", "SH_FIND_RSP"])
def test_a_refusal_under_another_name_is_its_own_where_only_one_is_in_flight(name: str) -> None:
    pipeline = pipeline_to(pipelining=False)
    waiter = ask(pipeline)
    pipeline.take(1)
    pipeline.answer('{"%s":{"st":10,"m":"no such command"}}' % name)
    assert isinstance(waiter.outcome, ResponseError)
    assert waiter.outcome.status is Status.COMMAND_NOT_EXIST


def test_what_waits_for_a_reply_that_nobody_waits_for_is_stuck() -> None:
    pipeline = pipeline_to(pipelining=False)
    assert not pipeline.is_stuck
    waiter = ask(pipeline)
    pipeline.take(1)
    assert not pipeline.is_stuck
    waiter.stopped = True
    assert pipeline.is_stuck
    # Of those who promise a reply, one is still to come.
    pipeline.connected(Capabilities(pipelining=True))
    assert not pipeline.is_stuck


@pytest.mark.parametrize("pipelining", [True, False])
def test_what_is_larger_than_the_server_takes_is_a_value_error_before_it_is_sent(
    *, pipelining: bool
) -> None:
    pipeline = pipeline_to(pipelining=pipelining, message_size=7)
    fits, larger, behind = ask(pipeline, "7 bytes"), ask(pipeline, "8 bytes!"), ask(pipeline, "x")
    assert pipeline.take(7) == [b"7 bytes"]
    pipeline.answer(count(1))
    assert pipeline.take(100) == [b"x"]
    pipeline.answer(count(2))
    assert (fits.outcome, behind.outcome) == (1, 2)
    assert isinstance(larger.outcome, ValueError)
    assert str(larger.outcome) == (
        "the request has 8 bytes, and the server takes at most 7 (limits.messageSize in SV_INFO); "
        "send less at once"
    )


def test_what_another_server_took_and_this_one_does_not_may_have_been_executed() -> None:
    pipeline = pipeline_to()
    waiter = ask(pipeline)
    pipeline.take(100)
    pipeline.lost("reason")
    pipeline.connected(Capabilities(True, message_size=3))
    assert pipeline.take(100) == []
    assert isinstance(waiter.outcome, ConnectionLost)
    assert waiter.outcome.maybe_executed is True


def test_messages_are_taken_up_to_a_size_and_at_least_one() -> None:
    pipeline = pipeline_to()
    for message in ("long", "ab", "cd", "ef"):
        ask(pipeline, message)
    assert pipeline.take(3) == [b"long"]
    assert pipeline.take(3) == [b"ab", b"cd"]
    assert pipeline.take(3) == [b"ef"]
    assert pipeline.take(3) == []


def test_a_request_nobody_waits_for_any_more_is_not_sent() -> None:
    pipeline = pipeline_to()
    gone, waiting = ask(pipeline, "gone"), ask(pipeline, "waiting")
    gone.stopped = True
    assert pipeline.take(100) == [b"waiting"]
    pipeline.answer(count(1))
    assert waiting.outcome == 1


def test_a_reply_nobody_waits_for_any_more_is_matched_all_the_same() -> None:
    pipeline = pipeline_to()
    gone, waiting = ask(pipeline), ask(pipeline)
    pipeline.take(100)
    gone.stopped = True
    pipeline.answer(count(1))
    pipeline.answer(count(2))
    assert (gone.outcome, waiting.outcome) == (None, 2)


def test_a_reply_out_of_step_is_noticed_even_if_nobody_waits_for_it() -> None:
    pipeline = pipeline_to()
    gone = ask(pipeline)
    pipeline.take(100)
    gone.stopped = True
    with pytest.raises(OutOfStep, match="KV_COUNT was answered by 'KV_GET_RSP'"):
        pipeline.answer('{"KV_GET_RSP":{"st":1}}')


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_in_flight_is_sent_again_once_if_the_command_may_be_repeated(command: str) -> None:
    pipeline = pipeline_to()
    waiter = ask(pipeline, command=command)
    assert len(pipeline.take(100)) == 1
    pipeline.lost("first")
    if COMMANDS[command].repeatable:
        assert waiter.outcome is None
        assert len(pipeline.take(100)) == 1
        pipeline.lost("second")
    assert isinstance(waiter.outcome, ConnectionLost)
    assert waiter.outcome.maybe_executed is True
    assert "second" in str(waiter.outcome) or not COMMANDS[command].repeatable
    assert pipeline.take(100) == []


def test_what_is_sent_again_goes_in_its_order_in_front_of_what_was_not_sent() -> None:
    pipeline = pipeline_to()
    sent = [ask(pipeline, name) for name in ("a", "b", "c", "d")]
    pipeline.take(3)
    pipeline.answer(count(1))
    pipeline.take(1)
    ask(pipeline, "e")
    sent[2].stopped = True
    pipeline.lost("reason")
    assert pipeline.take(100) == [b"b", b"d", b"e"]
    for number in (2, 4, 5):
        pipeline.answer(count(number))
    assert [waiter.outcome for waiter in sent] == [1, 2, None, 4]


def test_what_was_not_sent_outlives_any_number_of_connections() -> None:
    pipeline = pipeline_to()
    waiter = ask(pipeline, command="SH_NEW")
    for _ in range(5):
        pipeline.lost("reason")
    assert waiter.outcome is None
    assert pipeline.take(100) == [b"message"]


def test_a_message_too_big_for_the_server_is_not_sent_again_but_what_is_behind_it_is() -> None:
    pipeline = pipeline_to()
    big, small = ask(pipeline, "big"), ask(pipeline, "small")
    pipeline.take(100)
    pipeline.lost("1009 (message too big)", too_big=True)
    assert isinstance(big.outcome, ConnectionLost)
    assert small.outcome is None
    assert pipeline.take(100) == [b"small"]


def test_who_still_waits_at_the_end_is_told_whether_the_request_was_sent() -> None:
    pipeline = pipeline_to()
    again, sent, gone, unsent = (ask(pipeline, name) for name in ("1", "2", "3", "4"))
    pipeline.take(1)
    pipeline.lost("reason")
    pipeline.take(3)
    gone.stopped = True
    pipeline.abandon("closed")
    told = [waiter.outcome.maybe_executed for waiter in (again, sent, unsent)]
    assert told == [True, True, False]
    assert gone.outcome is None
    with pytest.raises(StrayReply):
        pipeline.answer(count(1))
    assert pipeline.take(100) == []


def test_a_sweep_ends_the_waits_that_have_been_too_long_and_tells_the_next_deadline() -> None:
    pipeline = pipeline_to()
    due, patient, later = ask(pipeline, deadline=5), ask(pipeline), ask(pipeline, deadline=7)
    unsent = ask(pipeline, "unsent", deadline=8)
    pipeline.take(len("message") * 3)
    assert pipeline.sweep(4.9, 3, None) == 5
    assert pipeline.sweep(5, 3, None) == 7
    assert isinstance(due.outcome, RequestTimeout)
    assert str(due.outcome) == "no reply within 3 s; the request may have been executed"
    later.stopped = True
    assert pipeline.sweep(8, 3, "not connected") == math.inf
    assert str(unsent.outcome) == "no reply within 3 s: not connected; the request was not sent"
    assert (patient.outcome, later.outcome) == (None, None)
    # The replies still come, and find who waits.
    for number in (1, 2, 3):
        pipeline.answer(count(number))
    assert patient.outcome == 2


def test_a_request_that_was_to_be_sent_again_and_is_not_may_have_been_executed() -> None:
    pipeline = pipeline_to()
    waiter = ask(pipeline, deadline=5)
    pipeline.take(1)
    pipeline.lost("reason")
    assert pipeline.sweep(5, 3, "not connected") == math.inf
    assert waiter.outcome.maybe_executed is True
    assert pipeline.take(100) == []


@pytest.mark.parametrize("status", [1, 121, 141])
def test_a_success_becomes_the_result(status: int) -> None:
    assert COUNT.outcome('{"KV_COUNT_RSP":{"st":%d,"cnt":3}}' % status) == 3


@pytest.mark.parametrize("name", ["KV_COUNT_RSP", "ERR", "SH_FIND_RSP"])
def test_a_refusal_raises_whatever_name_it_comes_under(name: str) -> None:
    with pytest.raises(ResponseError) as refusal:
        COUNT.outcome('{"%s":{"st":100,"m":"no such session","x":1}}' % name)
    error = refusal.value
    assert isinstance(error, NdbException)
    assert error.status is Status.SESSION_NOT_EXIST
    assert (error.command, error.message) == ("KV_COUNT", "no such session")
    assert error.rsp == {"st": 100, "m": "no such session", "x": 1}
    assert str(error) == "KV_COUNT: no such session (SESSION_NOT_EXIST, 100)"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_session_that_is_not_there_is_an_error_of_its_own(command: str) -> None:
    request = Request(command, {}, lambda body, _: body)
    with pytest.raises(SessionNotFound) as refusal:
        request.outcome('{"%s_RSP":{"st":100,"m":"no such session"}}' % command)
    assert refusal.value.status is Status.SESSION_NOT_EXIST
    for status in {int(status) for status in Status} - {1, 100, 121, 141}:
        with pytest.raises(ResponseError) as other:
            request.outcome('{"%s_RSP":{"st":%d}}' % (command, status))
        assert not isinstance(other.value, SessionNotFound)


def test_a_refusal_without_a_sentence_says_what_its_status_means() -> None:
    with pytest.raises(ResponseError) as refusal:
        COUNT.outcome('{"ERR":{"st":13}}')
    assert refusal.value.message == Status.COMMAND_SYNTAX.meaning


def test_a_server_that_read_no_json_did_not_read_what_was_sent() -> None:
    with pytest.raises(StrayRefusal) as refusal:
        COUNT.outcome('{"ERR":{"st":3}}')
    assert isinstance(refusal.value, ResponseError)
    assert refusal.value.status is Status.JSON_INVALID


def test_a_refusal_with_a_status_not_known_keeps_the_number() -> None:
    with pytest.raises(ResponseError, match=r"^KV_COUNT: refused \(status 77\)$") as refusal:
        COUNT.outcome('{"KV_COUNT_RSP":{"st":77}}')
    assert refusal.value.status == 77
    assert not isinstance(refusal.value.status, Status)


def test_a_success_of_another_command_is_out_of_step() -> None:
    with pytest.raises(StrayReply, match="KV_COUNT was answered by 'KV_GET_RSP'"):
        COUNT.outcome('{"KV_GET_RSP":{"st":1,"cnt":3}}')


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("nonsense", "KV_COUNT can't be read: JSON is malformed"),
        ('{"KV_COUNT_RSP":{"st":1}}', "KV_COUNT has no member 'cnt'"),
        ('{"KV_COUNT_RSP":{"st":1,"cnt":"hunter2"}}', "KV_COUNT has a member of the wrong type"),
        ('{"KV_COUNT_RSP":{"st":1,"cnt":null}}', "KV_COUNT has a member of the wrong type"),
        ('{"KV_COUNT_RSP":{"st":1,"keys":{"k":1E400}}}', r"keys\['k'\]: Number out of range"),
    ],
)
def test_a_reply_that_can_not_be_read_is_an_error_of_the_client(message: str, said: str) -> None:
    with pytest.raises(UnreadableReply, match=said):
        COUNT.outcome(message)


def test_a_session_that_is_gone_when_its_end_is_sent_again_was_ended() -> None:
    request = commands.end_session(5)
    gone = '{"SH_END_RSP":{"st":100}}'
    request.sendings = 1
    with pytest.raises(ResponseError):
        request.outcome(gone)
    request.sendings = 2
    request.outcome(gone)
    with pytest.raises(ResponseError):
        request.outcome('{"SH_END_RSP":{"st":14}}')


OTHERS: list[tuple[Request[Any], str, str]] = [
    (commands.get(commands.KV, ["a", "b"]), "KV_GET", '"keys":{"a":1,"c":2}'),
    (commands.get(commands.session(5), []), "SH_GET", '"keys":{"a":1}'),
    (commands.get_one(commands.KV, "a"), "KV_GET", '"keys":{"b":1}'),
    (commands.contains(commands.KV, ["a"]), "KV_CONTAINS", '"contains":["a","b"]'),
    (commands.find(commands.KV, "$", "keys", ["a"]), "KV_FIND", '"keys":["b"]'),
    (commands.find(commands.KV, "$", "kv", ["a"]), "KV_FIND", '"keys":{"b":1}'),
    (commands.session_exists([5, 6]), "SH_EXISTS", '"exist":[7]'),
    (commands.session_exists(["5"]), "SH_EXISTS", '"exist":["50"]'),
    (commands.save_keys("day"), "KV_SAVE", '"name":"night","keys":1'),
    (commands.load_keys("day"), "KV_LOAD", '"name":"night","keys":1'),
    (commands.load_keys_count("day"), "KV_LOAD", '"name":"night","keys":1'),
    (commands.save_sessions("day", []), "SH_SAVE", '"name":"night","keys":1'),
    (commands.load_sessions("day"), "SH_LOAD", '"name":"night","keys":1'),
    (commands.session_info(5), "SH_INFO", '"tkn":6'),
    (commands.end_session(5), "SH_END", '"tkn":"6"'),
    # NemesisDB repeats the token in replies to any command on a session.
    (commands.count(commands.session(5)), "SH_COUNT", '"tkn":6,"cnt":1'),
]


@pytest.mark.parametrize(("request_", "name", "body"), OTHERS)
def test_a_reply_with_what_was_not_asked_for_is_out_of_step(
    request_: Request[Any], name: str, body: str
) -> None:
    with pytest.raises(StrayReply):
        request_.outcome('{"%s_RSP":{"st":1,%s}}' % (name, body))


def test_a_reply_may_have_less_than_was_asked_for() -> None:
    get = commands.get(commands.KV, ["a", "b"])
    assert get.outcome('{"KV_GET_RSP":{"st":1,"keys":{"b":2}}}') == {"b": 2}
    exists = commands.session_exists([5, "6"])
    assert exists.outcome('{"SH_EXISTS_RSP":{"st":1,"exist":["6"]}}') == [6]
    find = commands.find(commands.KV, "$", "paths", ["a"])
    assert find.outcome('{"KV_FIND_RSP":{"st":1,"paths":["$"]}}') == ["$"]


def test_nothing_that_is_printed_shows_a_token_or_a_value() -> None:
    secret, value = 1234567890123, "hunter2-marked"
    space = commands.session(secret)
    request = commands.set(space, {"key": value})
    pipeline = pipeline_to()
    request.message, request.waiter = request.encode(), Waiting()
    pipeline.add(request)
    for shown in (space, request, [request], {"request": request}, pipeline):
        assert str(secret) not in f"{shown} {shown!r}"
        assert value not in f"{shown} {shown!r}"
    assert repr(request) == "<Request SH_SET>"


def test_a_refused_session_is_returned_as_invalid() -> None:
    request = commands.create_session(5, False, False, False)
    session = request.outcome('{"SH_NEW_RSP":{"st":103,"m":"too many"}}')
    assert not session.isValid
    assert session == Session(0)
    assert (session.status, session.message) == (Status.SESSION_NEW_FAIL, "too many")


@pytest.mark.parametrize("tkn", ["0", "-1", "1.0", "true", "null", '"x"', "18446744073709551616"])
def test_a_new_session_without_a_token_is_no_session(tkn: str) -> None:
    request = commands.create_session(0, False, False, False)
    with pytest.raises(UnreadableReply, match="SH_NEW has a member of the wrong type"):
        request.outcome('{"SH_NEW_RSP":{"st":1,"tkn":%s}}' % tkn)


@pytest.mark.parametrize("tkn", ['"18446744073709551615"', "18446744073709551615"])
def test_a_token_is_read_in_either_form(tkn: str) -> None:
    request = commands.create_session(0, False, False, False)
    assert request.outcome('{"SH_NEW_RSP":{"st":1,"tkn":%s}}' % tkn) == Session(2**64 - 1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: commands.create_session(-1, False, False, False),
        lambda: commands.create_session(0, True, False, False),
        lambda: commands.create_session(0, False, True, False),
        lambda: commands.create_session(0, False, False, True),
        lambda: commands.save_sessions("", []),
        lambda: commands.load_sessions(""),
        lambda: commands.save_keys(""),
        lambda: commands.load_keys(""),
        lambda: commands.load_keys_count(""),
        lambda: commands.some([]),
        lambda: commands.get_either(commands.KV, ["a"], "b"),
        lambda: commands.get(commands.KV, ["a", 5]),  # type: ignore[list-item]
    ],
)
def test_a_wrong_value_is_a_value_error(build: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        build()


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: commands.get(commands.KV, "name"), "keys must be a list, not a str"),
        (lambda: commands.get(commands.KV, b"name"), "keys must be a list, not a bytes"),  # type: ignore[arg-type]
        (lambda: commands.rmv(commands.KV, "name"), "keys must be a list"),
        (lambda: commands.contains(commands.KV, "name"), "keys must be a list"),
        (lambda: commands.find(commands.KV, "$", "keys", "name"), "keys must be a list"),
        (lambda: commands.get_either(commands.KV, "name", None), "keys must be a list"),
        (lambda: commands.arr_append(commands.KV, "k", "abc", None), "items must be a list"),
        (lambda: commands.set(commands.KV, ["a"]), "keys must be a dict"),  # type: ignore[arg-type]
        (lambda: commands.get(commands.KV, None), "keys must be a list, not a NoneType"),  # type: ignore[arg-type]
        (lambda: commands.session_exists(Session(5)), "tkns must be a list, not a Session"),  # type: ignore[arg-type]
        (lambda: commands.save_sessions("name", 5), "tkns must be a list, not a int"),  # type: ignore[arg-type]
        (
            lambda: commands.create_session("5", False, False, False),  # type: ignore[arg-type]
            "durationSeconds must be an int, not a str",
        ),
        (
            lambda: commands.create_session(None, False, False, False),  # type: ignore[arg-type]
            "durationSeconds must be an int, not a NoneType",
        ),
        (lambda: commands.session(None), "tkn must be a Session, an int or a str, not NoneType"),  # type: ignore[arg-type]
        (lambda: commands.session(b"5"), "tkn must be a Session, an int or a str, not bytes"),  # type: ignore[arg-type]
        (lambda: commands.session(True), "tkn must be a Session, an int or a str, not bool"),
        (lambda: commands.session_exists([1.5]), "must be a Session, an int or a str, not float"),  # type: ignore[list-item]
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_argument(
    build: Callable[[], Any], named: str
) -> None:
    with pytest.raises(TypeError, match=named):
        build()


@pytest.mark.parametrize("tkn", [1, 5, 2**64 - 1])
def test_a_token_may_be_text_as_it_comes_back_from_a_cookie(tkn: int) -> None:
    text = str(tkn)
    assert commands.session(text) == commands.session(tkn)
    assert commands.end_session(text).params == {"tkn": tkn}
    assert commands.session_info(text).params == {"tkn": tkn}
    assert commands.session_exists([text, tkn]).params == {"tkns": [tkn, tkn]}
    assert commands.save_sessions("name", [text]).params == {"name": "name", "tkns": [tkn]}


@pytest.mark.parametrize(
    "tkn",
    [
        *("", "0", "05", "-5", "+5", " 5", "5\n", "5.0", "1e3", "0x5", "٥", "x" * 5000, "9" * 30),
        *(0, -5, 2**64, 10**30),
    ],
)
def test_what_can_not_be_a_token_is_sent_as_the_one_that_no_session_has(tkn: int | str) -> None:
    assert commands.session(tkn).params == {"tkn": 0}
    assert commands.end_session(tkn).params == {"tkn": 0}
    assert commands.session_exists([5, tkn]).params == {"tkns": [5, 0]}


def test_a_session_may_stand_for_its_token() -> None:
    by_token = commands.save_sessions("name", [5, 6])
    assert commands.save_sessions("name", [Session(5), Session(6)]).params == by_token.params
    assert commands.session(Session(5)) == commands.session(5)


def test_a_session_may_be_made_of_a_cookie() -> None:
    session: Any = Session
    assert commands.session(session("5")) == commands.session(5)
    assert commands.session_exists([session("5"), session("")]).params == {"tkns": [5, 0]}
    with pytest.raises(TypeError, match="tkn must be a Session, an int or a str, not NoneType"):
        commands.end_session(session(None))


def test_keys_may_be_any_iterable_and_any_mapping() -> None:
    names: Request[Any] = commands.get(commands.KV, (name for name in ("a", "b")))
    assert names.encode() == b'{"KV_GET":{"keys":["a","b"]}}'
    values = commands.set(commands.KV, Environment(a=1))
    assert values.encode() == b'{"KV_SET":{"keys":{"a":1}}}'


class Environment(dict[str, Any]):
    """Something like a dict, as frameworks have many."""
