"""A batch: what goes to disk of it, and what was there before."""

from collections.abc import Iterable

import pytest
from msgspec import Raw
from ndb_protocol import NO_TOKEN
from ndb_server.engine.batch import Batch, ChangeSet
from ndb_server.engine.edits import Edit, MapChange
from ndb_server.engine.keymap import apply_edit, unpack
from ndb_server.engine.session import NEVER, Session

from tests.support.journaled_engine import raw, values

TOKEN = 2**63


class Memory:
    """One session whose keys are not packed, and a batch that is told of its changes."""

    def __init__(self) -> None:
        self.batch: Batch[object] = Batch()
        self.session: Session | None = Session(None, NEVER, raw(a="1", b="2", c="3"))

    def edit(self, put: dict[str, Raw], remove: Iterable[str] = (), *, clear: bool = False) -> None:
        assert self.session is not None
        edit = Edit(put, tuple(remove), clear)
        packed = self.session.keys
        self.batch.before_images.setdefault(TOKEN, Session(None, NEVER, packed))
        if isinstance(packed, dict):
            self.batch.record_edit(TOKEN, packed, edit)
        self.session.keys = apply_edit(packed, unpack(packed), edit)

    def change(self) -> MapChange:
        """Return what is to become of the keys on disk."""
        [change] = self.changed().maps.values()
        return change

    def changed(self) -> ChangeSet:
        return self.batch.change_set({} if self.session is None else {TOKEN: self.session}, {})

    def before(self) -> dict[str, bytes]:
        [(_, image)] = self.batch.restored_images(self.batch.before_images)
        assert image is not None
        return values(image.keys)


def apply(change: MapChange, keys: dict[str, Raw]) -> None:
    if change.clear:
        keys.clear()
    for key in change.removed:
        keys.pop(key, None)
    keys.update(change.put)


def many(prefix: str) -> dict[str, Raw]:
    return {f"{prefix}{number}": Raw(b"1" * 600) for number in range(2)}


@pytest.mark.parametrize(
    "edits",
    [
        [({"a": Raw(b"4")}, [])],
        [({"d": Raw(b"4"), "a": Raw(b"4")}, [])],
        [({}, ["a"])],
        [({}, ["a"]), ({"d": Raw(b"5"), "a": Raw(b"4")}, []), ({"e": Raw(b"6")}, [])],
        [({"d": Raw(b"4")}, []), ({}, ["d"]), ({"e": Raw(b"5"), "d": Raw(b"6")}, ["b"])],
    ],
)
def test_a_change_of_keys_comes_to_the_same_order_however_often_it_is_made(
    edits: list[tuple[dict[str, Raw], list[str]]],
) -> None:
    memory, keys = Memory(), raw(a="1", b="2", c="3")
    for put, remove in edits:
        memory.edit(put, remove)
    change = memory.change()
    assert not change.clear
    assert memory.session is not None
    for _ in range(2):
        apply(change, keys)
        assert list(keys.items()) == list(unpack(memory.session.keys).items())
    assert memory.before() == {"a": b"1", "b": b"2", "c": b"3"}


def test_keys_that_became_another_map_are_written_as_a_whole() -> None:
    memory = Memory()
    memory.edit(many("x"), clear=True)
    memory.edit({"y": Raw(b"1")})
    change = memory.change()
    assert change.clear
    assert list(change.put) == ["x0", "x1", "y"]
    assert list(memory.before()) == ["a", "b", "c"]


def test_keys_that_became_few_are_written_in_their_session_s_row() -> None:
    memory = Memory()
    memory.edit({"b": Raw(b"9")}, ["a"])
    memory.edit({"y": Raw(b"1")}, clear=True)
    changed = memory.changed()
    assert changed.maps == {}
    [(number, *_, keys)] = changed.rows
    assert (number, keys) == (-(2**63), Raw(b'{"y":1}'))
    assert memory.before() == {"a": b"1", "b": b"2", "c": b"3"}


def test_only_keys_that_were_there_and_went_come_back_in_another_order() -> None:
    memory = Memory()
    memory.edit({"d": Raw(b"1"), "a": Raw(b"2")})
    assert list(memory.batch.reordered()) == [(TOKEN, [])]
    memory.edit({}, ["d"])
    assert list(memory.batch.reordered()) == [(TOKEN, [])]
    memory.edit({}, ["a"])
    assert list(memory.batch.reordered()) == [(TOKEN, ["a"])]


def test_a_session_whose_deadline_moved_is_written_without_its_map_of_keys() -> None:
    memory = Memory()
    memory.batch.deadline_changes.add(TOKEN)
    changed = memory.changed()
    assert (len(changed.rows), changed.maps) == (1, {})
    assert memory.batch
    assert not memory.batch.delays_replies


def test_a_session_that_has_gone_is_written_as_ended() -> None:
    memory = Memory()
    memory.batch.before_images[TOKEN] = memory.session
    memory.session = None
    changed = memory.changed()
    assert (changed.ended, changed.rows, changed.maps) == ([TOKEN], [], {})


def test_what_changed_before_all_ended_is_not_written_but_remembered() -> None:
    memory = Memory()
    memory.edit({"a": Raw(b"9")})
    memory.batch.before_images[NO_TOKEN] = Session(None, NEVER, {})
    memory.batch.record_end_all("all")
    memory.session = None
    assert list(memory.batch.before_images) == [NO_TOKEN]
    assert list(memory.batch.images_before_end_all) == [TOKEN]
    [(_, image)] = memory.batch.restored_images(memory.batch.images_before_end_all)
    assert image is not None
    assert values(image.keys) == {"a": b"1", "b": b"2", "c": b"3"}
    changed = memory.batch.change_set({}, raw(k="1"))
    assert changed.all_ended
    assert (changed.ended, changed.rows) == ([], [])


def test_an_empty_batch_is_false_and_changes_nothing() -> None:
    batch: Batch[object] = Batch()
    assert not batch
    changed = batch.change_set({}, {})
    assert (changed.all_ended, changed.ended, changed.rows, changed.maps) == (False, [], [], {})
