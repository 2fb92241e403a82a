"""A wall clock that jumps, for processes that are started with it.

    clock = JumpingClock(folder)      # compiles clock.c
    clock.environment                 # what a process needs to be started with
    clock.jump(to_s=-3600)            # from now on it is an hour earlier for all of them

What measures durations does not jump, as on a real machine whose clock is set. Each process must be linked to the
system's C library, as redis-server and Python are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).parent / "clock.c"
COMPILE_TIMEOUT_S = 60
COMPILER = "cc"


def can_jump() -> bool:
    """Whether this machine has a C compiler, which it takes."""
    return shutil.which(COMPILER) is not None


class JumpingClock:
    """One clock for all processes that share its environment."""

    def __init__(self, folder: Path) -> None:
        self._shift = folder / "clock-shift"
        self._library = folder / "clock.so"
        self.jump(0)
        subprocess.run(
            [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)],
            check=True,
            timeout=COMPILE_TIMEOUT_S,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """To be added to a process's own."""
        return {"LD_PRELOAD": str(self._library), "SHIFTED_CLOCK": str(self._shift)}

    def jump(self, to_s: float) -> None:
        """Set the clock so many seconds after the true time, or before it."""
        file = os.open(self._shift, os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(file, int(to_s * 1e9).to_bytes(8, "little", signed=True), 0)
        finally:
            os.close(file)
