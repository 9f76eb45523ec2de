"""Saving and loading: the commands, on an engine and a folder of their own."""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ndb_protocol import Status
from ndb_server.dispatch.dispatcher import Dispatcher
from ndb_server.engine.engine import Engine
from ndb_server.engine.session import Session
from ndb_server.errors import RefusedError
from ndb_server.limits import UNLIMITED, Limits
from ndb_server.storage.dataset_commands import DatasetCommands

from tests.support.mounted_disks import mounted

NAMES = ["evening", "a", "A.b_c-9", "0", "-", "_", "a.", "a..b", "x" * 64, "CON", "a.sqlite"]
NO_NAMES = [
    "",
    ".",
    "..",
    ".a",
    "../x",
    "a/b",
    "/x",
    "a\\b",
    "a b",
    "x" * 65,
    "ä",
    "a\n",
    "a\0",
    "~",
]

VALUES = {
    "": '{"b":1,"a":[null,true,"\\u0000"]}',
    "\0": "1E400",
    "nul\0inside": "1.50",
    "🌍 ключ": '"世界 🌍"',
    "number": "123456789012345678901234567890",
    "-0": "-0.0",
    "large": '"' + "x" * 1_000_000 + '"',
    "nested": "[" * 500 + "]" * 500,
    "escaped": '"\\u00e4\\/\\ud83c\\udf0d"',
    "twice": '{"a":1,"a":2}',
    "'; DROP TABLE keys; --": "{}",
}
"""Keys with the JSON text of their values."""


class Store:
    """The commands of a server, and its time."""

    def __init__(self, folder: Path | None, limits: Limits = UNLIMITED) -> None:
        self.now = 1_700_000_000_000
        self.engine = Engine(limits=limits)
        self.datasets = DatasetCommands(self.engine, folder, lambda: self.now, limits=limits)
        self._dispatcher = Dispatcher({**self.engine.handlers, **self.datasets.handlers})

    async def answer(self, message: str) -> str:
        [reply], _ = self._dispatcher.dispatch([message.encode()], self.now)
        return (await reply if isinstance(reply, Awaitable) else reply).decode()

    async def ask(self, command: str, **params: Any) -> dict[str, Any]:
        """Send a request and return the body of the reply."""
        [(name, body)] = json.loads(await self.answer(json.dumps({command: params}))).items()
        assert name == f"{command}_RSP"
        assert isinstance(body, dict)
        return body

    async def new(self, **expiry: Any) -> int:
        """Create a session and return its token."""
        reply = await self.ask("SH_NEW", **({"expiry": expiry} if expiry else {}))
        token: int = reply["tkn"]
        return token

    async def everything(self) -> tuple[str, ...]:
        """Return all there is, as text."""
        tokens = [token for token, _ in self.engine.snapshot(self.now)]
        asked = [
            '{"SH_INFO_ALL":{}}',
            *('{"SH_INFO":{"tkn":%d}}' % token for token in tokens),
            *('{"SH_KEYS":{"tkn":%d}}' % token for token in tokens),
            '{"KV_FIND":{"path":"$","rsp":"kv"}}',
        ]
        return tuple([await self.answer(message) for message in asked])


@contextmanager
def stored(folder: Path | None, limits: Limits = UNLIMITED) -> Iterator[Store]:
    store = Store(folder, limits)
    try:
        yield store
    finally:
        store.datasets.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with stored(folder) as store:
        yield store


@pytest.fixture
def other(folder: Path) -> Iterator[Store]:
    """The store of another server, with the same folder."""
    with stored(folder) as store:
        yield store


def files(folder: Path) -> list[str]:
    """Return what is in `folder`, at any depth, but for folders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def no_duration(reply: dict[str, Any]) -> dict[str, Any]:
    """Return `reply` without the duration, which is in whole milliseconds."""
    assert type(reply["duration"]) is int
    assert reply["duration"] >= 0
    return {name: value for name, value in reply.items() if name != "duration"}


# Names

SAVE_AND_LOAD = pytest.mark.parametrize("command", ["SH_SAVE", "SH_LOAD", "KV_SAVE", "KV_LOAD"])


@SAVE_AND_LOAD
@pytest.mark.parametrize("name", NO_NAMES)
async def test_what_is_no_name_touches_no_file(
    store: Store, folder: Path, command: str, name: str
) -> None:
    reply = await store.ask(command, name=name)
    assert reply["st"] == Status.VALUE_SIZE
    assert "'name'" in reply["m"]
    assert files(folder.parent) == []


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_saved_and_loaded(store: Store, name: str) -> None:
    await store.ask("KV_SET", keys={"a": 1})
    saved = no_duration(await store.ask("KV_SAVE", name=name))
    assert saved == {"st": Status.SAVE_COMPLETE, "name": name, "keys": 1}
    loaded = no_duration(await store.ask("KV_LOAD", name=name))
    assert loaded == {"st": Status.LOAD_COMPLETE, "name": name, "keys": 1}


async def test_sessions_and_independent_keys_do_not_share_names(store: Store) -> None:
    await store.new()
    await store.ask("SH_SAVE", name="a")
    assert (await store.ask("KV_LOAD", name="a"))["st"] == Status.LOAD_ERROR


@pytest.mark.parametrize("command", ["SH_LOAD", "KV_LOAD"])
async def test_a_name_that_was_never_saved_is_not_loaded(store: Store, command: str) -> None:
    reply = await store.ask(command, name="never")
    assert reply["st"] == Status.LOAD_ERROR
    assert "'never'" in reply["m"]


# Sessions


async def test_every_save_is_a_dataset_of_its_own_and_the_newest_is_loaded(
    store: Store, other: Store, folder: Path
) -> None:
    tkn = await store.new()
    for number in range(12):
        await store.ask("SH_SET", tkn=tkn, keys={"number": number})
        await store.ask("SH_SAVE", name="a")
    assert len(files(folder)) == 12
    await other.ask("SH_LOAD", name="a")
    assert (await other.ask("SH_GET", tkn=tkn, keys=["number"]))["keys"] == {"number": 11}


@pytest.mark.parametrize("kind", ["SH", "KV"])
async def test_an_empty_save_loads(store: Store, kind: str) -> None:
    counts = {"sessions": 0, "keys": 0} if kind == "SH" else {"keys": 0}
    saved = no_duration(await store.ask(f"{kind}_SAVE", name="empty"))
    assert saved == {"st": Status.SAVE_COMPLETE, "name": "empty", **counts}
    loaded = await store.ask(f"{kind}_LOAD", name="empty")
    loaded.pop("duration", None)
    assert loaded == {"st": Status.LOAD_COMPLETE, "name": "empty", **counts}


async def test_a_loaded_session_has_its_token_settings_and_full_duration(
    store: Store, other: Store
) -> None:
    settings = [
        {"duration": 60, "deleteSession": d, "extendOnSetAdd": s, "extendOnGet": g}
        for d in (False, True)
        for s in (False, True)
        for g in (False, True)
    ]
    tokens = [await store.new(**expiry) for expiry in settings]
    forever = await store.new()
    store.now += 45_000
    reply = no_duration(await store.ask("SH_SAVE", name="a"))
    assert reply == {"st": Status.SAVE_COMPLETE, "name": "a", "sessions": 9, "keys": 0}
    other.now = store.now + 86_400_000
    reply = await other.ask("SH_LOAD", name="a")
    assert reply == {"st": Status.LOAD_COMPLETE, "name": "a", "sessions": 9, "keys": 0}
    for tkn, expiry in zip(tokens, settings, strict=True):
        info = await other.ask("SH_INFO", tkn=tkn)
        assert info["expiry"] == {**expiry, "remaining": 60}
    assert (await other.ask("SH_INFO", tkn=forever))["expires"] is False
    other.now += 60_000
    assert (await other.ask("SH_INFO_ALL"))["totalSessions"] == 5


async def test_the_time_a_loaded_session_has_counts_from_when_it_is_loaded(store: Store) -> None:
    tkn = await store.new(duration=2, deleteSession=True)
    await store.ask("SH_SAVE", name="a")
    await store.ask("SH_END", tkn=tkn)
    store.now += 10_000
    await store.ask("SH_LOAD", name="a")
    store.now += 1_999
    assert (await store.ask("SH_COUNT", tkn=tkn))["st"] == Status.OK
    store.now += 1
    assert (await store.ask("SH_COUNT", tkn=tkn))["st"] == Status.SESSION_NOT_EXIST


async def test_an_expired_session_is_not_saved(store: Store) -> None:
    await store.new(duration=1, deleteSession=True)
    store.now += 1000
    assert (await store.ask("SH_SAVE", name="a"))["sessions"] == 0


async def test_a_session_that_exists_is_not_changed_and_not_counted(store: Store) -> None:
    kept, gone = await store.new(duration=60), await store.new()
    for tkn in (kept, gone):
        await store.ask("SH_SET", tkn=tkn, keys={"a": "saved", "b": "saved"})
    await store.ask("SH_SAVE", name="a")
    await store.ask("SH_END", tkn=gone)
    await store.ask("SH_CLEAR_SET", tkn=kept, keys={"a": "changed"})
    store.now += 10_000
    reply = await store.ask("SH_LOAD", name="a")
    assert reply == {"st": Status.LOAD_COMPLETE, "name": "a", "sessions": 1, "keys": 2}
    assert (await store.ask("SH_GET", tkn=kept, keys=["a", "b"]))["keys"] == {"a": "changed"}
    assert (await store.ask("SH_INFO", tkn=kept))["expiry"]["remaining"] == 50
    assert (await store.ask("SH_COUNT", tkn=gone))["cnt"] == 2
    assert (await store.ask("SH_INFO_ALL"))["totalKeys"] == 3


async def test_only_the_sessions_asked_for_are_saved(store: Store, other: Store) -> None:
    tokens = [await store.new() for _ in range(3)]
    for tkn in tokens:
        await store.ask("SH_SET", tkn=tkn, keys={"a": 1})
    unknown = next(number for number in range(1, 9) if number not in tokens)
    asked = [tokens[0], unknown, tokens[2], tokens[0]]
    reply = no_duration(await store.ask("SH_SAVE", name="a", tkns=asked))
    assert reply == {"st": Status.SAVE_COMPLETE, "name": "a", "sessions": 2, "keys": 2}
    await other.ask("SH_LOAD", name="a")
    assert (await other.ask("SH_EXISTS", tkns=tokens))["exist"] == [tokens[0], tokens[2]]


async def test_a_save_of_unknown_sessions_alone_is_empty(store: Store) -> None:
    assert (await store.ask("SH_SAVE", name="a", tkns=[1]))["sessions"] == 0
    assert (await store.ask("SH_LOAD", name="a"))["st"] == Status.LOAD_COMPLETE


async def test_a_save_is_of_the_moment_of_its_request(store: Store, other: Store) -> None:
    tkn = await store.new()
    await store.ask("SH_SET", tkn=tkn, keys={"a": "then"})
    saving = store.ask("SH_SAVE", name="a")
    begun = await _begin(saving)
    await store.ask("SH_SET", tkn=tkn, keys={"a": "later", "b": "later"})
    await begun
    await other.ask("SH_LOAD", name="a")
    assert (await other.ask("SH_GET", tkn=tkn, keys=["a", "b"]))["keys"] == {"a": "then"}


async def _begin(request: Awaitable[Any]) -> "asyncio.Future[Any]":
    """Let a request begin, and return the rest of it."""
    begun = asyncio.ensure_future(request)
    await asyncio.sleep(0)
    assert not begun.done()
    return begun


# Values


@pytest.mark.parametrize("kind", ["SH", "KV"])
async def test_keys_and_values_come_back_as_they_were_spelt(
    store: Store, other: Store, kind: str
) -> None:
    tkn = await store.new()
    keys = ",".join(f"{json.dumps(key)}:{value}" for key, value in VALUES.items())
    assert await store.answer(f'{{"{kind}_SET":{{"tkn":{tkn},"keys":{{{keys}}}}}}}') == (
        f'{{"{kind}_SET_RSP":{{"st":1}}}}'
    )
    names = f'{{"{kind}_GET":{{"tkn":{tkn},"keys":{json.dumps([*VALUES])}}}}}'
    before = await store.answer(names)
    assert all(value in before for value in VALUES.values())
    saved = await store.ask(f"{kind}_SAVE", name="a")
    assert (saved["st"], saved["keys"]) == (Status.SAVE_COMPLETE, len(VALUES))
    loaded = await other.ask(f"{kind}_LOAD", name="a")
    assert (loaded["st"], loaded["keys"]) == (Status.LOAD_COMPLETE, len(VALUES))
    assert await other.answer(names) == before
    order = (await other.ask(f"{kind}_KEYS", tkn=tkn))["keys"]
    assert order == [*VALUES]


async def test_loaded_keys_overwrite_and_others_stay(store: Store) -> None:
    await store.ask("KV_SET", keys={"a": "saved", "b": "saved"})
    await store.ask("KV_SAVE", name="a")
    await store.ask("KV_CLEAR_SET", keys={"c": "stays", "a": "changed"})
    reply = no_duration(await store.ask("KV_LOAD", name="a"))
    assert reply == {"st": Status.LOAD_COMPLETE, "name": "a", "keys": 2}
    keys = (await store.ask("KV_GET", keys=["a", "b", "c"]))["keys"]
    assert keys == {"a": "saved", "b": "saved", "c": "stays"}


async def test_more_than_a_slice_is_loaded(store: Store, other: Store) -> None:
    keys = {str(number): number for number in range(1234)}
    await store.ask("KV_SET", keys=keys)
    for _ in range(1234):
        await store.new()
    await store.ask("KV_SAVE", name="a")
    await store.ask("SH_SAVE", name="a")
    assert (await other.ask("KV_LOAD", name="a"))["keys"] == 1234
    assert (await other.ask("SH_LOAD", name="a"))["sessions"] == 1234
    assert (await other.ask("KV_GET", keys=[*keys]))["keys"] == keys
    assert (await other.ask("SH_INFO_ALL"))["totalSessions"] == 1234


# Loads that are beyond a limit

BEYOND = {
    "sessions": (Limits(sessions=4), "there would be 5 sessions; 4 are allowed"),
    "memory": (Limits(memory=5000), "memory limit is reached"),
    "keys": (Limits(keys=2), "a session has 3 keys; 2 are allowed"),
    "key_length": (Limits(key_length=19), "a key has 20 characters; 19 are allowed"),
    "depth": (Limits(depth=12), "a value nests deeper than a message may, 12"),
}
"""What is beyond each limit, given `saved_beyond`, and what is said of it."""


async def saved_beyond(store: Store) -> None:
    """Save sessions and keys; each limit of `BEYOND` is too little for both."""
    keys = {"k" * 20: 1, "deep": json.loads("[" * 10 + "]" * 10), "large": "x" * 2000}
    for _ in range(3):
        tkn = await store.new(duration=60)
        await store.ask("SH_SET", tkn=tkn, keys=keys)
    await store.ask("KV_SET", keys=keys | {"more": "x" * 5000})
    await store.ask("SH_SAVE", name="a")
    await store.ask("KV_SAVE", name="a")


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        *((kind, limit) for kind in ("SH", "start") for limit in BEYOND),
        *(("KV", limit) for limit in BEYOND if limit not in {"sessions", "keys"}),
    ],
)
async def test_a_load_beyond_a_limit_is_refused_as_a_whole(
    store: Store, folder: Path, kind: str, limit: str
) -> None:
    await saved_beyond(store)
    limits, said = BEYOND[limit]
    with stored(folder, limits) as other:
        for _ in range(2):
            await other.new()
        await other.ask("KV_SET", keys={"large": 1})
        before = await other.everything()
        if kind == "start":
            with pytest.raises(RefusedError, match=said) as caught:
                await other.datasets.load("a")
            assert caught.value.status == Status.LOAD_ERROR
        else:
            reply = await other.ask(f"{kind}_LOAD", name="a")
            assert reply["st"] == Status.LOAD_ERROR
            assert said in reply["m"]
        assert await other.everything() == before
        assert other.engine.limits_reached == {limit: 1}


@pytest.mark.parametrize("kind", ["SH", "KV"])
async def test_a_load_that_just_fits_is_done(store: Store, folder: Path, kind: str) -> None:
    await saved_beyond(store)
    limits = Limits(sessions=3, keys=3, key_length=20, depth=13)
    with stored(folder, limits) as other:
        assert (await other.ask(f"{kind}_LOAD", name="a"))["st"] == Status.LOAD_COMPLETE


async def test_nothing_makes_room_for_a_load(store: Store, folder: Path) -> None:
    await saved_beyond(store)
    with stored(folder, Limits(memory=5000, evict=True)) as other:
        tkn = await other.new(duration=60)
        assert (await other.ask("SH_LOAD", name="a"))["st"] == Status.LOAD_ERROR
        assert (await other.ask("SH_COUNT", tkn=tkn))["st"] == Status.OK


async def test_sessions_that_are_there_or_have_expired_do_not_count_against_a_load(
    store: Store, folder: Path
) -> None:
    tokens = [await store.new() for _ in range(3)]
    await store.ask("SH_SAVE", name="a")
    with stored(folder, Limits(sessions=3)) as other:
        assert (await other.ask("SH_LOAD", name="a"))["sessions"] == 3
        assert (await other.ask("SH_LOAD", name="a"))["sessions"] == 0
        await other.ask("SH_END", tkn=tokens[0])
        await other.new(duration=1, deleteSession=True)
        other.now += 1000
        assert (await other.ask("SH_LOAD", name="a"))["sessions"] == 1


class Full(dict[int, Session]):
    """Sessions for which there is no memory."""

    def update(self, *_: object, **__: object) -> None:
        raise MemoryError


async def test_a_load_that_there_is_no_memory_for_is_refused(store: Store, other: Store) -> None:
    await store.new()
    await store.ask("SH_SAVE", name="a")
    other.engine._sessions = Full()
    reply = await other.ask("SH_LOAD", name="a")
    assert (reply["st"], reply["m"]) == (Status.LOAD_ERROR, "the server ran out of memory")
    assert other.engine.totals == (0, 0, 0)


# Saves that fail


def no_folder_can_be_made(folder: Path) -> None:
    folder.mkdir()
    (folder / "datasets").write_text("in the way")


def no_file_can_be_made(folder: Path) -> None:
    for kind in ("sessions", "keys"):
        (folder / "datasets" / kind / "a" / "000001.partial").mkdir(parents=True)


@pytest.mark.parametrize("kind", ["SH", "KV"])
@pytest.mark.parametrize("obstruct", [no_folder_can_be_made, no_file_can_be_made])
async def test_a_save_that_fails_says_why_and_leaves_nothing(
    store: Store, folder: Path, kind: str, obstruct: Callable[[Path], None]
) -> None:
    obstruct(folder)
    before = files(folder)
    reply = await store.ask(f"{kind}_SAVE", name="a")
    assert reply["st"] == Status.SAVE_ERROR
    assert "'a'" in reply["m"]
    # What is where on the server's machine is not the client's business.
    assert str(folder) not in reply["m"]
    assert files(folder) == before
    assert (await store.ask(f"{kind}_LOAD", name="a"))["st"] == Status.LOAD_ERROR


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing more is an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_save_without_room_leaves_the_dataset_before_it_the_newest(
    store: Store, other: Store, folder: Path
) -> None:
    await store.ask("KV_SET", keys={"a": "before"})
    await store.ask("KV_SAVE", name="a")
    await store.ask("KV_SET", keys={"a": "x" * 1_000_000})
    with files_no_larger_than(100_000):
        assert (await store.ask("KV_SAVE", name="a"))["st"] == Status.SAVE_ERROR
    assert files(folder) == ["datasets/keys/a/000001.sqlite"]
    await other.ask("KV_LOAD", name="a")
    assert (await other.ask("KV_GET", keys=["a"]))["keys"] == {"a": "before"}
    assert (await store.ask("KV_SAVE", name="a"))["st"] == Status.SAVE_COMPLETE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        yield disk


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def test_a_save_to_a_full_disk_leaves_room_for_the_next(small_disk: Path) -> None:
    with stored(small_disk) as store:
        await store.ask("KV_SET", keys={"a": "x" * 2_000_000})
        reply = await store.ask("KV_SAVE", name="a")
        assert reply["st"] == Status.SAVE_ERROR
        assert files(small_disk) == []
        await store.ask("KV_SET", keys={"a": "x" * 500_000})
        assert (await store.ask("KV_SAVE", name="a"))["st"] == Status.SAVE_COMPLETE


async def test_a_save_to_a_disk_that_can_only_be_read_is_an_error(small_disk: Path) -> None:
    with stored(small_disk) as store:
        await store.ask("KV_SET", keys={"a": 1})
        await store.ask("KV_SAVE", name="a")
        make_read_only(small_disk)
        assert (await store.ask("KV_SAVE", name="a"))["st"] == Status.SAVE_ERROR
        assert (await store.ask("KV_LOAD", name="a"))["st"] == Status.LOAD_COMPLETE


async def test_what_a_killed_save_has_left_is_not_loaded_and_not_in_the_way(
    store: Store, folder: Path
) -> None:
    await store.ask("KV_SET", keys={"a": "complete"})
    await store.ask("KV_SAVE", name="a")
    dataset = folder / "datasets/keys/a/000001.sqlite"
    dataset.with_name("000002.partial").write_bytes(dataset.read_bytes()[:5000])
    await store.ask("KV_SET", keys={"a": "changed"})
    await store.ask("KV_LOAD", name="a")
    assert (await store.ask("KV_GET", keys=["a"]))["keys"] == {"a": "complete"}
    await store.ask("KV_SET", keys={"a": "changed"})
    assert (await store.ask("KV_SAVE", name="a"))["st"] == Status.SAVE_COMPLETE
    await store.ask("KV_LOAD", name="a")
    assert (await store.ask("KV_GET", keys=["a"]))["keys"] == {"a": "changed"}
    assert files(folder) == ["datasets/keys/a/000001.sqlite", "datasets/keys/a/000002.sqlite"]


# Datasets that are damaged

Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def truncated_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(10_000))


def garbage_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)


def wrong_list_of_free_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[36:40] = (5).to_bytes(4)
    path.write_bytes(data)


def text_file(path: Path) -> None:
    path.write_text("no dataset")


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def changed(*statements: str) -> Damage:
    """Return a damage that is done with SQL."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                assert database.execute(statement).rowcount != 0, statement
            database.commit()

    return damage


DAMAGES: dict[str, Damage] = {
    "truncated": truncated,
    "truncated to nothing": truncated_to_nothing,
    "garbage": garbage,
    "garbage inside": garbage_inside,
    "damaged where nothing reads": wrong_list_of_free_pages,
    "a text file": text_file,
    "a folder": folder_in_its_place,
    "a format of others": changed("UPDATE dataset SET format = 'pictures'"),
    "a later version": changed("UPDATE dataset SET version = 3"),
    "of the other kind": changed(
        "UPDATE dataset SET kind = iif(kind = 'keys', 'sessions', 'keys')"
    ),
    "of no kind": changed("DELETE FROM dataset"),
    "no table of keys": changed("DROP TABLE keys"),
    "no table of what it is": changed("DROP TABLE dataset"),
    "a value that is not JSON": changed("UPDATE keys SET value = '{' WHERE key = 'b'"),
    "an empty value": changed("UPDATE keys SET value = '' WHERE key = 'b'"),
    "a value and more": changed("UPDATE keys SET value = '1 2' WHERE key = 'b'"),
    "a value that nests too deeply": changed(
        f"UPDATE keys SET value = '{'[' * 100_000}{']' * 100_000}' WHERE key = 'b'"
    ),
    "a value that is not UTF-8": changed(
        "UPDATE keys SET value = CAST(x'22ff22' AS TEXT) WHERE key = 'b'"
    ),
    "a number for a value": changed(
        "ALTER TABLE keys RENAME TO text_keys",
        "CREATE TABLE keys (id, tkn, key, value, checksum)",
        "INSERT INTO keys SELECT * FROM text_keys",
        "UPDATE keys SET value = 1 WHERE key = 'b'",
    ),
}

DAMAGES_OF_SESSIONS: dict[str, Damage] = {
    "no table of sessions": changed("DROP TABLE sessions"),
    "a key of no session": changed("UPDATE keys SET tkn = '1' WHERE key = 'b'"),
    "token 0": changed("UPDATE sessions SET tkn = '0'"),
    "a negative duration": changed("UPDATE sessions SET duration = -1"),
    "a duration too large": changed(f"UPDATE sessions SET duration = {2**32}"),
    "a duration of text": changed("UPDATE sessions SET duration = 'x'"),
    "a duration that is not whole": changed("UPDATE sessions SET duration = 1.5"),
    "a flag that is none": changed("UPDATE sessions SET flags = 8"),
    "keys that are not JSON": changed("UPDATE sessions SET keys = '{'"),
    "keys that are no object": changed("UPDATE sessions SET keys = '[1]'"),
    "keys of a number": changed("UPDATE sessions SET keys = 1"),
    "one column less": changed("ALTER TABLE sessions DROP COLUMN flags"),
}


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *(
            pytest.param(kind, damage, id=f"{kind}: {name}")
            for kind in ("sessions", "keys")
            for name, damage in DAMAGES.items()
        ),
        *(
            pytest.param("sessions", damage, id=f"sessions: {name}")
            for name, damage in DAMAGES_OF_SESSIONS.items()
        ),
    ],
)
async def test_a_damaged_dataset_is_not_loaded_and_nothing_changes(
    store: Store, folder: Path, kind: str, damage: Damage
) -> None:
    tkn = await store.new(duration=60)
    keys = {"a": 1, "b": 2, "large": "x" * 20_000}
    await store.ask("SH_SET", tkn=tkn, keys=keys)
    await store.ask("KV_SET", keys=keys)
    prefix = "SH" if kind == "sessions" else "KV"
    await store.ask(f"{prefix}_SAVE", name="a")
    # What is loaded would be new here, and differ.
    await store.ask("SH_END", tkn=tkn)
    await store.ask("KV_CLEAR_SET", keys={"a": "changed"})
    before = await store.everything()
    damage(folder / "datasets" / kind / "a" / "000001.sqlite")
    reply = await store.ask(f"{prefix}_LOAD", name="a")
    assert reply["st"] == Status.LOAD_ERROR, reply
    assert "000001.sqlite" in reply["m"] or "'a'" in reply["m"]
    assert str(folder) not in reply["m"]
    assert await store.everything() == before


# Without a folder


@pytest.mark.parametrize("command", ["SH_SAVE", "KV_SAVE"])
async def test_saving_without_a_folder_is_disabled(command: str) -> None:
    with stored(None) as store:
        reply = await store.ask(command, name="a")
        assert reply["st"] == Status.COMMAND_DISABLED
        assert "--data-dir" in reply["m"]


@pytest.mark.parametrize("command", ["SH_LOAD", "KV_LOAD"])
async def test_loading_without_a_folder_finds_nothing(command: str) -> None:
    with stored(None) as store:
        reply = await store.ask(command, name="a")
        assert reply["st"] == Status.LOAD_ERROR
        assert "--data-dir" in reply["m"]


# At the start of a server


async def test_what_was_saved_of_both_kinds_is_loaded_at_the_start(
    store: Store, other: Store
) -> None:
    tkn = await store.new()
    await store.ask("SH_SET", tkn=tkn, keys={"a": 1})
    await store.ask("KV_SET", keys={"b": 2})
    await store.ask("SH_SAVE", name="a")
    await store.ask("KV_SAVE", name="a")
    await other.datasets.load("a")
    assert (await other.ask("SH_GET", tkn=tkn, keys=["a"]))["keys"] == {"a": 1}
    assert (await other.ask("KV_GET", keys=["b"]))["keys"] == {"b": 2}


@pytest.mark.parametrize("kind", ["SH", "KV"])
async def test_what_was_saved_of_one_kind_is_loaded_at_the_start(
    store: Store, other: Store, kind: str
) -> None:
    await store.new()
    await store.ask("KV_SET", keys={"b": 2})
    await store.ask(f"{kind}_SAVE", name="a")
    await other.datasets.load("a")
    counts = (await other.ask("SH_INFO_ALL"))["totalSessions"], (await other.ask("KV_COUNT"))["cnt"]
    assert counts == ((1, 0) if kind == "SH" else (0, 1))


@pytest.mark.parametrize("name", ["never", "", "../x"])
async def test_what_cannot_be_loaded_at_the_start_is_refused(store: Store, name: str) -> None:
    with pytest.raises(RefusedError) as caught:
        await store.datasets.load(name)
    assert caught.value.status == Status.LOAD_ERROR
