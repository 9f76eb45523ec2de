"""The pure part of the client."""

from collections.abc import Callable
from typing import Any

import pytest
from ndb import NdbException, ResponseError, Session, Status, UnreadableReply, commands
from ndb.core import OutOfStep, Pipeline, Request


class Waiting:
    """Someone who waits, until told to stop."""

    def __init__(self) -> None:
        self.stopped = False

    def done(self) -> bool:
        return self.stopped


COUNT = commands.count(commands.KV)


def test_replies_are_matched_in_the_order_of_sending() -> None:
    pipeline: Pipeline[Waiting] = Pipeline()
    waiters = [Waiting() for _ in range(4)]
    for number, waiter in enumerate(waiters):
        pipeline.add(b"%d" % number, waiter)
    assert pipeline.take(100) == [b"0", b"1", b"2", b"3"]
    assert [pipeline.answered() for _ in range(5)] == [*waiters, None]


def test_messages_are_taken_up_to_a_size_and_at_least_one() -> None:
    pipeline: Pipeline[Waiting] = Pipeline()
    for message in (b"long", b"ab", b"cd", b"ef"):
        pipeline.add(message, Waiting())
    assert pipeline.take(3) == [b"long"]
    assert pipeline.take(3) == [b"ab", b"cd"]
    assert pipeline.take(3) == [b"ef"]
    assert pipeline.take(3) == []


def test_a_request_nobody_waits_for_any_more_is_not_sent() -> None:
    pipeline: Pipeline[Waiting] = Pipeline()
    gone, waiting = Waiting(), Waiting()
    pipeline.add(b"gone", gone)
    pipeline.add(b"waiting", waiting)
    gone.stopped = True
    assert pipeline.take(100) == [b"waiting"]
    assert pipeline.answered() is waiting


def test_a_reply_nobody_waits_for_any_more_is_matched_all_the_same() -> None:
    pipeline: Pipeline[Waiting] = Pipeline()
    gone, waiting = Waiting(), Waiting()
    pipeline.add(b"gone", gone)
    pipeline.add(b"waiting", waiting)
    pipeline.take(100)
    gone.stopped = True
    assert pipeline.answered() is gone
    assert pipeline.answered() is waiting


def test_who_still_waits_at_the_end_is_told_apart_by_whether_it_was_sent() -> None:
    pipeline: Pipeline[Waiting] = Pipeline()
    sent, unsent, gone, gone_unsent = Waiting(), Waiting(), Waiting(), Waiting()
    pipeline.add(b"sent", sent)
    pipeline.add(b"gone", gone)
    pipeline.take(100)
    pipeline.add(b"unsent", unsent)
    pipeline.add(b"gone unsent", gone_unsent)
    assert [pipeline.is_sent(waiter) for waiter in (sent, gone, unsent)] == [True, True, False]
    gone.stopped = gone_unsent.stopped = True
    assert pipeline.abandon() == ([sent], [unsent])
    assert pipeline.abandon() == ([], [])
    assert pipeline.answered() is None


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
        COUNT.outcome('{"ERR":{"st":3}}')
    assert refusal.value.message == Status.JSON_INVALID.meaning


def test_a_refusal_with_a_status_not_known_keeps_the_number() -> None:
    with pytest.raises(ResponseError, match=r"^KV_COUNT: refused \(status 77\)$") as refusal:
        COUNT.outcome('{"KV_COUNT_RSP":{"st":77}}')
    assert refusal.value.status == 77
    assert not isinstance(refusal.value.status, Status)


def test_a_success_of_another_command_is_out_of_step() -> None:
    with pytest.raises(OutOfStep, match="KV_COUNT was answered by 'KV_GET_RSP'"):
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
