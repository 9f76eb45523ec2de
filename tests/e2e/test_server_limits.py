"""Each limit from outside: its exact answer, what it says of itself, and its line in the log."""

import json
import re
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ndb_protocol import COMMANDS
from websockets.frames import Opcode

from tests.support.http_client import labelled, scrape
from tests.support.process_memory import resident_bytes
from tests.support.raw_client import Wire, all_opened, close, frame, handshake, header, opened, text
from tests.support.server_process import Server, StartServer
from tests.support.valid_params import PARAMS
from tests.support.waiting import BOUND, until

LIMITS = {
    "--max-message-size": "64k",
    "--max-depth": "20",
    "--max-steps": "1000",
    "--max-keys": "100",
    "--max-key-length": "50",
    "--max-sessions": "3",
    "--max-memory": "100k",
    "--max-in-flight": "10",
    "--max-connections": "500",
    "--max-connections-per-address": "400",
    "--handshake-timeout": "600",
    "--idle-timeout": "500",
}


@pytest.fixture
def limited(start_server: StartServer) -> Server:
    return start_server(*(f"{option}={value}" for option, value in LIMITS.items()))


def counted(server: Server) -> dict[str, float]:
    """Return how often which limits were reached, as the metrics say."""
    found = labelled("ndb_limits_reached_total", server.port)
    found["evicted"] = scrape(server.port)["ndb_evictions_total", ()]
    return {limit: count for limit, count in found.items() if count}


def reached(server: Server) -> dict[str, int]:
    """Stop the server; return how often which limits were reached, as its log and metrics say."""
    by_metrics = counted(server)
    server.stop()
    found: dict[str, int] = {}
    for line in server.stderr.splitlines():
        told = re.search(
            r"WARNING ndb_server.server: limits reached, with the number of times: (.+)", line
        )
        for limit, count in re.findall(r"(\w+) (\d+)", told[1]) if told else ():
            found[limit] = found.get(limit, 0) + int(count)
    assert found == by_metrics
    return found


def test_the_limits_are_told(limited: Server, start_server: StartServer) -> None:
    told = {
        "messageSize": 65536,
        "writeTimeout": 30,
        "depth": 20,
        "inFlight": 10,
        "steps": 1000,
        "pathLength": 4096,
        "pathDepth": 100,
        "keys": 100,
        "keyLength": 50,
        "sessions": 3,
        "memory": 102400,
        "connections": 500,
        "connectionsPerAddress": 400,
        "handshakeTimeout": 600,
        "idleTimeout": 500,
    }
    with opened(limited.port) as client:
        assert client.request("SV_INFO")["limits"] == told
    off = ("--max-keys", "--max-key-length", "--max-sessions", "--max-memory", "--max-connections")
    with opened(start_server(*(f"{option}=0" for option in off)).port) as client:
        limits = client.request("SV_INFO")["limits"]
        assert [limits[name] for name in ("keys", "keyLength", "sessions", "memory")] == [0] * 4
        many = {f"{number}{'x' * 2000}": number for number in range(1000)}
        tkn = client.request("SH_NEW")["tkn"]
        assert client.request("SH_SET", tkn=tkn, keys=many)["st"] == 1


def test_each_limit_of_a_request_has_its_answer(limited: Server) -> None:
    with opened(limited.port) as client:
        tkn = client.request("SH_NEW")["tkn"]
        assert client.request("SH_SET", tkn=tkn, keys=dict.fromkeys(map(str, range(101)), 0)) == {
            "st": 201,
            "m": "'keys' would make 101 keys in the session; 100 are allowed",
        }
        assert client.request("KV_SET", keys={"k" * 51: 0}) == {
            "st": 201,
            "m": f"key '{'k' * 12}...{'k' * 13}' has 51 characters; 50 are allowed",
        }
        for _ in range(2):
            client.request("SH_NEW")
        assert client.request("SH_NEW") == {
            "st": 103,
            "m": "there are 3 sessions already, and no more are allowed",
        }
        full = "the server's memory limit is reached; remove data, or raise --max-memory"
        assert client.request("KV_SET", keys={"a": "x" * 60_000})["st"] == 1
        assert client.request("KV_SET", keys={"b": "x" * 60_000}) == {"st": 201, "m": full}
        client.request("SH_END", tkn=tkn)
        assert client.request("KV_SET", keys={"b": "x" * 41_500})["st"] == 1
        assert client.request("SH_NEW") == {"st": 103, "m": full}
        assert client.request("KV_CLEAR_SET", keys={"list": [0] * 2000})["st"] == 1
        assert client.request("KV_FIND", path="$.*", rsp="keys") == {
            "st": 201,
            "m": "it takes more than 1000 steps; select less with 'path' or 'keys', or store "
            "smaller values",
        }
        for path, sentence in [
            ("$" * 4097, "'path' has 4097 characters; 4096 are allowed"),
            (
                "$" + "[?@" * 101,
                "'path' nests brackets and parentheses 101 levels deep; 100 are allowed",
            ),
        ]:
            # Like any bound of a parameter, before the session.
            for command in ("KV_FIND", "SH_FIND"):
                reply = client.request(command, path=path, rsp="keys", tkn=2)
                assert reply == {"st": 42, "m": sentence}
            reply = client.request("KV_UPDATE", key="nothing", path=path, value=1)
            assert reply == {"st": 42, "m": sentence}
        client.send(text('{"KV_SET":{"keys":{"a":' + "[" * 18 + "]" * 18 + "}}}"))
        client.send(text('{"KV_SET":{"keys":{"a":' + "[" * 17 + "]" * 17 + "}}}"))
        assert client.replies(2) == [
            {"ERR": {"st": 3, "m": "the message nests arrays and objects too deeply"}},
            {"KV_SET_RSP": {"st": 1}},
        ]
        # Other requests are answered all the same.
        assert client.request("KV_GET", keys=["a"])["st"] == 1
    assert reached(limited) == {
        "keys": 1,
        "key_length": 1,
        "sessions": 1,
        "memory": 2,
        "steps": 1,
        "depth": 1,
        "path_length": 3,
        "path_depth": 3,
    }


TOO_LARGE = {
    "one frame": header(0x81, 65537),
    "fragments": frame(Opcode.TEXT, b"x" * 40_000, fin=False)
    + frame(Opcode.CONT, b"x" * 40_000, fin=False),
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_message_that_is_too_large_closes_with_1009(limited: Server, sent: bytes) -> None:
    with opened(limited.port) as client:
        client.send(text({"KV_COUNT": {}}) + sent)
        reply, closing = client.rest()
        assert reply == '{"KV_COUNT_RSP":{"st":1,"cnt":0}}'
        assert isinstance(closing, tuple)
        assert closing[0] == 1009
    assert "INFO ndb_server.transport: connection closed, from 127.0.0.1 port " in limited.stderr
    assert "1009 (message too big)" in limited.stderr
    assert reached(limited) == {"message_size": 1}


def test_a_connection_without_a_handshake_is_aborted(start_server: StartServer) -> None:
    server = start_server("--handshake-timeout=2")
    # Others are answered meanwhile.
    with opened(server.port) as client:
        slow = [Wire(server.port) for _ in range(20)]
        for number, wire in enumerate(slow):
            # Slowloris: a little of a handshake, and never the end of it.
            wire.send(handshake()[: number * 5])
        assert client.request("KV_COUNT")["st"] == 1
        client.send(close())
        assert client.rest() == [(1000, "")]
    for wire in slow:
        with pytest.raises((ConnectionError, AssertionError)):
            wire.head()
        wire.socket.close()
    assert server.stderr.count("the opening handshake was not complete in time") == 20
    assert reached(server) == {"handshake": 20}


def test_a_connection_without_a_request_is_closed_with_1001(start_server: StartServer) -> None:
    server = start_server("--idle-timeout=2")
    with opened(server.port) as idle, opened(server.port) as busy:
        idle.send(frame(Opcode.PING, b"I do live"))
        assert idle.said() == b"I do live"
        while not select_readable(idle):
            assert busy.request("KV_COUNT")["st"] == 1
        assert idle.rest() == [(1001, "no request for 2 seconds")]
        busy.send(text({"KV_COUNT": {}}) + close())
        assert busy.rest() == ['{"KV_COUNT_RSP":{"st":1,"cnt":0}}', (1000, "")]
    assert "connection closed, from 127.0.0.1" in server.stderr
    assert reached(server) == {"idle": 1}


def test_a_connection_whose_reply_waits_is_not_idle(start_server: StartServer) -> None:
    server = start_server("--idle-timeout=1")
    with Wire(server.port) as client:
        asked = [[*range(first, first + 5_900)] for first in (1, 6000)]
        requests = b"".join(text({"SH_EXISTS": {"tkns": tokens}}) for tokens in asked)
        # The whole of it at once: it may be idle for no moment.
        client.send(handshake() + requests + close())
        assert client.head()[0] == 101
        assert client.rest() == ['{"SH_EXISTS_RSP":{"st":1,"exist":[]}}'] * 2 + [(1000, "")]
    assert set(reached(server)) == {"unknown_tokens"}


def select_readable(wire: Wire) -> bool:
    import select

    return bool(select.select([wire.socket], [], [], 0)[0])


def test_many_requests_of_one_connection_leave_the_others_their_turns(limited: Server) -> None:
    with opened(limited.port) as many, opened(limited.port) as one:
        # Less than --max-memory, as the server may read it all at once.
        count = text({"KV_COUNT": {}})
        many.send(count * 4000 + close())
        assert one.request("KV_COUNT")["st"] == 1
        assert many.rest() == ['{"KV_COUNT_RSP":{"st":1,"cnt":0}}'] * 4000 + [(1000, "")]
    assert reached(limited)["in_flight"] > 100


UNASKED = {
    "pings": (frame(Opcode.PING, b"p"), b"p"),
    "binary messages": (
        frame(Opcode.BINARY, b"b"),
        '{"ERR":{"st":2,"m":"the message is binary; send each request as a text message"}}',
    ),
    "fragments": (frame(Opcode.TEXT, b"1", fin=False) + frame(Opcode.CONT), None),
}


@pytest.mark.parametrize(("sent", "said"), UNASKED.values(), ids=UNASKED)
def test_many_frames_that_ask_for_nothing_leave_the_others_their_turns(
    limited: Server, sent: bytes, said: str | bytes | None
) -> None:
    with opened(limited.port) as many, opened(limited.port) as one:
        many.send(sent * 3000 + close())
        assert one.request("KV_COUNT")["st"] == 1
        *answers, closing = many.rest()
        assert closing == (1000, "")
        assert len(answers) == 3000
        if said is not None:
            assert set(answers) == {said}
    assert reached(limited)["in_flight"] > 100


def test_sessions_that_expire_first_make_room(start_server: StartServer) -> None:
    server = start_server("--max-memory", "100k", "--when-full", "evict")
    with opened(server.port) as client:
        forever = client.request("SH_NEW")["tkn"]
        tokens = [
            client.request("SH_NEW", expiry={"duration": 1000 - number})["tkn"]
            for number in range(100)
        ]
        for number in range(70):
            assert client.request("KV_SET", keys={f"{number}": "x" * 1000})["st"] == 1
        left = client.request("SH_EXISTS", tkns=[forever, *tokens])["exist"]
        assert left[0] == forever
        assert left[1:] == tokens[: len(left) - 1]
        assert 0 < len(left) < 100
        refusal = client.request("KV_SET", keys={"large": "x" * 100_000})
        assert refusal["st"] == 201
        assert client.request("SH_EXISTS", tkns=[forever, *tokens])["exist"] == [forever]
    told = reached(server)
    assert told["evicted"] == 100
    assert told["memory"] == 1


# What an attacker would try


def test_who_asks_for_many_unknown_tokens_waits_and_others_do_not(server: Server) -> None:
    with opened(server.port) as guessing, opened(server.port) as honest:
        tkn = honest.request("SH_NEW")["tkn"]
        # Sessions that have expired slow nobody. And more at once: what may be asked for grows.
        some, more = ({"SH_EXISTS": {"tkns": [*range(1, last)]}} for last in (9_000, 2_000))
        rest = text({"SH_GET": {"tkn": tkn, "keys": []}}) + text({"KV_COUNT": {}})
        guessing.send(text(some) + text(more) + rest)
        assert guessing.reply() == {"SH_EXISTS_RSP": {"st": 1, "exist": []}}
        for _ in range(200):
            assert honest.request("SH_GET", tkn=tkn, keys=["a"])["st"] == 1
        replies = guessing.replies(3)
        assert [*map(next, map(iter, replies))] == ["SH_EXISTS_RSP", "SH_GET_RSP", "KV_COUNT_RSP"]
    said = r"127\.0\.0\.1 asks for many unknown tokens; its replies are delayed by ([0-9.]+) s"
    [waits] = re.findall(said, server.stderr)
    # As long as it takes to earn the 998 too many, less what was earned since the first.
    assert 0 < float(waits) <= 1
    assert reached(server) == {"unknown_tokens": 1}


def test_who_sends_many_requests_at_once_has_no_reply_about_a_token_before_it_is_paid_for(
    server: Server,
) -> None:
    with opened(server.port) as guessing, opened(server.port) as honest:
        assert guessing.request("SH_EXISTS", tkns=[1] * 10_000)["exist"] == []
        guessing.send(text({"SH_EXISTS": {"tkns": [1] * 25_000}}) + text({"KV_COUNT": {}}))
        # All of it arrives in one read; the first has to be paid for with some 25 seconds.
        until(lambda: "127.0.0.1 asks for many unknown tokens; its replies" in server.stderr)
        assert honest.request("KV_COUNT")["st"] == 1
        guessing.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            guessing.socket.recv(1)


OF_TOKENS = {
    name: "tkn" if "tkn" in command.params.__struct_fields__ else "tkns"
    for name, command in COMMANDS.items()
    if {"tkn", "tkns"} & {*command.params.__struct_fields__}
}
"""The commands that ask for a token, or for several, and the name of that parameter."""


def test_each_command_that_asks_for_a_token_counts_those_that_no_session_has(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    assert len(OF_TOKENS) > 15
    with opened(server.port) as guessing, opened(server.port) as client:
        # It has to wait for longer than this test takes; the other one has not.
        guessing.send(text({"SH_EXISTS": {"tkns": [*range(1, 300_000)]}}))
        guessing.until_arrived()
        for number, (name, parameter) in enumerate(OF_TOKENS.items(), 2):
            asked = 5 if parameter == "tkn" else [5]
            client.request(name, **PARAMS.get(name, {}) | {parameter: asked})
            assert counted(server)["unknown_tokens"] == number, name


def test_who_waits_for_long_does_not_keep_the_server_from_stopping(server: Server) -> None:
    with opened(server.port) as guessing, opened(server.port) as gone:
        for client in (gone, guessing):
            client.send(text({"SH_EXISTS": {"tkns": [*range(1, 100_000)]}}))
            client.until_arrived()
        gone.reset()
        until(lambda: counted(server).get("unknown_tokens") == 2)
        server.process.send_signal(signal.SIGTERM)
        assert guessing.reply() == {"SH_EXISTS_RSP": {"st": 1, "exist": []}}
        assert guessing.said() == (1001, "server is shutting down")
        guessing.send(close(1001))
        assert guessing.rest() == []
    assert server.process.wait(BOUND) == 0


HOSTILE = {
    "brackets without an end": b"[" * 2_000_000,
    "objects without an end": b'{"a":' * 400_000,
    "brackets in a request": b'{"KV_SET":{"keys":{"a":'
    + b"[" * 1_000_000
    + b"]" * 1_000_000
    + b"}}}",
    "an unknown parameter that nests": b'{"KV_COUNT":{"x":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}}",
    "many keys": json.dumps({"KV_SET": {"keys": {f"k{n}": n for n in range(100_000)}}}).encode(),
    "one key many times": b'{"KV_SET":{"keys":{' + b",".join([b'"a":1'] * 400_000) + b"}}}",
    "a huge number": b'{"KV_SET":{"keys":{"n":' + b"9" * 3_000_000 + b"}}}",
    "a huge exponent": b'{"KV_SET":{"keys":{"n":1e' + b"9" * 3_000_000 + b"}}}",
    "a huge duration": b'{"SH_NEW":{"expiry":{"duration":' + b"9" * 1_000_000 + b"}}}",
    "a huge token": b'{"SH_GET":{"tkn":' + b"9" * 1_000_000 + b',"keys":[]}}',
    "a huge token as text": b'{"SH_GET":{"tkn":"' + b"9" * 1_000_000 + b'","keys":[]}}',
    "tokens of one hash": json.dumps(
        {"SH_EXISTS": {"tkns": [(2**61 - 1) * n % 2**64 for n in range(1, 9)] * 1000}}
    ).encode(),
    "tokens with the same low bits": json.dumps(
        {"SH_EXISTS": {"tkns": [n << 44 for n in range(1, 9000)]}}
    ).encode(),
    "a long command": b'{"' + b"A" * 3_000_000 + b'":{}}',
    "escapes": b'{"KV_SET":{"keys":{"' + rb"\u0061" * 600_000 + b'":1}}}',
    "half a pair": b'{"KV_SET":{"keys":{"a":"' + rb"\ud800" * 500_000 + b'"}}}',
    "a path that nests": b'{"KV_FIND":{"rsp":"keys","path":"$' + b"[?(" * 500_000 + b'"}}',
    "a pattern that nests": json.dumps(
        {"KV_FIND": {"rsp": "keys", "path": f"$[?match(@,'{'(' * 2000}')]"}}
    ).encode(),
}


def test_hostile_messages_are_answered_and_others_meanwhile(server: Server) -> None:
    with opened(server.port) as hostile, opened(server.port) as honest:
        honest.request("KV_SET", keys={"values": ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]})
        for name, message in HOSTILE.items():
            hostile.send(frame(Opcode.TEXT, message))
            assert honest.request("KV_GET", keys=["values"])["st"] == 1, name
            [(reply_name, body)] = hostile.reply().items()
            assert reply_name == "ERR" or reply_name.endswith("_RSP"), name
            assert 1 <= body["st"] < 1000, name
            assert len(json.dumps(body)) < 1000, name
        bomb = {"path": "$[?match(@, '(a|aa)+b')]", "rsp": "keys"}
        assert honest.request("KV_FIND", **bomb, keys=["values"]) == {"st": 1, "keys": []}


def test_a_client_that_never_reads_takes_a_bounded_amount_of_memory(server: Server) -> None:
    with opened(server.port) as greedy, opened(server.port) as honest:
        honest.request("KV_SET", keys={"large": "x" * 1_000_000})
        before = resident_bytes(server.pid)
        greedy.flood(text({"KV_GET": {"keys": ["large"]}}) * 10_000, honest)
        assert honest.request("KV_COUNT")["st"] == 1
        assert resident_bytes(server.pid) - before < 30_000_000
        greedy.reset()


MEBIBYTE = 2**20


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_what_waits_for_all_clients_together_is_bounded(
    start_server: StartServer, loop: str
) -> None:
    server = start_server("--max-memory", "30m", "--loop", loop)
    large = {f"{number}": "x" * MEBIBYTE for number in range(20)}
    get = text({"KV_GET": {"keys": [*large]}})
    whole = text({"KV_SET": {"keys": {"a": "x" * 3 * MEBIBYTE}}})
    with opened(server.port) as honest:
        for key, value in large.items():
            assert honest.request("KV_SET", keys={key: value})["st"] == 1
        before = resident_bytes(server.pid)
        with all_opened(server.port, 50) as greedy:
            for client in greedy:
                # Some ask for much and don't read it, others never send the end.
                client.send(get if client in greedy[:30] else whole[:-1])
                assert honest.request("KV_COUNT") == {"st": 1, "cnt": 20}
            assert honest.request("KV_GET", keys=["0"])["keys"] == {"0": large["0"]}
            # They ask for 660 MiB. Of what may wait, copies are made while it is written, and of
            # those that are gone the system has not everything back at once.
            assert resident_bytes(server.pid) - before < 300 * MEBIBYTE
        # Once they have gone, there is room for all who do read.
        until(lambda: scrape(server.port)["ndb_connections", ()] == 1)
        for _ in range(5):
            assert honest.request("KV_GET", keys=[*large])["keys"] == large
    assert ": too much data waits for clients, and most of it for this one" in server.stderr
    assert set(reached(server)) - {"memory"} == {"waiting"}


# Many connections


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_five_thousand_connections_at_once_are_answered(start_server: StartServer) -> None:
    server = start_server("--max-connections-per-address", "6000", "--log-level", "warning")
    with all_opened(server.port, 5000) as clients:
        for number, client in enumerate(clients):
            client.send(text({"KV_SET": {"keys": {f"{number}": number}}}))
        assert all(client.reply() == {"KV_SET_RSP": {"st": 1}} for client in clients)
        assert clients[0].request("KV_COUNT")["cnt"] == 5000


def test_ends_of_connections_leave_nothing_behind(server: Server) -> None:
    with opened(server.port) as client:
        sizes: list[int] = []
        for _ in range(3):
            for _ in range(300):
                socket.create_connection(("127.0.0.1", server.port), BOUND).close()
            assert client.request("KV_COUNT")["st"] == 1
            sizes.append(resident_bytes(server.pid))
        assert sizes[-1] - sizes[0] < 5_000_000


def test_every_value_that_can_be_stored_can_be_searched_and_changed(
    start_server: StartServer,
) -> None:
    # The limit of the interpreter comes first, and it is not the same for all Pythons.
    server = start_server("--max-depth", "20000", "--max-steps", "0")
    stored: list[int] = []
    with opened(server.port) as client:
        for depth in (100, 101, 512, *range(970, 1000, 3), 1490, 3000, 9980):
            client.send(text('{"KV_SET":{"keys":{"deep":%s1%s}}}' % ("[" * depth, "]" * depth)))
            [reply] = client.replies(1)
            if "ERR" in reply:
                assert reply["ERR"]["st"] == 3
                continue
            stored.append(depth)
            path = "$..[?@ == 1]"
            assert client.request("KV_FIND", path=path, rsp="keys")["keys"] == ["deep"]
            reply = client.request("KV_UPDATE", key="deep", path=path, value=2)
            assert reply == {"st": 1, "cnt": 1}
            assert client.request("KV_ARR_APPEND", key="deep", items=[3]) == {"st": 1}
            assert client.request("KV_FIND", path="$[1]", rsp="paths")["paths"] == ["$[1]"]
            assert client.request("KV_FIND", path="$..[?@ == 2]", rsp="keys")["keys"] == ["deep"]
    assert stored[:3] == [100, 101, 512]
    assert len(stored) > 3


def test_no_update_makes_a_value_that_nests_deeper_than_a_message_may(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    with opened(server.port) as client:
        tkn = client.request("SH_NEW")["tkn"]
        nested = "[" * 300 + "1" + "]" * 300
        for command, more in (("KV_SET", ""), ("SH_SET", f'"tkn":{tkn},')):
            client.send(text(f'{{"{command}":{{{more}"keys":{{"deep":{nested}}}}}}}'))
        for command, more in (("KV_UPDATE", ""), ("SH_UPDATE", f'"tkn":{tkn},')):
            params = f'{more}"key":"deep","path":"$..[?@ == 1]","value":{nested}'
            client.send(text(f'{{"{command}":{{{params}}}}}'))
        *stored, in_keys, in_session = client.replies(4)
        assert stored == [{"KV_SET_RSP": {"st": 1}}, {"SH_SET_RSP": {"st": 1}}]
        sentence = "the value of key 'deep' would nest arrays and objects deeper than 512 levels"
        refusal = {"st": 201, "m": sentence}
        assert in_keys == {"KV_UPDATE_RSP": refusal}
        assert in_session == {"SH_UPDATE_RSP": refusal}
        nested = "[" * 212 + "]" * 212
        client.send(
            text(f'{{"KV_UPDATE":{{"key":"deep","path":"$..[?@ == 1]","value":{nested}}}}}')
        )
        assert client.replies(1) == [{"KV_UPDATE_RSP": {"st": 1, "cnt": 1}}]
    assert reached(server) == {"depth": 2}
    # What is on disk can be read.
    with opened(start_server("--data-dir", str(tmp_path)).port) as client:
        assert client.request("KV_FIND", path="$..[?@ == 1]", rsp="keys")["keys"] == []
        assert client.request("SH_FIND", tkn=tkn, path="$..[?@ == 1]", rsp="keys")["keys"] == [
            "deep"
        ]
