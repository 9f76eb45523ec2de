"""Statuses that have no conformance vectors."""

from ndb_protocol import Status

NOT_BY_TEXT = {
    Status.OP_CODE_INVALID,
    Status.SESSION_NEW_FAIL,
    Status.SAVE_ERROR,
    Status.LIMIT_EXCEEDED,
    Status.NOT_DURABLE,
    Status.UNKNOWN,
}
"""Statuses that no text message provokes of every server; the README names them."""
