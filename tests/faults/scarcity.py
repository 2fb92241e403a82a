"""Ways to run out of disk space while the server runs, and to get it back.

`FileSizeLimit` needs no rights: it lowers RLIMIT_FSIZE of the running server, so that its files stop growing.
`SmallFilesystem` is the real thing, a tmpfs that is full; mounting one needs root.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from tests.conftest import BuildHouse
from tests.houses import House

HEADROOM_BYTES = 64 * 1024
FILESYSTEM_BYTES = 24 * 1024 * 1024
MOUNT_TIMEOUT_S = 10


class Scarcity(Protocol):
    """A disk that can be full and have space again, and the one house on it."""

    def build(self, build_house: BuildHouse) -> House:
        """The house that lives on this disk, not started."""

    def exhaust(self) -> None:
        """From now on there is no space worth mentioning."""

    def relieve(self) -> None:
        """There is space again."""


class FileSizeLimit:
    """No file of the running server may grow beyond what its largest has now."""

    def __init__(self) -> None:
        self._house: House | None = None

    def build(self, build_house: BuildHouse) -> House:
        """An ordinary house: the limit is laid on the process."""
        self._house = build_house()
        return self._house

    def exhaust(self) -> None:
        """Limit the size of every file to that of the largest, and a little."""
        assert self._house is not None
        largest = max(path.stat().st_size for path in self._house.folder.iterdir())
        self._limit(largest + HEADROOM_BYTES)

    def relieve(self) -> None:
        """Lift the limit. A process that has ended took it along."""
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, file_size_bytes: int) -> None:
        if self._house is not None and self._house.running:
            limits = (file_size_bytes, resource.RLIM_INFINITY)
            resource.prlimit(self._house.pid, resource.RLIMIT_FSIZE, limits)


class SmallFilesystem:
    """A mounted tmpfs that a ballast file fills."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, build_house: BuildHouse) -> House:
        """A house whose database lies on the tmpfs. Its log does not: a full disk must not silence it."""
        return build_house(sqlite_path=str(self._folder / "chat.sqlite3"))

    def exhaust(self) -> None:
        """Fill all but a little, or all: the server may be taking the rest at the same time."""
        state = os.statvfs(self._folder)
        ballast = os.open(self._folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with contextlib.suppress(OSError):
            os.write(ballast, b"\0" * max(0, state.f_bavail * state.f_frsize - HEADROOM_BYTES))
        os.close(ballast)

    def relieve(self) -> None:
        """Remove the ballast."""
        (self._folder / "ballast").unlink()


@contextmanager
def file_size_limit(_: Path) -> Iterator[Scarcity]:
    """A limit on the server's files."""
    yield FileSizeLimit()


@contextmanager
def small_filesystem(folder: Path) -> Iterator[Scarcity]:
    """A small tmpfs, unmounted at the end.

    Raises:
        PermissionError: this user may not mount.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FILESYSTEM_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, timeout=MOUNT_TIMEOUT_S, check=False).returncode:
        raise PermissionError("this user may not mount a tmpfs")
    try:
        yield SmallFilesystem(folder)
    finally:
        # Lazily: the server may still have its files open when a test fails.
        subprocess.run(["umount", "--lazy", str(folder)], timeout=MOUNT_TIMEOUT_S, check=True)


SCARCITIES: dict[str, Callable[[Path], AbstractContextManager[Scarcity]]] = {
    "file-size-limit": file_size_limit,
    "small-filesystem": small_filesystem,
}
