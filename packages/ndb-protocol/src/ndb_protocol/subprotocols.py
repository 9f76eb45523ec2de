"""Names for ``Sec-WebSocket-Protocol`` (docs/reference/protocol/transport.md, Subprotocols)."""

NDB_V1 = "ndb.v1"
"""Tokens in replies are JSON numbers, as they are without a subprotocol."""

NDB_V1_TEXT = "ndb.v1.text"
"""Tokens in replies are decimal strings, for languages whose JSON numbers are doubles."""

PROTOCOL_VERSION = 1
DEFAULT_PORT = 1987
