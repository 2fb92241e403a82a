"""Torn files: of what a process had written and not synced when it died, a part is lost, as when the power fails.

    unsynced = Unsynced(folder, "-wal", ".sqlite3")     # compiles unsynced.c
    unsynced.environment                                # what the process needs to be started with
    unsynced.waiting()                                  # bytes that were written and not synced, by now
    unsynced.tear(data, chance)                         # after its death, before the next start

What was synced is never touched: a program that loses it has acknowledged too early. Of a process that was killed,
and not by a loss of power, the system writes out everything: `forget`, before its next start.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
COMPILE_TIMEOUT_S = 60
COMPILER = "cc"
SECTOR_BYTES = 512
HEAD = struct.Struct("=qqq")


class Tear(StrEnum):
    """What becomes of the writes that were not synced."""

    LOST = "none of them reached the disk"
    ZEROED = "the file grew, and what it grew by is zeros"
    MIXED = "some sectors reached the disk and some did not"


@dataclass(frozen=True)
class Write:
    """One write that was not synced, and what stood there before; shorter where the file ended."""

    offset: int
    length: int
    old: bytes


class Unsynced:
    """The writes of all processes with this environment to files whose path ends in one of these ways."""

    def __init__(self, folder: Path, *endings: str) -> None:
        self.folder = folder / "unsynced"
        self.folder.mkdir()
        self._endings = endings
        self.torn_times = 0
        self.torn_bytes = 0
        self._library = folder / "unsynced.so"
        subprocess.run(
            [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)],
            check=True,
            timeout=COMPILE_TIMEOUT_S,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """To be added to a process's own."""
        return {
            "LD_PRELOAD": str(self._library),
            "UNSYNCED_FILES": ":".join(self._endings),
            "UNSYNCED_FOLDER": str(self.folder),
        }

    def waiting(self) -> int:
        """How many bytes were written and not synced."""
        return sum(one.length for record in self.folder.iterdir() for one in _writes(record))

    def forget(self) -> None:
        """Take everything that was written as synced: what the system holds of a killed process, it writes out."""
        for record in self.folder.iterdir():
            record.unlink()

    def tear(self, data: Path, chance: random.Random) -> bool:
        """Damage the files below `data` as a loss of power would have, and forget; whether there was anything to."""
        how, torn = chance.choice(list(Tear)), 0
        for record in sorted(self.folder.iterdir()):
            writes = list(_writes(record))
            record.unlink()
            for path in data.rglob(record.name):
                torn += sum(one.length for one in writes)
                _tear(path, writes, how, chance)
        self.torn_bytes += torn
        self.torn_times += bool(torn)
        return bool(torn)


def _writes(record: Path) -> Iterator[Write]:
    """The records of one file; one that was being written at the end had no effect yet."""
    try:
        content = record.read_bytes()
    except FileNotFoundError:
        return
    at = 0
    while at + HEAD.size <= len(content):
        offset, length, old = HEAD.unpack_from(content, at)
        at += HEAD.size
        if at + old > len(content):
            return
        yield Write(offset, length, content[at : at + old])
        at += old


def _tear(path: Path, writes: list[Write], how: Tear, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        grown_to = file.tell()
        new = {}
        for one in writes:
            file.seek(one.offset)
            new[one.offset, one.length] = file.read(one.length)
        # Backwards, so that what was written twice ends as it was before the first time.
        for one in reversed(writes):
            file.seek(one.offset)
            file.write(one.old)
            if len(one.old) < one.length:
                file.truncate(one.offset + len(one.old))
        if how is not Tear.LOST:
            file.truncate(grown_to)
        if how is Tear.MIXED:
            for (offset, _), content in new.items():
                # Sectors of the disk, which the beginning of a write has no part in choosing.
                for at in range(-(offset % SECTOR_BYTES), len(content), SECTOR_BYTES):
                    if chance.random() < 0.5:
                        file.seek(offset + max(0, at))
                        file.write(content[max(0, at) : at + SECTOR_BYTES])
