"""What a process did to its files, and what of that is left when the power is cut.

A disk promises to have what was synced. Of what came after, any part may be there: each write, or a
number of its sectors, whatever the order; a file's name only once its folder was synced.
"""

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
"""What a disk writes whole, in bytes."""

_HEAD = re.compile(rb"([a-z]+) (\d+) (\d+) (.+)\n")


class Call(NamedTuple):
    """A system call that succeeded.

    Attributes:
        name: write, truncate, sync, create, rename, unlink or mkdir.
        offset: where it wrote, or the size that it left.
        data: what it wrote, or the new path.
        path: of what file or folder.
        end: where its record ends in the log.
    """

    name: str
    offset: int
    data: bytes
    path: Path
    end: int


def calls(log: Path) -> Iterator[Call]:
    data = log.read_bytes()
    position = 0
    while position < len(data):
        head = _HEAD.match(data, position)
        assert head is not None
        name, offset, size, path = head.groups()
        end = head.end() + int(size)
        position = end + 1
        content = data[head.end() : end]
        yield Call(name.decode(), int(offset), content, Path(path.decode()), position)


@dataclass(eq=False)
class File:
    """What is on disk of a file for sure, and what has been done to it since."""

    synced: bytes = b""
    since: list[Call] = field(default_factory=list)

    def sync(self) -> None:
        self.synced = self.after(self.since)
        self.since = []

    def after(self, done: list[Call]) -> bytes:
        content = bytearray(self.synced)
        for call in done:
            size = call.offset if call.name == "truncate" else call.offset + len(call.data)
            if len(content) < size:
                content += bytes(size - len(content))
            if call.name == "truncate":
                del content[size:]
            else:
                content[call.offset : size] = call.data
        return bytes(content)


class Disk:
    """Files, as system calls make them."""

    def __init__(self) -> None:
        self.files: dict[Path, File] = {}
        self.synced: dict[Path, File] = {}

    def make(self, call: Call) -> None:
        match call.name:
            case "create":
                self.files[call.path] = File()
            case "write" | "truncate":
                self.files[call.path].since.append(call)
            case "rename":
                self.files[Path(call.data.decode())] = self.files.pop(call.path)
            case "unlink":
                del self.files[call.path]
            case "sync" if call.path in self.files:
                self.files[call.path].sync()
            case "sync":
                kept = {p: f for p, f in self.synced.items() if p.parent != call.path}
                inside = {p: f for p, f in self.files.items() if p.parent == call.path}
                self.synced = kept | inside

    def cut(self, folder: Path, chance: random.Random) -> None:
        """Make of `folder` what may be left when the power is cut now."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        luck = chance.choice([0, 0.5, 0.9, 1])
        for path, file in (self.files if chance.random() < luck else self.synced).items():
            # Shared memory is made anew.
            if not path.name.endswith("-shm"):
                done = [self._torn(call, chance) for call in file.since if chance.random() < luck]
                (folder / path.name).write_bytes(file.after(done))

    def _torn(self, call: Call, chance: random.Random) -> Call:
        if call.name == "truncate" or chance.random() < 0.8:
            return call
        return call._replace(
            data=call.data[: SECTOR * chance.randrange(len(call.data) // SECTOR + 1)]
        )
