"""A disk whose power can fail: what was written and not synced is lost, as it would be.

An ext4 filesystem in a file. What a program writes waits in the mounted filesystem's cache and reaches the file only
when it is synced, so a copy of the file is what the disk would hold if the power failed now. Needs root, loop devices
and mkfs.ext4.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_BYTES = 48 * 1024 * 1024
COMMAND_TIMEOUT_S = 20
# The filesystem must not sync by itself while the test runs.
SYNC_EVERY_S = 300


class NoDisks(Exception):
    """This user or this machine can't make such a disk."""


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoDisks(f"{command[0]}: {error}") from error


def make_disk(image: Path) -> None:
    """A new disk in a file.

    Raises:
        NoDisks: there is no mkfs.ext4.
    """
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    _run("mkfs.ext4", "-q", "-F", str(image))


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """The disk's files, in a folder.

    Raises:
        NoDisks: this user may not mount, or there are no loop devices.
    """
    at.mkdir()
    _run("mount", "-o", f"loop,commit={SYNC_EVERY_S}", str(image), str(at))
    try:
        yield at
    finally:
        # Lazily: the server may still have its files open when a test fails.
        _run("umount", "--lazy", str(at))


def power_fails(image: Path, copy: Path) -> None:
    """What the disk holds at this moment. Whoever writes to it has to stand still meanwhile."""
    shutil.copyfile(image, copy)
