"""Conformance vectors: conversations with a server, as JSON files for any language.

``README.md`` beside this module has the format; this module only reads the files.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import msgspec


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message to send and the reply to expect, both with placeholders."""

    send: str
    expect: str


class Advance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Time to let pass before the next step, in milliseconds."""

    advance_ms: int


class _Vector(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    steps: tuple[dict[str, str | int], ...]
    persistence: bool | None = None
    subprotocol: Literal["ndb.v1", "ndb.v1.text"] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    description: str
    vectors: tuple[_Vector, ...]


@dataclass(frozen=True, slots=True)
class Vector:
    """One conversation, which begins with an empty server.

    Attributes:
        file: the name of its file without ``.json``: a command, or ``message``.
        name: what it shows, as a sentence; unique in its file.
        steps: what to do, in order.
        persistence: whether saving must be enabled or disabled; None if that does not matter.
        subprotocol: the WebSocket subprotocol to use; None if that does not matter.
    """

    file: str
    name: str
    steps: tuple[Exchange | Advance, ...]
    persistence: bool | None
    subprotocol: str | None

    @property
    def takes_time(self) -> bool:
        """Whether it needs a server whose time can be set."""
        return any(isinstance(step, Advance) for step in self.steps)


_read = msgspec.json.Decoder(_File).decode


def load_vectors() -> list[Vector]:
    """Return all vectors, in the order of their files' names.

    Raises:
        msgspec.ValidationError: a file is not of the format.
    """
    paths = sorted(
        (path for path in files(__name__).iterdir() if path.name.endswith(".json")),
        key=lambda path: path.name,
    )
    return [
        Vector(
            path.name.removesuffix(".json"),
            vector.name,
            tuple(_step(step) for step in vector.steps),
            vector.persistence,
            vector.subprotocol,
        )
        for path in paths
        for vector in _read(path.read_bytes()).vectors
    ]


def _step(step: dict[str, str | int]) -> Exchange | Advance:
    if "advance_ms" in step:
        return msgspec.convert(step, Advance)
    return msgspec.convert(step, Exchange)
