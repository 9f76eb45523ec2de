"""Marked secrets, and everything that the processes wrote: none of them is in it."""

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

from websockets.frames import Opcode

from tests.support.credentials import added
from tests.support.raw_client import Wire, close, frame, handshake, text
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND

MARK = "5ecre7"


def http(port: int, request: bytes) -> bytes:
    """Return all that the server answers to a request until it ends the connection."""
    with Wire(port) as wire:
        wire.send(request)
        data = b""
        while piece := wire.socket.recv(2**16):
            data += piece
        return data


def test_no_secret_is_in_anything_that_a_server_writes(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    secret = added(file, "web", "app", "kv")
    server = start_server(
        *("--auth-file", str(file), "--log-level", "debug", "--max-keys", "2"),
        *("--data-dir", str(tmp_path / "data"), "--max-message-size", "10k"),
    )
    written = b""

    # What is wrong, and holds a secret.
    offers = [
        f"Bearer {secret}{MARK}",
        "Basic " + base64.b64encode(f"web:{MARK}".encode()).decode(),
        "Basic " + base64.b64encode(f"{MARK}:x".encode()).decode() + "*",
        f"Digest {MARK}",
        f"{MARK}",
    ]
    for offer in offers:
        written += http(server.port, handshake(Authorization=offer))
        written += http(
            server.port, b"GET /x HTTP/1.1\r\nAuthorization: %s\r\n\r\n" % offer.encode()
        )
        written += http(server.port, handshake(Authorization=offer, Sec_WebSocket_Key="x"))
    written += http(server.port, handshake(Authorization=f"Bearer {secret}", Origin="http://evil"))

    # Tokens, keys and values, where everything is right and where everything is wrong.
    with Wire(server.port) as wire:
        wire.send(handshake(Authorization=f"Bearer {secret}"))
        assert wire.head()[0] == 101
        token = wire.request("SH_NEW")["tkn"]
        replies: list[object] = []

        def ask(message: str) -> None:
            wire.send(text(message))
            replies.append(wire.reply())

        value = f'{{"{MARK}":"{MARK}"}}'
        ask(f'{{"SH_SET":{{"tkn":{token},"keys":{{"a":{value}}}}}}}')
        ask(f'{{"SH_SET":{{"tkn":{token},"keys":{{"b":1,"c":2,"d":{value}}}}}}}')
        ask(f'{{"SH_SET":{{"tkn":{token},"keys":"{MARK}"}}}}')
        ask(f'{{"SH_SET":{{"tkn":"{token}{MARK}","keys":{{}}}}}}')
        ask(f'{{"SH_GET":{{"tkn":{token ^ 1},"keys":[]}}}}')
        ask(f'{{"SH_FIND":{{"tkn":{token},"path":"$..*","rsp":"{MARK}"}}}}')
        ask(f'{{"SH_UPDATE":{{"tkn":{token},"key":"a","path":"$[0]","value":"{MARK}"}}}}')
        ask(f'{{"SH_ARR_APPEND":{{"tkn":{token},"key":"a","items":["{MARK}"]}}}}')
        ask(f'{{"SH_SAVE":{{"name":"x","tkns":[{token}]}}}}')
        ask(f'{{"KV_SET":{{"keys":{{"a":"{MARK}"}}}}')
        ask(f'["{MARK}",{token}]')
        ask(f'{{"SH_NEW":{{"expiry":"{MARK}"}}}}')
        assert MARK not in str(replies)
        assert str(token) not in str(replies)
        os.kill(server.pid, signal.SIGHUP)
        wire.send(frame(Opcode.TEXT, f"{MARK}{token}".encode() + b"\xff"))
        written += str(wire.rest()).encode()
    with Wire(server.port) as wire:
        wire.send(handshake(Authorization=f"Bearer {secret}"))
        wire.head()
        wire.send(frame(Opcode.TEXT, MARK.encode() * 10_000))
        written += str(wire.rest()).encode()

    server.stop()
    assert server.process.stdout is not None
    written += server.stderr.encode() + server.process.stdout.read().encode()
    for name in (secret, secret.partition(".")[2], MARK, str(token), str(token ^ 1)):
        assert name.encode() not in written, written


def test_no_secret_is_in_what_a_server_says_that_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    for line in (MARK, f'{{"name":"{MARK}"}}', f'{{"name":"web","roles":["{MARK}"]}}', f'"{MARK}'):
        file.write_text(line)
        done = subprocess.run(
            [sys.executable, "-m", "ndb_server", "--auth-file", str(file)],
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        assert done.returncode == 2
        assert MARK not in done.stderr + done.stdout


def test_a_token_that_is_guessed_at_is_not_in_the_log(start_server: StartServer) -> None:
    server = start_server("--log-level", "debug")
    token = 4815162342000000000
    with Wire(server.port) as wire:
        wire.upgrade()
        wire.send(text({"SH_EXISTS": {"tkns": [token + number for number in range(10_500)]}}))
        wire.reply()
        wire.send(close())
        wire.rest()
    server.stop()
    assert "asks for many unknown tokens" in server.stderr
    assert "48151623420000" not in server.stderr
