"""Sockets that listen: what several addresses of one host share."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ndb_server.server import listeners
from ndb_server.server.listeners import Address, ListenError, listen, listen_unix, resolve

TCP = socket.IPPROTO_TCP


def address(text: str, host: str = "app.test") -> Address:
    return Address(host, socket.AF_INET, TCP, (text, 0))


NOT_HERE = address("192.0.2.1")
"""An address that no machine has (RFC 5737)."""

NO_FAMILY = Address("app.test", 10_000, TCP, ("::1", 0, 0, 0))
"""As of IPv6 where there is none."""


async def test_each_address_is_resolved_once_and_in_order() -> None:
    found = await resolve(["127.0.0.2", "localhost", "127.0.0.1", "127.0.0.2"], 1987)
    texts = list(map(str, found))
    assert texts[0] == "127.0.0.2"
    assert sorted(texts) == sorted({*texts})
    assert "127.0.0.1" in texts
    assert {one.host for one in found} <= {"127.0.0.2", "localhost"}


async def test_an_address_keeps_its_scope() -> None:
    [found] = await resolve(["fe80::1%lo"], 1987)
    assert found.place == ("fe80::1", 0, 0, socket.if_nametoindex("lo"))


@pytest.mark.parametrize("loop", ["nowhere.invalid", "a" * 64 + ".invalid", "a\0b"])
async def test_a_host_without_an_address_is_named(loop: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {loop} port 1987: "):
        await resolve(["127.0.0.1", loop], 1987)


async def test_any_address_stands_for_all_of_its_family() -> None:
    found = await resolve(["127.0.0.1", "::1", "0.0.0.0", "127.0.0.2"], 1987)
    assert list(map(str, found)) == ["::1", "0.0.0.0"]


def test_addresses_that_are_not_here_are_left_out_if_the_host_has_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        [one] = listen([NO_FAMILY, NOT_HERE, address("127.0.0.1")], 0)
    with one:
        assert one.getsockname()[0] == "127.0.0.1"
        assert one.proto == TCP
    assert "cannot listen on ::1 port 0: " in caplog.text
    assert caplog.text.count("app.test has another address") == 2


def test_an_address_of_a_host_that_has_no_other_is_named() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1 port [0-9]+: "):
        listen([address("127.0.0.1", "localhost"), NOT_HERE], 0)


def test_another_port_is_taken_if_the_first_is_not_free_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The system's choice can't be foreseen: what stands in the way does so the first two times.
    tried: list[int] = []
    original = listeners._listen_on

    def listen_on(one: Address, port: int, dual: bool) -> socket.socket:
        if str(one) == "127.0.0.3":
            tried.append(port)
            if len(tried) <= 2:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return original(one, port, dual)

    monkeypatch.setattr(listeners, "_listen_on", listen_on)
    first, second = listen([address("127.0.0.2"), address("127.0.0.3")], 0)
    with first, second:
        assert first.getsockname()[1] == second.getsockname()[1] == tried[-1]
    assert len(tried) == 3


def test_it_gives_up_when_no_port_is_free_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    original = listeners._listen_on

    def listen_on(one: Address, port: int, dual: bool) -> socket.socket:
        if str(one) == "127.0.0.3":
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return original(one, port, dual)

    monkeypatch.setattr(listeners, "_listen_on", listen_on)
    with pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.3 port [0-9]+: Address"):
        listen([address("127.0.0.2"), address("127.0.0.3")], 0)


def test_nothing_stays_open_when_one_address_fails() -> None:
    with socket.create_server(("127.0.0.3", 0)) as taken:
        port = taken.getsockname()[1]
        for last in (address("127.0.0.3"), NOT_HERE):
            with pytest.raises(ListenError):
                listen([address("127.0.0.2", "localhost"), last], port)
            with socket.create_server(("127.0.0.2", port)):
                pass


def test_a_port_that_others_must_not_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> socket.socket:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Root may use any.
    monkeypatch.setattr(listeners, "_listen_on", refuse)
    with pytest.raises(ListenError, match=r"on 127\.0\.0\.1 port 80: Permission denied"):
        listen([address("127.0.0.1")], 80)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def test_a_socket_that_has_no_room_for_a_connection_is_alive(folder: Path) -> None:
    path = folder / "ndb.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting: list[socket.socket] = []
        with suppress(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        with pytest.raises(ListenError, match="Address already in use"):
            listen_unix(path)
        for one in waiting:
            one.close()
    assert path.is_socket()


def test_a_path_with_a_null_character_is_named(folder: Path) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on .*: .*null"):
        listen_unix(folder / "a\0b")


def test_what_stands_where_a_socket_was_is_not_removed(folder: Path) -> None:
    path = folder / "ndb.sock"
    one, file = listen_unix(path)
    with closing(one):
        path.unlink()
        file.remove()
        path.write_text("precious")
        file.remove()
        assert path.read_text() == "precious"
