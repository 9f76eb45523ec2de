"""The datasets of a data folder, listed."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ndb_protocol.messages import is_dataset_name

from .datasets import KEYS, NUMBERED, SESSIONS, Counts, DatasetError, count, recognize_dataset
from .tables import READ_ERRORS, DamageError, connect


class Saved(NamedTuple):
    """A dataset, as its file says by its name."""

    name: str
    kind: str
    number: int
    path: Path


def saved_in(folder: Path) -> list[Saved]:
    """Return the datasets of a data folder: by name and kind, the newest of each first."""
    found = [
        Saved(path.parent.name, kind, int(path.stem), path)
        for kind in (KEYS, SESSIONS)
        for path in (folder / "datasets" / kind).glob("*/*.sqlite")
        if NUMBERED.match(path.name) and is_dataset_name(path.parent.name)
    ]
    return sorted(found, key=lambda saved: (saved.name, saved.kind, -saved.number))


def counts_of(saved: Saved) -> Counts:
    """Return how many sessions and keys a dataset has.

    Raises:
        DatasetError: it can't be read.
    """
    try:
        with closing(connect(saved.path, read_only=True, immutable=True)) as database:
            recognize_dataset(database, saved.path, saved.kind)
            return count(database)
    except (*READ_ERRORS, DamageError) as error:
        raise DatasetError(f"{saved.path} can't be read: {error}") from error
