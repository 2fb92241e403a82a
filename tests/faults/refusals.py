"""Starts that must fail: one clear line for the operator, a code that says so, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.houses import House

REFUSAL_TIMEOUT_S = 30.0


def failure(house: House, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the house would; it must end by itself, with a code above zero and no traceback."""
    house.prepare()
    ended = subprocess.run(
        [sys.executable, "-m", "chat_system", *command],
        env=house.environment() | environment,
        cwd=house.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=REFUSAL_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode > 0, told(ended)
    assert "Traceback" not in ended.stdout + ended.stderr, told(ended)
    return ended


def told(ended: subprocess.CompletedProcess[str]) -> str:
    """All that an ended process told."""
    return f"exit code {ended.returncode}\nstdout: {ended.stdout}\nstderr: {ended.stderr}"


def refusal(house: House, *command: str, **environment: str) -> str:
    """Run `serve` (or the given command) as the house would; it must refuse. Its one line on stderr."""
    ended = failure(house, *(command or ("serve",)), **environment)
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, told(ended)
    return lines[0]


def contents(path: Path) -> dict[str, bytes]:
    """A file and what SQLite may have put beside it (write-ahead log, journal), by name."""
    beside = [path, *(path.with_name(path.name + ending) for ending in ("-wal", "-journal"))]
    return {file.name: file.read_bytes() for file in beside if file.exists()}


def scribble(path: Path, offset: int, length: int) -> None:
    """Overwrite a piece of a file with random bytes."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(length))
