"""A server process with much to do, and one that is told to stop meanwhile."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support.process_memory import resident_bytes
from tests.support.raw_client import Wire, all_opened, close, handshake, opened, text
from tests.support.server_process import Server, StartServer
from tests.support.waiting import BOUND


@pytest.fixture(params=["uvloop", "asyncio"])
def server(start_server: StartServer, request: pytest.FixtureRequest) -> Server:
    return start_server("--loop", request.param)


GOING_AWAY = (1001, "server is shutting down")


def numbered(numbers: range) -> bytes:
    """Return pairs of requests to store and to return each of the numbers."""
    get = text({"KV_GET": {"keys": ["n"]}})
    return b"".join(text({"KV_SET": {"keys": {"n": number}}}) + get for number in numbers)


def assert_answered_in_order(client: Wire, numbers: range) -> None:
    """Read the replies to `numbered` requests."""
    for number in numbers:
        assert client.reply() == {"KV_SET_RSP": {"st": 1}}
        assert client.reply() == {"KV_GET_RSP": {"st": 1, "keys": {"n": number}}}


def test_a_thousand_requests_without_reading_are_answered_in_order(server: Server) -> None:
    with opened(server.port) as client:
        client.send(numbered(range(500)))
        assert_answered_in_order(client, range(500))


def test_two_hundred_clients_at_once_are_answered(server: Server) -> None:
    with all_opened(server.port, 200) as clients:
        tokens = [client.request("SH_NEW")["tkn"] for client in clients]
        assert len(set(tokens)) == 200
        for number, (client, tkn) in enumerate(zip(clients, tokens, strict=True)):
            requests = [
                {"SH_SET": {"tkn": tkn, "keys": {"n": number, "round": turn}}} for turn in range(10)
            ]
            client.send(b"".join(text(request) for request in requests))
            client.send(text({"SH_GET": {"tkn": tkn, "keys": ["n", "round"]}}))
        for number, client in enumerate(clients):
            assert client.replies(10) == [{"SH_SET_RSP": {"st": 1}}] * 10
            expected = {"st": 1, "keys": {"n": number, "round": 9}}
            assert client.reply() == {"SH_GET_RSP": expected}


@pytest.mark.parametrize(("size", "count"), [(100_000, 500), (1_000_000, 50)])
def test_a_slow_reader_loses_nothing_and_stops_nobody(
    server: Server, size: int, count: int
) -> None:
    value = "x" * size
    with opened(server.port) as slow, opened(server.port) as other:
        assert slow.request("KV_SET", keys={"large": value}) == {"st": 1}
        get = text({"KV_GET": {"keys": ["large"]}})
        # Once, so that what such a reply takes for a moment is not counted as kept.
        slow.send(get)
        slow.reply()
        before = resident_bytes(server.pid)
        slow.send(get * count)
        slow.until_arrived()
        for _ in range(100):
            assert other.request("KV_COUNT") == {"st": 1, "cnt": 1}
        assert resident_bytes(server.pid) - before < 8 * 2**20
        for _ in range(count):
            assert slow.reply() == {"KV_GET_RSP": {"st": 1, "keys": {"large": value}}}
            assert other.request("KV_COUNT") == {"st": 1, "cnt": 1}


def test_who_asks_without_end_and_does_not_read_is_not_read(server: Server) -> None:
    with opened(server.port) as greedy, opened(server.port) as other:
        greedy.request("KV_SET", keys={"large": "x" * 100_000})
        before = resident_bytes(server.pid)
        requests = text({"KV_GET": {"keys": ["large"], "unknown": "x" * 1000}}) * 1000
        # The server's system takes some, and no more.
        greedy.flood(requests, other)
        assert resident_bytes(server.pid) - before < 8 * 2**20


def test_values_of_a_megabyte_come_back_as_sent(server: Server) -> None:
    values = {"text": "ü" * 500_000, "list": [1.5] * 250_000, "object": {"a" * 1_000_000: "b"}}
    with opened(server.port) as client:
        tkn = client.request("SH_NEW")["tkn"]
        for key, value in values.items():
            assert client.request("SH_SET", tkn=tkn, keys={key: value}) == {"st": 1}
        for key, value in values.items():
            reply = client.request("SH_GET", tkn=tkn, keys=[key])
            assert reply == {"st": 1, "keys": {key: value}}
        assert client.request("SH_GET", tkn=tkn, keys=[*values])["keys"] == values


def numbered_commands(numbers: range) -> bytes:
    """Return requests that nobody knows; the reply to each says which one it was."""
    return b"".join(text({f"X_{number}": {}}) for number in numbers)


def answered_until_going_away(client: Wire, numbers: range) -> int:
    """Read the replies to `numbered_commands`, which must be in order.

    Returns:
        How many there were before the server closed the connection, or all of them.
    """
    for count, number in enumerate(numbers):
        said = client.said()
        if said == GOING_AWAY:
            end(client)
            return count
        assert isinstance(said, str)
        assert said.startswith(f'{{"X_{number}_RSP":{{"st":10,')
    return len(numbers)


def end(client: Wire) -> None:
    """Answer the server's close frame; it has nothing more to say, and the client ends first."""
    client.send(close(1001))
    assert client.rest() == []
    client.socket.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_told_to_stop_answers_what_has_arrived(server: Server, number: int) -> None:
    requests = numbered_commands(range(2000))
    with all_opened(server.port, 20) as clients, Wire(server.port) as halfway:
        halfway.send(handshake()[:40])
        for client in clients:
            client.send(requests)
        for client in clients:
            client.until_arrived()
        server.process.send_signal(number)
        for client in clients:
            assert answered_until_going_away(client, range(2000)) == 2000
            assert client.said() == GOING_AWAY
            end(client)
        with suppress(ConnectionResetError):
            # It is a reset if the server has not come to read what was sent.
            assert halfway.socket.recv(1) == b""
        assert server.process.wait(BOUND) == 0
    with pytest.raises(ConnectionRefusedError):
        Wire(server.port)


def test_a_server_told_to_stop_drops_no_reply_to_who_goes_on_asking(server: Server) -> None:
    under_way = threading.Barrier(9)

    def ask_on_and_on(client: Wire) -> int:
        answered = 0
        while True:
            asked = range(answered, answered + 100)
            client.send(numbered_commands(asked))
            more = answered_until_going_away(client, asked)
            answered += more
            if more < 100:
                return answered
            if answered == 100:
                under_way.wait(BOUND)

    with all_opened(server.port, 8) as clients, ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask_on_and_on, client) for client in clients]
        under_way.wait(BOUND)
        server.process.send_signal(signal.SIGTERM)
        assert all(each.result(BOUND) >= 100 for each in asking)
        assert server.process.wait(BOUND) == 0


def test_a_stop_while_a_client_does_not_read_waits_for_it(server: Server) -> None:
    value = "x" * 100_000
    with opened(server.port) as slow, opened(server.port) as other:
        slow.request("KV_SET", keys={"large": value})
        slow.send(text({"KV_GET": {"keys": ["large"]}}) * 200)
        slow.until_arrived()
        other.request("KV_COUNT")
        server.process.send_signal(signal.SIGTERM)
        assert other.said() == GOING_AWAY
        end(other)
        with pytest.raises(ConnectionRefusedError):
            Wire(server.port)
        for _ in range(200):
            assert slow.reply() == {"KV_GET_RSP": {"st": 1, "keys": {"large": value}}}
        assert slow.said() == GOING_AWAY
        end(slow)
    assert server.process.wait(BOUND) == 0
