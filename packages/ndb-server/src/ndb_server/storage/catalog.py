"""Lists the datasets of a data folder."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ndb_protocol.messages import is_dataset_name

from .datasets import (
    DATASET_FILE_NAME,
    KEYS,
    SESSIONS,
    Counts,
    DatasetError,
    count_entries,
    recognize_dataset,
)
from .tables import READ_ERRORS, DamageError, connect


class DatasetFile(NamedTuple):
    """The file of a dataset, as its path describes it."""

    name: str
    kind: str
    number: int
    path: Path


def list_datasets(folder: Path) -> list[DatasetFile]:
    """Return the datasets of a data folder, by name and kind, the newest of each first."""
    found = [
        DatasetFile(path.parent.name, kind, int(path.stem), path)
        for kind in (KEYS, SESSIONS)
        for path in (folder / "datasets" / kind).glob("*/*.sqlite")
        if DATASET_FILE_NAME.match(path.name) and is_dataset_name(path.parent.name)
    ]
    return sorted(found, key=lambda dataset: (dataset.name, dataset.kind, -dataset.number))


def count_dataset(dataset: DatasetFile) -> Counts:
    """Return how many sessions and keys a dataset has.

    Raises:
        DatasetError: it can't be read.
    """
    try:
        with closing(connect(dataset.path, read_only=True, immutable=True)) as database:
            recognize_dataset(database, dataset.path, dataset.kind)
            return count_entries(database)
    except (*READ_ERRORS, DamageError) as error:
        raise DatasetError(f"{dataset.path} can't be read: {error}") from error
