"""The instrument of torn files: it knows what was not synced, and touches nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from campaign.unsynced import SECTOR_BYTES, Unsynced
from tests.faults.clock import can_jump
from tests.servers.shared import required

pytestmark = pytest.mark.skipif(not can_jump() and not required(), reason="this machine has no C compiler (cc)")

SYNCED = b"s" * 3000
PATH_TIMEOUT_S = 30

WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | (os.O_APPEND if sys.argv[2] == "append" else 0))
os.write(file, b"s" * 3000)
os.fdatasync(file)
if sys.argv[2] == "append":
    os.write(file, b"n" * 2000)
else:
    os.pwrite(file, b"n" * 2000, 2000)
if sys.argv[3] == "synced":
    os.fsync(file)
"""


@pytest.fixture
def unsynced(tmp_path: Path) -> Unsynced:
    """Watches files that end in .data."""
    return Unsynced(tmp_path, ".data")


def write(unsynced: Unsynced, path: Path, how: str, *, synced: bool) -> None:
    """Let a process write 3,000 bytes, sync, write 2,000 more, and perhaps sync again."""
    subprocess.run(
        [sys.executable, "-c", WRITER, str(path), how, "synced" if synced else "not"],
        env={**os.environ, **unsynced.environment},
        check=True,
        timeout=PATH_TIMEOUT_S,
    )


@pytest.mark.parametrize("how", ["append", "overwrite"])
@pytest.mark.parametrize("seed", range(8))
def test_what_was_synced_is_never_torn(unsynced: Unsynced, tmp_path: Path, how: str, seed: int) -> None:
    """Each torn file holds the synced bytes; behind and over them old, new or no bytes by sector, in any mixture."""
    path = tmp_path / "a.data"
    write(unsynced, path, how, synced=False)
    assert unsynced.waiting() == 2000
    assert unsynced.tear(tmp_path, random.Random(seed))
    content = path.read_bytes()
    kept = 3000 if how == "append" else 2000
    assert content[:kept] == SYNCED[:kept]
    rest = content[kept:]
    for at in range(0, len(content), SECTOR_BYTES):
        assert len(set(content[max(kept, at) : at + SECTOR_BYTES])) <= 2
    assert set(rest) <= set(b"sn\0")
    assert (unsynced.waiting(), unsynced.torn_times, unsynced.torn_bytes) == (0, 1, 2000)


def test_every_way_of_tearing_comes_about(unsynced: Unsynced, tmp_path: Path) -> None:
    """Lost, zeroed and mixed: over a few seeds the file ends in each of these ways."""
    path = tmp_path / "a.data"
    ends = set()
    for seed in range(20):
        path.unlink(missing_ok=True)
        write(unsynced, path, "append", synced=False)
        unsynced.tear(tmp_path, random.Random(seed))
        rest = path.read_bytes()[3000:]
        ends.add("lost" if not rest else "zeroed" if not rest.strip(b"\0") else "mixed")
    assert ends == {"lost", "zeroed", "mixed"}


@pytest.mark.parametrize("how", ["append", "overwrite"])
def test_after_a_sync_there_is_nothing_to_tear(unsynced: Unsynced, tmp_path: Path, how: str) -> None:
    """A file that was synced after the last write stays as it is; so does one that is not watched."""
    path, other = tmp_path / "a.data", tmp_path / "a.other"
    write(unsynced, path, how, synced=True)
    write(unsynced, other, how, synced=False)
    before = path.read_bytes(), other.read_bytes()
    assert unsynced.waiting() == 0
    assert not unsynced.tear(tmp_path, random.Random(1))
    assert (path.read_bytes(), other.read_bytes()) == before
