"""deploy/mend-redis.sh, where it can't do what it is for. What it does for a torn file: tests/faults."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers.redis import MEND

SECTOR_BYTES = 512


@pytest.mark.parametrize("tool", ["od", "grep", "cut", "tail", "truncate", "redis-check-aof"])
def test_where_the_file_can_not_be_looked_at_or_cut_the_script_fails(tmp_path: Path, tool: str) -> None:
    """A file that nobody looked at is not taken for whole: Redis is not to be started then."""
    broken = tmp_path / "bin" / tool
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    file = tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof"
    file.parent.mkdir()
    file.write_bytes(b"x" * SECTOR_BYTES + bytes(SECTOR_BYTES))
    ended = subprocess.run(
        ["/bin/sh", str(MEND), str(file.parent)],
        env=os.environ | {"PATH": f"{broken.parent}:{os.environ['PATH']}"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert b"mend-redis: " in ended.stderr


def test_a_folder_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    """Before the first start there is none; whoever has mistyped its name sees it."""
    ended = subprocess.run(["/bin/sh", str(MEND), str(tmp_path / "none")], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, b"there is no" in ended.stderr) == (0, True)
