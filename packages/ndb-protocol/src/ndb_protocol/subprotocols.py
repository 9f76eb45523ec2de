"""Names for ``Sec-WebSocket-Protocol`` (RFC 6455, section 1.9; ``protocol.md``, section 1)."""

NDB_V1 = "ndb.v1"
"""Tokens in replies are JSON numbers, as they are without a subprotocol."""

NDB_V1_TEXT = "ndb.v1.text"
"""Tokens in replies are decimal strings, for languages whose JSON numbers are doubles."""

PROTOCOL_VERSION = 1
DEFAULT_PORT = 1987
