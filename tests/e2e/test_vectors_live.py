"""The conformance vectors that need no clock of ours, against a server process."""

from pathlib import Path

import pytest
from ndb_protocol.conformance.conversation import Conversation, Mismatch
from ndb_protocol.vectors import Exchange, Vector, load_vectors
from websockets import Subprotocol
from websockets.asyncio.client import connect

from tests.conftest import StartServer

LIVE = [vector for vector in load_vectors() if not vector.takes_time]

START = [
    Exchange('{"SH_END_ALL":{}}', '{"SH_END_ALL_RSP":{"st":1,"cnt":{{any:uint}}}}'),
    Exchange('{"KV_CLEAR":{}}', '{"KV_CLEAR_RSP":{"st":1,"cnt":{{any:uint}}}}'),
]
"""What makes an empty server of one that has answered other vectors."""


async def converse(url: str, vector: Vector) -> None:
    conversation = Conversation()
    subprotocols = [Subprotocol(vector.subprotocol)] if vector.subprotocol else None
    async with connect(url, subprotocols=subprotocols, max_size=None, proxy=None) as connection:
        assert connection.subprotocol == vector.subprotocol
        for step in [*START, *vector.steps]:
            assert isinstance(step, Exchange)
            await connection.send(conversation.fill(step.send))
            reply = await connection.recv()
            assert isinstance(reply, str)
            conversation.check(step.expect, reply)


@pytest.mark.parametrize("persistence", [True, False], ids=["saving", "not saving"])
async def test_a_server_answers_as_the_vectors_say(
    start_server: StartServer, tmp_path: Path, persistence: bool
) -> None:
    server = start_server(*(["--data-dir", str(tmp_path)] if persistence else []))
    chosen = [vector for vector in LIVE if vector.persistence in (None, persistence)]
    assert any(vector.persistence is persistence for vector in chosen)
    failures = []
    for vector in chosen:
        try:
            await converse(server.url, vector)
        except Mismatch as difference:
            failures.append(f"{vector.file}: {vector.name}: {difference}")
    assert not failures, "\n\n".join(failures)
