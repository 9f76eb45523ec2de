"""Ways to break the server, one at a time, to see that the conformance kit notices.

``python -m tests.conformance.breaks`` lists them, and ``python -m tests.conformance.breaks NAME
--port 0`` runs a server that is broken so, to try it by hand.
"""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ndb_protocol
import pytest
from msgspec import UNSET, Raw, structs
from ndb_protocol import RequestError, Status, decode_request, frame_lengths
from ndb_protocol import messages as m
from ndb_server import path_size
from ndb_server.dispatch import dispatcher as dispatch
from ndb_server.engine import engine, key_commands, paths
from ndb_server.engine.edits import Edit
from ndb_server.engine.engine import Engine
from ndb_server.engine.jsonpath import compare, query
from ndb_server.engine.keymap import KeyMap, unpack
from ndb_server.engine.loading import PendingLoad
from ndb_server.engine.session import Session, deadline_after
from ndb_server.errors import RefusedError
from ndb_server.server import server
from ndb_server.websocket import connection as transport
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol

from tests.support.break_registry import Breaks, Patch

BREAKS = Breaks()
breaks = BREAKS.enter


# What several of them need.


def rewrite_replies(patch: Patch, rewrite: Callable[[bytes], bytes]) -> None:
    """Change every reply on its way out."""
    original = dispatch.Dispatcher.dispatch

    async def later(coming: Awaitable[bytes]) -> bytes:
        return rewrite(await coming)

    def dispatch_(self: dispatch.Dispatcher, *args: Any) -> Any:
        replies, hold = original(self, *args)
        return [
            rewrite(reply) if isinstance(reply, bytes) else later(reply) for reply in replies
        ], hold

    patch.setattr(dispatch.Dispatcher, "dispatch", dispatch_)


def rewrite_requests(patch: Patch, rewrite: Callable[[bytes], bytes]) -> None:
    """Change every message before it is read."""
    original = dispatch.Dispatcher.dispatch

    def dispatch_(self: dispatch.Dispatcher, messages: Sequence[bytes], *args: Any) -> Any:
        return original(self, [rewrite(message) for message in messages], *args)

    patch.setattr(dispatch.Dispatcher, "dispatch", dispatch_)


def substitute(pattern: bytes, by: bytes | Callable[[re.Match[bytes]], bytes]) -> Any:
    return partial(re.compile(pattern).sub, by)


def rewrite_values(patch: Patch, rewrite: Callable[[str], str]) -> None:
    """Change the text of every value that SET stores."""

    def put(_: key_commands.Values, params: m.KeyValues) -> tuple[m.Reply, Edit]:
        values = {k: Raw(rewrite(bytes(v).decode()).encode()) for k, v in params.keys.items()}
        return m.Reply(), Edit(values)

    patch.setitem(key_commands.WRITES, "SET", put)


def breaks_replies(
    name: str, caught_by: str, pattern: bytes, by: bytes | Callable[[re.Match[bytes]], bytes]
) -> None:
    """Enter a way to break the server: what is like `pattern` in replies is replaced."""
    breaks(name, caught_by)(lambda patch: rewrite_replies(patch, substitute(pattern, by)))


def breaks_requests(
    name: str, caught_by: str, pattern: bytes, by: bytes | Callable[[re.Match[bytes]], bytes]
) -> None:
    """Enter a way to break the server: what is like `pattern` in requests is replaced."""
    breaks(name, caught_by)(lambda patch: rewrite_requests(patch, substitute(pattern, by)))


def breaks_values(name: str, caught_by: str, rewrite: Callable[[str], str]) -> None:
    """Enter a way to break the server: values are stored otherwise."""
    breaks(name, caught_by)(lambda patch: rewrite_values(patch, rewrite))


def read_differently(patch: Patch, name: str, read: Callable[[KeyMap, Any], m.Reply]) -> None:
    patch.setitem(key_commands.READS, name, read)


def write_differently(
    patch: Patch, name: str, write: Callable[[key_commands.Values, Any], tuple[m.Reply, Edit]]
) -> None:
    patch.setitem(key_commands.WRITES, name, write)


def move_deadlines(patch: Patch, by: int) -> None:
    """Let sessions expire so many milliseconds too late."""
    patch.setattr(engine, "deadline_after", lambda expiry, now: deadline_after(expiry, now + by))


def extend_on(patch: Patch, command: str, extends: ndb_protocol.Extends | None) -> None:
    row = replace(ndb_protocol.COMMANDS[command], extends=extends)
    patch.setitem(ndb_protocol.COMMANDS, command, row)


# Statuses, names and sentences.


breaks_replies("wrong-status", "KV_GET/'keys' is missing", rb'"st":26,', b'"st":41,')
breaks_replies(
    "wrong-status-for-no-session", "SH_GET/No session has this token", rb'"st":100,', b'"st":22,'
)
breaks_replies(
    "not-an-object-is-13",
    "KV_GET/The value of the command is not an object",
    rb'"st":12,',
    b'"st":13,',
)
breaks_replies(
    "done-without-saving-status",
    "KV_SAVE/All independent keys are saved",
    rb'"st":121,',
    b'"st":1,',
)
breaks_replies(
    "another-commands-name",
    "KV_CONTAINS/The keys that exist are named in the order asked",
    rb'"KV_CONTAINS_RSP"',
    b'"KV_GET_RSP"',
)
breaks_replies(
    "unknown-name-not-repeated",
    "message/A command that does not exist is answered under its own name",
    rb'\{"\w+":\{"st":10,',
    b'{"ERR":{"st":10,',
)
breaks_requests(
    "command-names-in-any-case",
    "message/Command names are upper case and complete",
    rb'^\{"\w+"',
    lambda found: found[0].upper(),
)
breaks_replies(
    "status-not-first", "KV_COUNT/Keys are counted", rb'"st":1,"cnt":(\d+)', rb'"cnt":\1,"st":1'
)
breaks_replies(
    "no-sentence",
    "message/Text that is not JSON is refused",
    rb'"m":"[^"\\]*(\\.[^"\\]*)*"',
    b'"m":""',
)
breaks_replies(
    "sentence-names-nothing",
    "KV_GET/'keys' is not an array",
    rb'"m":"[^"\\]*(\\.[^"\\]*)*"',
    b'"m":"bad request"',
)


@breaks("token-in-the-sentence", "SH_GET/The session has ended")
def _(patch: Patch) -> None:
    original = Engine._live_session

    def live(self: Engine, token: int, now: int) -> Session:
        try:
            return original(self, token, now)
        except RefusedError as error:
            raise RefusedError(error.status, f"no session {token}") from None

    patch.setattr(Engine, "_live_session", live)


breaks_replies(
    "refusal-with-members",
    "SH_COUNT/No session has this token",
    rb'"st":100,',
    b'"st":100,"tkn":null,',
)
breaks_replies(
    "reserved-name-means-something",
    "server/Names that are kept for later are commands that do not exist",
    rb'("SH_WATCH_RSP":\{"st":)10',
    rb"\g<1>14",
)


@breaks("features-not-told", "server/The features of version 1 are named")
def _(patch: Patch) -> None:
    patch.setattr(server, "FEATURES", [])


# JSON.


breaks_requests(
    "comma-behind-the-last", "message/Trailing commas are not JSON", rb",(?=[}\]])", b""
)
breaks_requests("comments-allowed", "message/Comments are not JSON", rb"/\*.*?\*/|//.*$", b"")


@breaks("session-before-parameters", "SH_GET/Parameters are checked before the session")
def _(patch: Patch) -> None:
    original = decode_request

    def decode(message: bytes) -> Any:
        try:
            return original(message)
        except RequestError as error:
            name = error.reply_name.removesuffix("_RSP")
            if name.startswith("SH_") and error.status is Status.VALUE_TYPE_INVALID:
                raise RequestError(
                    error.reply_name, Status.SESSION_NOT_EXIST, error.message
                ) from None
            raise

    patch.setattr(dispatch, "decode_request", decode)


@breaks("no-unknown-parameters", "KV_COUNT/Unknown parameters are ignored")
def _(patch: Patch) -> None:
    original = decode_request

    def decode(message: bytes) -> Any:
        command, params = original(message)
        [given] = json.loads(message).values()
        if given.keys() - {field.name for field in structs.fields(command.params)}:
            raise RequestError(command.reply_name, Status.COMMAND_SYNTAX, "unknown parameter")
        return command, params

    patch.setattr(dispatch, "decode_request", decode)
    # Every message takes the long way.
    patch.setattr(dispatch, "SHORT_WAY", {})


# Values and keys.


breaks_values(
    "number-rounded",
    "KV_SET/Numbers come back with the digits they were sent with",
    lambda text: json.dumps(json.loads(text)),
)
breaks_values(
    "1E400-to-null",
    "KV_SET/Numbers come back with the digits they were sent with",
    lambda text: text.replace("1E400", "null"),
)
breaks_values(
    "big-integer-to-string",
    "KV_SET/Numbers come back with the digits they were sent with",
    partial(re.sub, r"^\d{20,}$", lambda found: f'"{found[0]}"'),
)


@breaks("members-sorted", "KV_SET/The members of an object keep their order")
def _(patch: Patch) -> None:
    def sort(text: str) -> str:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))

    rewrite_values(patch, lambda text: sort(text) if text.startswith("{") else text)


@breaks("escapes-rewritten", "KV_SET/A string comes back with the escapes it was sent with")
def _(patch: Patch) -> None:
    def plain(text: str) -> str:
        return json.dumps(json.loads(text), ensure_ascii=False)

    rewrite_values(patch, lambda text: plain(text) if text.startswith('"') else text)


@breaks(
    "add-overwrites", "KV_ADD/Keys that do not exist are stored, existing ones are left as they are"
)
def _(patch: Patch) -> None:
    write_differently(patch, "ADD", key_commands.set_keys)


@breaks(
    "rmv-fails-on-a-missing-key", "KV_RMV/Keys are removed, those that do not exist are ignored"
)
def _(patch: Patch) -> None:
    def remove(values: key_commands.Values, params: m.SomeKeyNames) -> tuple[m.Reply, Edit]:
        if any(key not in values for key in params.keys):
            raise RefusedError(Status.KEY_NOT_EXIST, "no such key")
        return key_commands.remove_keys(values, params)

    write_differently(patch, "RMV", remove)


@breaks("overwritten-key-moves", "KV_SET/Other keys stay, and an overwritten key keeps its place")
def _(patch: Patch) -> None:
    def put(values: key_commands.Values, params: m.KeyValues) -> tuple[m.Reply, Edit]:
        return m.Reply(), Edit(params.keys, tuple(key for key in params.keys if key in values))

    write_differently(patch, "SET", put)


@breaks("get-in-stored-order", "KV_GET/The keys that exist are returned in the order asked")
def _(patch: Patch) -> None:
    def get(keymap: KeyMap, params: m.KeyNames) -> m.ValuesReply:
        values = unpack(keymap)
        return m.ValuesReply(keys={k: values[k] for k in values if k in params.keys})

    read_differently(patch, "GET", get)


@breaks("keys-sorted", "KV_KEYS/Keys are listed in the order they were inserted")
def _(patch: Patch) -> None:
    read_differently(patch, "KEYS", lambda keymap, _: m.KeyListReply(keys=sorted(unpack(keymap))))


@breaks("clear-set-keeps-the-rest", "KV_CLEAR_SET/All keys are replaced; those removed are counted")
def _(patch: Patch) -> None:
    def clear_set(values: key_commands.Values, params: m.KeyValues) -> tuple[m.Reply, Edit]:
        return m.CountReply(cnt=len(values)), Edit(params.keys)

    write_differently(patch, "CLEAR_SET", clear_set)


@breaks("cleared-not-counted", "KV_CLEAR/All keys are removed and counted")
def _(patch: Patch) -> None:
    write_differently(patch, "CLEAR", lambda *_: (m.CountReply(cnt=0), Edit(clear=True)))


@breaks("keys-mix", "message/A session and the independent keys never mix")
def _(patch: Patch) -> None:
    def counted(self: Engine, _: m.Params, __: int) -> m.CountReply:
        return m.CountReply(cnt=len(self._keys) + self._session_key_count)

    original = Engine.__init__

    def init(self: Engine, **options: Any) -> None:
        original(self, **options)
        self.handlers = {**self.handlers, "KV_COUNT": partial(counted, self)}

    patch.setattr(Engine, "__init__", init)


@breaks("update-writes-all-anew", "KV_UPDATE/One node is set; the rest stays byte for byte")
def _(patch: Patch) -> None:
    original = paths.replace

    def anew(*args: Any) -> bytes:
        return json.dumps(json.loads(original(*args))).encode()

    patch.setattr(paths, "replace", anew)


@breaks(
    "find-ignores-keys", "KV_FIND/'keys' restricts the search; names that do not exist are ignored"
)
def _(patch: Patch) -> None:
    def find(keymap: KeyMap, params: m.Find) -> m.Reply:
        return key_commands.find_keys(keymap, structs.replace(params, keys=UNSET))

    read_differently(patch, "FIND", find)


@breaks("ignored-keys-name-all", "KV_FIND/'keys' whose elements are all ignored names no key")
def _(patch: Patch) -> None:
    def find(keymap: KeyMap, params: m.Find) -> m.Reply:
        return key_commands.find_keys(keymap, structs.replace(params, keys=params.keys or UNSET))

    read_differently(patch, "FIND", find)


@breaks(
    "true-is-one", "KV_FIND/A filter compares values of one type, and nothing else, at any depth"
)
def _(patch: Patch) -> None:
    patch.setitem(compare.OPERATORS, "==", lambda left, right, _: left == right)


@breaks(
    "there-if-it-is-something",
    "KV_FIND/A filter tests whether a node is there, whatever its value",
)
def _(patch: Patch) -> None:
    patch.setattr(query.Query, "is_true", lambda self, *args: bool(self.value(*args)))


# Tokens.


@breaks("token-rounded", "SH_NEW/A session is created; without settings it never expires")
def _(patch: Patch) -> None:
    def rounded(found: re.Match[bytes]) -> bytes:
        # Further than a double would: that leaves one in two thousand as it is.
        return b'"tkn":%d' % round(int(found[1]), -9)

    rewrite_replies(patch, substitute(rb'"tkn":(\d{16,})', rounded))


@breaks("token-as-number-on-text", "transport/On ndb.v1.text tokens in replies are strings")
def _(patch: Patch) -> None:
    patch.setattr(dispatch, "with_text_tokens", lambda reply: reply)


breaks_replies(
    "token-as-text-on-all",
    "transport/Without a subprotocol tokens in replies are numbers",
    rb'"tkn":(\d+)',
    rb'"tkn":"\1"',
)
breaks_requests(
    "token-as-text-not-taken", "SH_GET/A token may be sent as text", rb'"tkn":"\d+"', b'"tkn":"x"'
)


@breaks("exists-sorted", "SH_EXISTS/Those that exist are returned in the order asked")
def _(patch: Patch) -> None:
    original = Engine._exists

    def exists(self: Engine, params: m.Sessions, now: int) -> m.ExistReply:
        found = original(self, params, now).exist
        return m.ExistReply(exist=found[::-1] if len(found) > 1 else found)

    patch.setattr(Engine, "_exists", exists)


# Expiry.


def _sweep_only(patch: Patch) -> None:
    """Let sessions expire when the server looks for them, which it does every five seconds."""

    def found(self: Engine, token: int, _: int) -> Session:
        session = self._sessions.get(token)
        if session is None:
            raise RefusedError(Status.SESSION_NOT_EXIST, "no session")
        return session

    patch.setattr(Engine, "_live_session", found)
    patch.setattr(Engine, "_is_live", lambda self, token, _: token in self._sessions)
    patch.setattr(server, "_REAP_INTERVAL", 5.0)


@breaks(
    "sweep-instead-of-exact-expiry",
    "expiry/With 'deleteSession' the session is there before its deadline and gone at it",
)
def _(patch: Patch) -> None:
    _sweep_only(patch)


@breaks("expired-session-revived", "expiry/Nothing revives a session that has expired")
def _(patch: Patch) -> None:
    _sweep_only(patch)


@breaks(
    "expires-late",
    "expiry/With 'deleteSession' the session is there before its deadline and gone at it",
)
def _(patch: Patch) -> None:
    move_deadlines(patch, 300)


@breaks(
    "expires-early",
    "expiry/With 'deleteSession' the session is there before its deadline and gone at it",
)
def _(patch: Patch) -> None:
    move_deadlines(patch, -600)


@breaks(
    "session-survives-its-deadline",
    "expiry/Every command finds a session with 'deleteSession' gone at its deadline",
)
def _(patch: Patch) -> None:
    original = Engine._expire

    def expire(self: Engine, token: int, session: Session, now: int) -> Session | None:
        assert session.expiry is not None
        session.expiry = structs.replace(session.expiry, deleteSession=False)
        return original(self, token, session, now)

    patch.setattr(Engine, "_expire", expire)


@breaks(
    "next-period-begins-at-use",
    "expiry/Without 'deleteSession' the next period begins at the deadline, not when the session is "
    "next used",
)
def _(patch: Patch) -> None:
    original = Engine._expire

    def expire(self: Engine, token: int, session: Session, now: int) -> Session | None:
        living = original(self, token, session, now)
        if living is not None and living.expiry is not None:
            living.deadline = deadline_after(living.expiry, now)
        return living

    patch.setattr(Engine, "_expire", expire)
    # Only who uses the session lets it expire.
    patch.setattr(Engine, "reap", lambda *_: False)


@breaks(
    "get-does-not-extend", "expiry/With 'extendOnGet' SH_GET moves the deadline to now + 'duration'"
)
def _(patch: Patch) -> None:
    extend_on(patch, "SH_GET", None)


@breaks("find-extends", "expiry/Commands that neither get nor store never move the deadline")
def _(patch: Patch) -> None:
    extend_on(patch, "SH_FIND", ndb_protocol.Extends.ON_GET)


@breaks("remaining-rounded-down", "expiry/'remaining' is the seconds left, rounded up")
def _(patch: Patch) -> None:
    def less(found: re.Match[bytes]) -> bytes:
        return b'"remaining":%d' % (int(found[1]) - 1)

    rewrite_replies(patch, substitute(rb'"remaining":(\d+)', less))


# Saving and loading.


@breaks(
    "load-overwrites-existing",
    "SH_LOAD/A session that exists already is not changed and not counted",
)
def _(patch: Patch) -> None:
    def end_existing(self: Engine, pending: PendingLoad, _: int) -> list[int]:
        for token in pending.sessions.keys() & self._sessions.keys():
            self._end_session(token, self._sessions[token])
        return []

    patch.setattr(Engine, "drop_existing", end_existing)


@breaks(
    "load-continues-the-old-period", "expiry/A loaded session gets its full 'duration' from now"
)
def _(patch: Patch) -> None:
    original = Engine.load

    def load(self: Engine, pending: PendingLoad, now: int, staged: Any) -> Any:
        return original(self, pending, now - 600, staged)

    patch.setattr(Engine, "load", load)


@breaks("load-clears-other-keys", "KV_LOAD/Keys loaded overwrite, others stay")
def _(patch: Patch) -> None:
    original = Engine.load

    def load(self: Engine, *args: Any) -> Any:
        self._keys.clear()
        return original(self, *args)

    patch.setattr(Engine, "load", load)


@breaks(
    "dataset-name-not-checked",
    "KV_SAVE/'name' is not the name of a dataset, and no file is touched",
)
def _(patch: Patch) -> None:
    def named(found: re.Match[bytes]) -> bytes:
        return b'"name":"%b"' % re.sub(rb"[^A-Za-z0-9]", b"_", found[1])

    rewrite_requests(patch, substitute(rb'"name":"([./][^"]{1,60})"', named))


# Limits.


def keep(patch: Patch, **limits: int) -> None:
    """Keep other limits than are told."""

    def engine_(**options: Any) -> Engine:
        return Engine(**options | {"limits": replace(options["limits"], **limits)})

    patch.setattr(server, "Engine", engine_)


AT_KEYS = "limits/A session has limits.keys keys at the most; more are refused with 201"


@breaks("a-key-more-than-told", AT_KEYS)
def _(patch: Patch) -> None:
    keep(patch, keys=10_001)


@breaks("a-key-less-than-told", AT_KEYS)
def _(patch: Patch) -> None:
    keep(patch, keys=9_999)


@breaks(
    "bytes-taken-for-characters",
    "limits/A key's name has limits.keyLength characters at the most; a longer one is refused with "
    "201",
)
def _(patch: Patch) -> None:
    def check(self: Engine, edit: Edit) -> None:
        if any(len(key.encode()) > self._limits.key_length for key in edit.put):
            raise RefusedError(Status.LIMIT_EXCEEDED, "too long")

    patch.setattr(Engine, "_check_names", check)


@breaks(
    "any-number-of-steps",
    "limits/A path that leads through more than limits.steps values is refused with 201",
)
def _(patch: Patch) -> None:
    keep(patch, steps=0)


@breaks(
    "a-path-as-long-as-it-likes",
    "limits/A path has limits.pathLength characters at the most; a longer one is refused with 42",
)
def _(patch: Patch) -> None:
    patch.setattr(path_size, "MAX_PATH_LENGTH", 2**20)


@breaks(
    "a-path-as-deep-as-it-likes",
    "limits/A path nests limits.pathDepth levels at the most; a deeper one is refused with 42",
)
def _(patch: Patch) -> None:
    patch.setattr(path_size, "MAX_PATH_DEPTH", 2**20)


@breaks(
    "deeper-with-each-update",
    "limits/An update makes a value of limits.depth levels at the most; a deeper one is refused "
    "with 201",
)
def _(patch: Patch) -> None:
    patch.setattr(key_commands, "nests_deeper", lambda *_: False)


@breaks(
    "as-deep-as-it-likes",
    "limits/A message nests limits.depth levels at the most; a deeper one is refused with 3",
)
def _(patch: Patch) -> None:
    patch.setattr(dispatch, "nests_deeper", lambda *_: False)


# Transport.


def change_replies(patch: Patch, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change which replies leave together."""
    original = transport.Connection._send

    def send(self: transport.Connection, texts: Sequence[bytes]) -> None:
        original(self, change([*texts]))

    patch.setattr(transport.Connection, "_send", send)


@breaks("reply-dropped", "transport/Requests that share a write are all answered")
def _(patch: Patch) -> None:
    change_replies(patch, lambda texts: texts[:1])


@breaks(
    "reply-out-of-order",
    "transport/Requests that share a write are all answered",
)
def _(patch: Patch) -> None:
    change_replies(patch, lambda texts: texts[::-1])


@breaks("reply-twice", "KV_COUNT/Keys are counted")
def _(patch: Patch) -> None:
    change_replies(patch, lambda texts: texts + [text for text in texts if b'"cnt":' in text])


@breaks("later-reply-overtakes", "transport/A request that takes long has its reply in its place")
def _(patch: Patch) -> None:
    original = transport.Connection._answer
    answering: list[asyncio.Future[None] | None] = []

    def answer(self: transport.Connection, messages: Sequence[bytes], now: int) -> int:
        run = original(self, messages, now)
        # The next request no longer waits for the one that takes long.
        answering.append(self._answering)
        self._answering = None
        return run

    patch.setattr(transport.Connection, "_answer", answer)


@breaks("fragment-is-a-message", "transport/A message in fragments is one request")
def _(patch: Patch) -> None:
    def hand_over(self: transport.Connection, data: bytes) -> bytes | None:
        text = None
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Frame) and event.opcode in {Opcode.TEXT, Opcode.CONT}:
                text = bytes(event.data)
        self._write(self._ws.data_to_send())
        return text

    patch.setattr(transport.Connection, "_hand_over", hand_over)


@breaks(
    "binary-is-a-request",
    "transport/A binary message is answered with status 2, and the connection stays open",
)
def _(patch: Patch) -> None:
    def answer(self: transport.Connection, message: bytes) -> None:
        self._answer([message], self._clock())

    patch.setattr(transport.Connection, "_answer_binary", answer)


@breaks(
    "binary-closes",
    "transport/A binary message is answered with status 2, and the connection stays open",
)
def _(patch: Patch) -> None:
    def refuse(self: transport.Connection, _: bytes) -> None:
        self._ws.fail(CloseCode.UNSUPPORTED_DATA, "binary")

    patch.setattr(transport.Connection, "_answer_binary", refuse)


@breaks(
    "bad-utf-8-is-taken",
    "transport/A message that is not UTF-8 closes the connection with 1007 and a reason",
)
def _(patch: Patch) -> None:
    patch.setattr(transport, "not_utf8", lambda _: "")


@breaks(
    "closes-without-a-reason",
    "transport/A message over limits.messageSize closes the connection with 1009 and a reason",
)
def _(patch: Patch) -> None:
    original = Protocol.fail

    def fail(self: Protocol, code: int, _: str = "") -> None:
        original(self, code)

    patch.setattr(Protocol, "fail", fail)


@breaks("takes-less-than-it-says", "transport/A message of limits.messageSize bytes is taken")
def _(patch: Patch) -> None:
    original = server._shown

    def shown(options: server.Options) -> m.Limits:
        limits = original(options)
        limits.messageSize *= 2
        return limits

    patch.setattr(server, "_shown", shown)


@breaks("pong-without-payload", "transport/A ping is answered by a pong with its payload")
def _(patch: Patch) -> None:
    original = Protocol.send_frame

    def send(self: Protocol, frame: Frame) -> None:
        original(self, replace(frame, data=b"") if frame.opcode is Opcode.PONG else frame)

    patch.setattr(Protocol, "send_frame", send)


@breaks("subprotocol-not-chosen", "transport/On ndb.v1.text tokens in replies are strings")
def _(patch: Patch) -> None:
    patch.setattr(transport, "select_subprotocol", lambda *_: None)


@breaks(
    "subprotocol-by-taste",
    "transport/Of two known subprotocols the first offered is chosen: ndb.v1",
)
def _(patch: Patch) -> None:
    original = transport.select_subprotocol
    patch.setattr(transport, "select_subprotocol", lambda ws, offered: original(ws, offered[::-1]))


@breaks(
    "reads-on-while-nobody-reads",
    "transport/The server stops reading from a client that does not read, and drops nothing",
)
def _(patch: Patch) -> None:
    patch.setattr(transport.Connection, "pause_writing", lambda _: None)
    patch.setattr(transport.Connection, "resume_writing", lambda _: None)


@breaks(
    "runs-what-stands-behind-a-close-frame",
    "transport/Requests in front of a close frame are answered, those behind it are not",
)
def _(patch: Patch) -> None:
    def move_behind(data: bytes) -> bytes:
        close = data.find(b"\x88\x82")
        return data if close < 0 else data[:close] + data[close + 8 :] + data[close : close + 8]

    original = transport.Connection.data_received
    patch.setattr(
        transport.Connection, "data_received", lambda self, data: original(self, move_behind(data))
    )


@breaks(
    "16-bits-for-any-length",
    "transport/A length of 16 bits that fits into 7 closes the connection with 1002 and a reason",
)
def _(patch: Patch) -> None:
    patch.setitem(frame_lengths.LEAST, 2, 0)


@breaks(
    "64-bits-from-126-on",
    "transport/A length of 64 bits that fits into fewer closes the connection with 1002 and a reason",
)
def _(patch: Patch) -> None:
    patch.setitem(frame_lengths.LEAST, 8, 126)


@breaks(
    "most-significant-bit-makes-it-large",
    "transport/A length whose most significant bit is set closes the connection with 1002 and a "
    "reason",
)
def _(patch: Patch) -> None:
    original = frame_lengths.length_violation
    patch.setattr(
        transport,
        "length_violation",
        lambda first, length, wide: original(first, length & (2**63 - 1) or 2**16, wide),
    )


def lengths_of_whole_messages_alone(patch: Patch) -> None:
    """Hold no other frames than whole text messages to RFC 6455, section 5.2."""
    patch.setattr(transport, "length_violation", lambda *_: "")


breaks(
    "any-length-of-a-continuation",
    "transport/A continuation with a length that is not allowed closes the connection with 1002 and "
    "a reason",
)(lengths_of_whole_messages_alone)
breaks(
    "any-length-of-a-ping",
    "transport/A control frame with a length that is not allowed closes the connection with 1002 "
    "and a reason",
)(lengths_of_whole_messages_alone)


@breaks(
    "pings-as-large-as-they-like",
    "transport/A control frame of more than 125 bytes closes the connection with 1002 and a reason",
)
def _(patch: Patch) -> None:
    original = frame_lengths.length_violation
    patch.setattr(transport, "length_violation", lambda _, *length: original(0x81, *length))
    patch.setattr(Frame, "check", lambda _: None)


@breaks(
    "runs-what-stands-behind-a-length-that-is-not-allowed",
    "transport/Requests in front of a length that is not allowed are answered, those behind it are "
    "not",
)
def _(patch: Patch) -> None:
    def leave_out(data: bytes) -> bytes:
        wrong = data.find(b"\x81\xfe\x00\x0f")
        return data if wrong < 0 else data[:wrong] + data[wrong + 8 + 15 :]

    original = transport.Connection.data_received
    patch.setattr(
        transport.Connection, "data_received", lambda self, data: original(self, leave_out(data))
    )


@breaks("16-bits-in-replies", "KV_COUNT/Keys are counted")
def _(patch: Patch) -> None:
    headers = [b"\x81\x7e" + size.to_bytes(2) for size in range(126)]
    patch.setattr(transport, "_SHORT_HEADERS", headers)


def table() -> str:
    """Return the list for the documentation."""
    rows = [f"| `{one.name}` | {one.caught_by} |" for one in BREAKS.values()]
    return "\n".join(["| the server broken so | is caught by |", "| --- | --- |", *rows, ""])


def main(arguments: list[str]) -> None:
    if not arguments:
        print(table(), end="")
        return
    name, *options = arguments
    BREAKS[name].apply(pytest.MonkeyPatch())
    from ndb_server.cli.main import main as run

    run(options)


if __name__ == "__main__":
    main(sys.argv[1:])
