"""The files of the project, as they would be committed: everything but what .gitignore names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def project_files() -> tuple[Path, ...]:
    """Every file of the project, sorted. Works in an unpacked archive as well as in a checkout."""
    ignored = [".git/", *(line for line in _lines(ROOT / ".gitignore") if not line.startswith("#"))]
    folders = {pattern.rstrip("/") for pattern in ignored if pattern.endswith("/")}
    names = [pattern for pattern in ignored if not pattern.endswith("/")]
    found = []
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if name not in folders]
        found += [Path(folder, name) for name in files if not any(fnmatch(name, pattern) for pattern in names)]
    return tuple(sorted(found))


def files(*suffixes: str) -> Iterator[Path]:
    """The project's files with one of these endings."""
    return (path for path in project_files() if path.suffix in suffixes)


def text_of(name: str) -> str:
    """A file of the project, by its path from the root."""
    return (ROOT / name).read_text("utf-8")


def shown(path: Path) -> str:
    """The path from the root."""
    return path.relative_to(ROOT).as_posix()


def texts() -> Iterator[tuple[str, str]]:
    """Every file that is text: its path from the root, and what it says."""
    for path in project_files():
        try:
            yield shown(path), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
