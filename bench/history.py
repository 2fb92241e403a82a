"""The record of the runs: one JSON object for each, appended to history.ndjson beside this module.

A record says on what machine and which commit it was measured, what every row showed (with all its
samples, so that another statistic can be taken later), and what failed. Why it failed is not kept: a
reason may quote a message or a token.

Not promised: that two records compare. Look at their machine first, then at the ratios, not at the figures.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from bench.houses import PROJECT
from bench.measure import Figure, Outcome
from bench.workbench import Sizes

HISTORY = Path(__file__).with_name("history.ndjson")

LIBRARIES = ("uvicorn", "uvloop", "httptools", "msgspec")
SIGNIFICANT = 5


def append(record: Mapping[str, object], path: Path = HISTORY) -> None:
    """Add one run to the history."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(record) + b"\n")


def opening(*, house: str, corpus: str, sizes: Sizes, folder: Path, quick: bool) -> dict[str, object]:
    """What is known of a run before it: when, which commit, on what machine, how much is measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **commit(),
        "house": house,
        "quick": quick,
        "corpus": corpus,
        "sizes": asdict(sizes),
        "machine": machine(folder),
    }


def closing(seconds: float, outcomes: Mapping[str, Sequence[Outcome]], failures: Collection[str]) -> dict[str, object]:
    """What is known of a run after it: how long it took, every row, and what failed."""
    return {
        "seconds": _rounded(seconds),
        "rows": [_row(scenario, outcome) for scenario, found in outcomes.items() for outcome in found],
        "failed": list(failures),
    }


def machine(folder: Path) -> dict[str, object]:
    """What the figures depend on."""
    cpu = _field(Path("/proc/cpuinfo"), "model name") or platform.machine()
    memory_kib = int((_field(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0])
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory_kib // 1024,
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{library: version(library) for library in LIBRARIES},
    }


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on: on some an fsync costs nothing and proves nothing."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text("utf-8", errors="replace").splitlines():
        _, mounted_at, kind, *_ = line.split(" ")
        if folder.resolve().is_relative_to(mounted_at) and len(mounted_at) >= len(best[0]):
            best = (mounted_at, kind)
    return best[1]


def commit() -> dict[str, object]:
    """The commit that was measured, and whether the files differ from it; null where there is none."""
    head = _git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = _git("status", "--porcelain", "--", "src", "bench/*.py", "requirements")
    return {"commit": head or None, "changed": bool(changed) if head else None}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - git is where the user has it
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _field(file: Path, name: str) -> str | None:
    for line in file.read_text("utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _row(scenario: str, outcome: Outcome) -> dict[str, object]:
    row, goal = outcome.row, outcome.row.goal
    return {
        "scenario": scenario,
        "label": row.label,
        "unit": row.unit,
        "figure": _figure(outcome.figure),
        "limit": {"label": row.limit_label, **_figure(outcome.limit)},
        "ratio": {name: _rounded(value) for name, value in asdict(outcome.ratio).items()},
        "goal": None if goal is None else asdict(goal),
        "reached": outcome.reached,
    }


def _figure(figure: Figure) -> dict[str, object]:
    return {
        "median": _rounded(figure.spread.median),
        "samples": [_rounded(sample) for sample in figure.samples],
        **{name: _rounded(value) for name, value in figure.details.items()},
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}")
