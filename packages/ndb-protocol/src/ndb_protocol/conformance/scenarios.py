"""The scenarios for servers and clients; ``README.md`` describes the format.

The scenarios for servers are the conformance vectors that do not set the server's clock, and files
beside this module for what vectors can't express: frames, several connections and real time.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar

import msgspec

from ndb_protocol import NDB_V1, NDB_V1_TEXT
from ndb_protocol.vectors import Vector, load_vectors

Opcode = Literal["continuation", "text", "binary", "close", "ping", "pong"]


class RawFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A frame to send as it is described, right or wrong (RFC 6455, section 5.2).

    Attributes:
        opcode: by name, or the number of one that has none.
        text: the payload.
        hex: the payload, where it is not text.
        fin: whether it is the last of its message.
        rsv1: a bit that must be 0 unless an extension gives it a meaning.
        masked: whether it is masked, as every frame of a client must be.
        pad: append spaces until the payload has so many bytes more than `limits.messageSize`.
        length: the length as it is written, in hexadecimal: 2 bytes or 8; by default the payload's
            in its shortest form.
    """

    opcode: Opcode | int
    text: str = ""
    hex: str = ""
    fin: bool = True
    rsv1: bool = False
    masked: bool = True
    pad: int | None = None
    length: str = ""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to do next, in the order of the attributes.

    Attributes:
        on: the connection, by a number; it is opened when it is first used.
        advance_ms: milliseconds to wait.
        crowd: a limit; connections are opened until there are as many as it says.
        credentials: what the connection is opened with: those of the URL, none, or wrong ones.
        expect_refused: the HTTP status with which the server must refuse the connection.
        expect_unheard: the server must end a connection on which no handshake comes.
        send: the text message to send, with placeholders.
        frames: frames to send instead.
        times: how often to send it before the first reply is read; a limit's name for as often as
            it says.
        piece: bytes that leave together; 0 = all.
        stalls: send it again and again and read no reply, until the server reads no more, which it
            must.
        expect: the reply to read then, for each message sent, with placeholders.
        without: a member that the reply must not have.
        expect_pong: the payload of a pong that must come.
        expect_close: the code with which the server must close the connection.
        expect_cut_off: the server must end the connection if for `limits.writeTimeout` it is not
            read.
    """

    on: int = 1
    advance_ms: int = 0
    crowd: str | None = None
    credentials: Literal["own", "none", "wrong"] = "own"
    expect_refused: int | None = None
    expect_unheard: bool = False
    send: str | None = None
    frames: tuple[RawFrame, ...] = ()
    times: int | str = 1
    piece: int = 0
    stalls: bool = False
    expect: str | None = None
    without: str | None = None
    expect_pong: str | None = None
    expect_close: int | None = None
    expect_cut_off: bool = False


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to check of a server.

    Attributes:
        name: what it shows, as a sentence; unique in its file.
        steps: what to do, in order.
        file: the name of its file without ``.json``.
        persistence: whether saving must be enabled or disabled; None if that does not matter.
        limited: the credentials must not permit everything, so that nothing can be emptied first.
        needs: limits that the server must have, and the most that each may be.
        path: the path to ask for; None for that of the URL.
        offer: the subprotocols to offer; by default the one expected.
        subprotocol: the one that the server must choose.
        concurrent: it touches nothing but sessions of its own, and runs beside others of this kind.
    """

    name: str
    steps: tuple[Step, ...]
    file: str = ""
    persistence: bool | None = None
    limited: bool = False
    needs: dict[str, int] = {}
    path: str | None = None
    offer: tuple[str, ...] = ()
    subprotocol: str | None = None
    concurrent: bool = False

    @property
    def id(self) -> str:
        """What the manifest, the profiles and the reports call it."""
        return f"{self.file}/{self.name}"

    @property
    def takes_time(self) -> bool:
        """Whether it waits."""
        return any(step.advance_ms for step in self.steps)

    @property
    def shows_credentials(self) -> bool:
        """Whether it shows what the server does with other credentials."""
        return any(step.credentials != "own" for step in self.steps)

    @property
    def section(self) -> str:
        """The section of the protocol that it is about."""
        return section_of(self.file)


class ClientStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens next, in the order of the attributes.

    Attributes:
        call: a command for the client to run.
        params: its parameters.
        timeout: the most that it may take, in seconds.
        request: the message that the server must get.
        reply: the message, or messages in one write, that the server then sends.
        cut: send the first bytes of the reply's frame, and the rest when they have arrived; -1 does
            all of the step again for each place where it can be cut.
        piece: bytes of the reply that leave together; 0 = all.
        fragment: bytes of each fragment of the reply; 0 = one frame.
        pings: send a ping in front of each fragment; the client must answer the last.
        ping: send a ping with this payload; the client must answer it.
        raw: bytes to send as they are, in hexadecimal.
        close: close the connection with this code.
        drop: end the connection without a close frame.
        ends: what was sent makes the client end the connection; if with a close frame,
            its code is one of `expect_close`.
        of: the call that the rest is about, by its number; by default the oldest without outcome.
        result: what the client must say came of the call.
        may_fail: the error that it may say it met instead; `lost` if it may end the connection.
        may_take: what it may say came of the call if its WebSocket library does not look at what is
            wrong; then the scenario is skipped.
        error: the error that it must say it met instead.
        status: the status of a refusal.
        expect_close: codes with one of which the client must close the connection.
    """

    call: str | None = None
    params: dict[str, Any] = {}
    timeout: float | None = None
    request: str | None = None
    reply: str | tuple[str, ...] = ()
    cut: int = 0
    piece: int = 0
    fragment: int = 0
    pings: bool = False
    ping: str | None = None
    raw: str = ""
    close: int | None = None
    drop: bool = False
    ends: bool = False
    of: int | None = None
    result: dict[str, Any] | None = None
    may_fail: Literal["lost", "unreadable"] | None = None
    may_take: dict[str, Any] | None = None
    error: Literal["refused", "lost", "timeout", "unreadable"] | None = None
    status: int | None = None
    expect_close: tuple[int, ...] = ()


_INFO = (
    '{"SV_INFO_RSP":{"st":1,"serverVersion":"0.1.0","persistEnabled":true,"protocol":1,'
    '"limits":{"messageSize":4194304,"writeTimeout":30.0},"features":["find"]}}'
)


class ClientScenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to check of a client.

    Attributes:
        name: what it shows, as a sentence.
        section: the section of the protocol that it is about.
        steps: what happens, in order, between opening and closing.
        refuse: the HTTP status with which the server refuses the opening handshake.
        knows: the subprotocols that the server knows.
        may_refuse: the client may refuse to open the connection; then that is all.
        info: what the server answers if the client asks by itself, before anything else, what it
            can do.
    """

    name: str
    section: str
    steps: tuple[ClientStep, ...] = ()
    refuse: int | None = None
    knows: tuple[str, ...] = (NDB_V1, NDB_V1_TEXT)
    may_refuse: bool = False
    info: str = _INFO

    @property
    def id(self) -> str:
        """What the manifest, the profiles and the reports call it."""
        return f"client/{self.name}"

    @property
    def file(self) -> str:
        return "client"


class Profile(StrEnum):
    """How much of the protocol is checked.

    Attributes:
        CORE: what NemesisDB 0.7 has too.
        FULL: all of it.
    """

    CORE = "core"
    FULL = "full"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    description: str
    scenarios: tuple[Scenario, ...]


class _ClientFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    description: str
    scenarios: tuple[ClientScenario, ...]


def section_of(file: str) -> str:
    """Return the section of the protocol that the scenarios of `file` are about."""
    space, _, action = file.partition("_")
    if action in {"SAVE", "LOAD"}:
        return "Saving and loading"
    if action in {"FIND", "UPDATE", "ARR_APPEND"}:
        return "Finding and changing parts of values"
    return _SECTIONS[space]


_SECTIONS = {
    "transport": "Transport",
    "limits": "Limits",
    "message": "Messages",
    "expiry": "Expiry",
    "SH": "Sessions",
    "KV": "Independent keys",
    "SV": "The server",
    "server": "The server",
}

_HERE = files("ndb_protocol.conformance")
_FILES = ("transport", "limits", "expiry", "server")
_FILL = re.compile(r"\{\{fill:([0-9]+)\}\}")


def _text(file: str) -> str:
    return _FILL.sub(lambda found: "x" * int(found[1]), (_HERE / f"{file}.json").read_text("utf-8"))


def load_scenarios() -> list[Scenario]:
    """Return every scenario for servers."""
    scenarios = []
    for file in _FILES:
        found = msgspec.json.decode(_text(file), type=_File).scenarios
        scenarios += [msgspec.structs.replace(scenario, file=file) for scenario in found]
    return scenarios + [_scenario(vector) for vector in load_vectors() if not vector.takes_time]


def _scenario(vector: Vector) -> Scenario:
    return Scenario(
        name=vector.name,
        steps=msgspec.convert(vector.steps, tuple[Step, ...], from_attributes=True),
        file=vector.file,
        persistence=vector.persistence,
        subprotocol=vector.subprotocol,
    )


def load_client_scenarios() -> list[ClientScenario]:
    """Return every scenario for clients."""
    return list(msgspec.json.decode(_text("client"), type=_ClientFile).scenarios)


class Core(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The profile ``core``.

    Attributes:
        scenarios: the patterns of those that belong to it.
        not_compared: the members of replies that are not looked at, by the replies' names; those
            of all replies by ``*``.
    """

    scenarios: tuple[str, ...]
    not_compared: dict[str, tuple[str, ...]]


def load_core() -> Core:
    """Return what the profile ``core`` is."""
    return msgspec.json.decode(_text("core"), type=Core)


def matches(id: str, patterns: Iterable[str]) -> bool:
    """Tell whether a scenario's id is one of `patterns`, in which ``*`` stands for anything."""
    return any(_pattern(pattern).fullmatch(id) for pattern in patterns)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*"))


T = TypeVar("T", Scenario, ClientScenario)


def choose(scenarios: Sequence[T], profile: Profile, only: Sequence[str] = ()) -> list[T]:
    """Return the scenarios of `profile`; if there are patterns in `only`, those that match one."""
    core = load_core().scenarios
    return [
        scenario
        for scenario in scenarios
        if (profile is Profile.FULL or matches(scenario.id, core))
        and (not only or matches(scenario.id, only))
    ]
