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
    Status,
    UnreadableReply,
    commands,
)
from ndb.core import Misread, Pipeline, Request, StrayReply
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


def ask(
    pipeline: Pipeline,
    message: str = "message",
    command: str = "KV_COUNT",
    deadline: float = math.inf,
) -> Waiting:
    """Make a request, and return who waits for its result."""
    request = Request(command, {}, lambda body: body["cnt"])
    request.message = message.encode()
    request.waiter = waiter = Waiting()
    request.deadline = deadline
    pipeline.add(request)
    return waiter


def count(number: int) -> str:
    return '{"KV_COUNT_RSP":{"st":1,"cnt":%d}}' % number


def test_replies_are_matched_in_the_order_of_sending() -> None:
    pipeline = Pipeline()
    waiters = [ask(pipeline, str(number)) for number in range(4)]
    assert pipeline.take(100) == [b"0", b"1", b"2", b"3"]
    for number in range(4):
        pipeline.answer(count(number))
    assert [waiter.outcome for waiter in waiters] == [0, 1, 2, 3]
    with pytest.raises(StrayReply, match="answers no request"):
        pipeline.answer(count(5))


def test_messages_are_taken_up_to_a_size_and_at_least_one() -> None:
    pipeline = Pipeline()
    for message in ("long", "ab", "cd", "ef"):
        ask(pipeline, message)
    assert pipeline.take(3) == [b"long"]
    assert pipeline.take(3) == [b"ab", b"cd"]
    assert pipeline.take(3) == [b"ef"]
    assert pipeline.take(3) == []


def test_a_request_nobody_waits_for_any_more_is_not_sent() -> None:
    pipeline = Pipeline()
    gone, waiting = ask(pipeline, "gone"), ask(pipeline, "waiting")
    gone.stopped = True
    assert pipeline.take(100) == [b"waiting"]
    pipeline.answer(count(1))
    assert waiting.outcome == 1


def test_a_reply_nobody_waits_for_any_more_is_matched_all_the_same() -> None:
    pipeline = Pipeline()
    gone, waiting = ask(pipeline), ask(pipeline)
    pipeline.take(100)
    gone.stopped = True
    pipeline.answer(count(1))
    pipeline.answer(count(2))
    assert (gone.outcome, waiting.outcome) == (None, 2)


def test_a_reply_out_of_step_is_noticed_even_if_nobody_waits_for_it() -> None:
    pipeline = Pipeline()
    gone = ask(pipeline)
    pipeline.take(100)
    gone.stopped = True
    with pytest.raises(StrayReply, match="KV_COUNT was answered by 'KV_GET_RSP'"):
        pipeline.answer('{"KV_GET_RSP":{"st":1}}')


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_in_flight_is_sent_again_once_if_the_command_may_be_repeated(command: str) -> None:
    pipeline = Pipeline()
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
    pipeline = Pipeline()
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
    pipeline = Pipeline()
    waiter = ask(pipeline, command="SH_NEW")
    for _ in range(5):
        pipeline.lost("reason")
    assert waiter.outcome is None
    assert pipeline.take(100) == [b"message"]


def test_a_message_too_big_for_the_server_is_not_sent_again_but_what_is_behind_it_is() -> None:
    pipeline = Pipeline()
    big, small = ask(pipeline, "big"), ask(pipeline, "small")
    pipeline.take(100)
    pipeline.lost("1009 (message too big)", too_big=True)
    assert isinstance(big.outcome, ConnectionLost)
    assert small.outcome is None
    assert pipeline.take(100) == [b"small"]


def test_who_still_waits_at_the_end_is_told_whether_the_request_was_sent() -> None:
    pipeline = Pipeline()
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
    pipeline = Pipeline()
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
    pipeline = Pipeline()
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


def test_a_refusal_without_a_sentence_says_what_its_status_means() -> None:
    with pytest.raises(ResponseError) as refusal:
        COUNT.outcome('{"ERR":{"st":13}}')
    assert refusal.value.message == Status.COMMAND_SYNTAX.meaning


def test_a_server_that_read_no_json_did_not_read_what_was_sent() -> None:
    with pytest.raises(Misread) as refusal:
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


def test_a_refused_session_is_returned_as_invalid() -> None:
    request = commands.create_session(5, False, False, False)
    session = request.outcome('{"SH_NEW_RSP":{"st":103,"m":"too many"}}')
    assert not session.isValid
    assert session == Session(0)
    assert (session.status, session.message) == (Status.SESSION_NEW_FAIL, "too many")


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
        (lambda: commands.session("5"), "tkn must be a Session or an int, not str"),  # type: ignore[arg-type]
        (lambda: commands.session(True), "tkn must be a Session or an int, not bool"),
        (lambda: commands.session_exists([1.5]), "tkn must be a Session or an int, not float"),  # type: ignore[list-item]
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_argument(
    build: Callable[[], Any], named: str
) -> None:
    with pytest.raises(TypeError, match=named):
        build()


def test_a_session_may_stand_for_its_token() -> None:
    by_token = commands.save_sessions("name", [5, 6])
    assert commands.save_sessions("name", [Session(5), Session(6)]).params == by_token.params
    assert commands.session(Session(5)) == commands.session(5)


def test_keys_may_be_any_iterable_and_any_mapping() -> None:
    names: Request[Any] = commands.get(commands.KV, (name for name in ("a", "b")))
    assert names.encode() == b'{"KV_GET":{"keys":["a","b"]}}'
    values = commands.set(commands.KV, Environment(a=1))
    assert values.encode() == b'{"KV_SET":{"keys":{"a":1}}}'


class Environment(dict[str, Any]):
    """Something like a dict, as frameworks have many."""
