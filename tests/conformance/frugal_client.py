"""The asyncio client, but of several pings only the last is answered (RFC 6455, section 5.5.3)."""

import asyncio

import pytest
from ndb.connection import Connection
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol

from . import python_client

_send = Protocol.send_frame
_receive = Connection.data_received
_pongs: dict[Protocol, Frame] = {}


def _send_later(self: Protocol, frame: Frame) -> None:
    if frame.opcode is Opcode.PONG:
        _pongs[self] = frame
    else:
        _send(self, frame)


def _receive_all(self: Connection, data: bytes) -> None:
    _receive(self, data)
    pong = _pongs.pop(self._websocket, None)
    if pong is not None and self.ended is None:
        _send(self._websocket, pong)
        self._write_control()


if __name__ == "__main__":
    patch = pytest.MonkeyPatch()
    patch.setattr(Protocol, "send_frame", _send_later)
    patch.setattr(Connection, "data_received", _receive_all)
    asyncio.run(python_client.main())
