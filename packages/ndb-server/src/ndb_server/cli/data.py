"""The commands for a data folder: list its datasets, check, export and import."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from ..clock import wall_ms
from ..errors import DataError, StoreError
from ..maintenance.check import check_folder
from ..maintenance.importer import KeyEntry, SessionEntry, import_entries
from ..maintenance.jsonl import key_lines, read_lines, session_line
from ..maintenance.nemesisdb import read_nemesisdb_dataset
from ..maintenance.snapshot import open_snapshot, read_merged
from ..storage import tables
from ..storage.catalog import DatasetFile, count_dataset, list_datasets
from ..storage.datasets import KEYS, SESSIONS, DatasetError, DatasetFolder
from ..storage.schema import STORE_FILE, read_anchor, recognize_store
from .arguments import Text

DAMAGED = 1
"""Exit status when a part of what was asked for is damaged."""


def datasets(*, data_dir: Text, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the saved datasets by name and kind, the newest of each first.

    Args:
        data_dir: Data folder of a server.
        json: Print each dataset as a line of JSON.

    Returns:
        1 if one of them can't be read, otherwise 0.
    """
    status = 0
    shown: list[dict[str, object]] = []
    for saved in list_datasets(_existing(data_dir)):
        try:
            counts = count_dataset(saved)
        except DatasetError as error:
            print("ndb-server:", error, file=sys.stderr)
            status = DAMAGED
        else:
            shown.append(_described(saved, counts))
    for line in map(msgspec.json.encode, shown) if json else _table(shown):
        print(line.decode())
    return status


def _described(saved: DatasetFile, counts: dict[str, int]) -> dict[str, object]:
    about = saved.path.stat()
    when = datetime.fromtimestamp(about.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    named = {"name": saved.name, "kind": saved.kind, "number": saved.number, "saved": when}
    return {**named, "sessions": counts["sessions"], "keys": counts["keys"], "bytes": about.st_size}


def _table(shown: list[dict[str, object]]) -> Iterator[bytes]:
    if not shown:
        return
    rows = [[*shown[0]], *([str(value) for value in each.values()] for each in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        # Words stand on the left, numbers on the right.
        cells = [
            cell.ljust(width) if at in {0, 1, 3} else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).encode()


def check(*, data_dir: Text) -> int:
    """Check the store and every dataset for damage, and change nothing.

    A server may use the folder at the same time.

    Args:
        data_dir: Data folder of a server.

    Returns:
        1 if there is damage, otherwise 0.
    """
    status = 0
    for path, damage in check_folder(_existing(data_dir)):
        for line in damage or ["ok"]:
            print(f"{path}: {' '.join(line.split())}")
        status = DAMAGED if damage else status
    return status


def export(*, data_dir: Text, dataset: Text | None = None) -> None:
    """Write sessions and independent keys to standard output, each as a line of JSON.

    A server may use the folder at the same time.

    Args:
        data_dir: Data folder of a server.
        dataset: Name of a saved dataset to write instead of the current data.
    """
    folder = _existing(data_dir)
    try:
        for line in _stored(folder) if dataset is None else _saved(folder, dataset):
            sys.stdout.buffer.write(line + b"\n")
    except (DatasetError, OSError, tables.DamageError, *tables.READ_ERRORS) as error:
        raise DataError(f"the export is incomplete: {error}") from error


def _stored(folder: Path) -> Iterator[bytes]:
    path = folder / STORE_FILE
    if not path.exists():
        raise StoreError(
            f"there is no store in {folder}; export one of its datasets with --dataset"
        )
    with open_snapshot(path) as database:
        recognize_store(database, path)
        tables.check_integrity(database)
        anchor = read_anchor(database)
        sessions, keys = read_merged(database)
        yield from (session_line(*session, anchor) for session in sessions)
        yield from key_lines(keys)


def _saved(folder: Path, name: str) -> Iterator[bytes]:
    saved = DatasetFolder(folder)
    kinds = [kind for kind in (SESSIONS, KEYS) if saved.has(kind, name)]
    if not kinds:
        raise DatasetError(f"there is no dataset named '{name}'")
    for kind in kinds:
        with saved.reading(kind, name) as database:
            if kind == SESSIONS:
                yield from (session_line(*session) for session in tables.read_sessions(database))
            else:
                yield from key_lines(tables.read_keys(database))


def _no_option(_: object, value: str) -> None:
    if value.startswith("-") and value != "-":
        raise ValueError("No such option.")


def import_(
    source: Annotated[Text, Parameter(allow_leading_hyphen=True, validator=_no_option)],
    /,
    *,
    data_dir: Text,
) -> None:
    """Import sessions and independent keys into a data folder that no server uses.

    Existing sessions are left unchanged, and existing independent keys are overwritten. If there
    is an error, nothing is imported.

    Args:
        source: File with the JSON lines that `export` writes, - for standard input, or the folder
            of a dataset of NemesisDB 0.7.
        data_dir: Data folder for a server, created if it does not exist.
    """
    folder = Path(data_dir)
    try:
        with _entries(source, wall_ms()) as entries:
            folder.mkdir(parents=True, exist_ok=True)
            imported = import_entries(folder, entries)
    except (OSError, ValueError) as error:
        # A path with a null character is a ValueError.
        raise DataError(f"cannot import {source} into {data_dir}: {error}") from error
    print(
        f"imported {imported.sessions} sessions with {imported.session_keys} keys and "
        f"{imported.keys} independent keys; {imported.already_there} sessions were there already"
    )


@contextmanager
def _entries(source: str, now: int) -> Iterator[Iterator[SessionEntry | KeyEntry]]:
    path = Path(source)
    if source == "-":
        yield read_lines(sys.stdin.buffer, "standard input", now)
    elif path.is_dir():
        yield read_nemesisdb_dataset(path, now)
    else:
        with path.open("rb") as lines:
            yield read_lines(lines, source, now)


def _existing(data_dir: str) -> Path:
    folder = Path(data_dir)
    try:
        known = any((folder / name).exists() for name in (STORE_FILE, "datasets"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot use data folder {folder}: {error}") from error
    if not known:
        raise StoreError(f"{folder} is not a data folder: it has neither {STORE_FILE} nor datasets")
    return folder
