"""The table of a run.

Each row: a scenario's figure with its latencies, its limit's figure, their ratio with its spread, and the
goal with a plain word on whether it was reached. A scenario that failed keeps its place and says why.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.measure import SHOWN_LATENCIES, Figure, Goal, Outcome

WIDTH_WITHOUT_TERMINAL = 180
VOLATILE_FILE_SYSTEMS = {"tmpfs", "ramfs"}
CLIENT_BOUND = 0.95
"""From this share of a core on, the client may have been what was measured."""


def show(entry: Mapping[str, object], outcomes: Mapping[str, Sequence[Outcome]], failures: Mapping[str, str]) -> None:
    """Print the table of a run, with what a reader of it must know."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
    console.print(table(outcomes, failures))
    for scenario, reason in failures.items():
        console.print(f"[bold red]{scenario} failed:[/] {escape(reason)}")
    for note in footnotes(entry, outcomes):
        console.print(escape(note))


def table(outcomes: Mapping[str, Sequence[Outcome]], failures: Mapping[str, str]) -> Table:
    """All scenarios, in the order in which they ran."""
    grid = Table(header_style="bold", pad_edge=False)
    grid.add_column("scenario", overflow="fold")
    grid.add_column("figure", justify="right", no_wrap=True)
    grid.add_column("p50 / p99 ms", justify="right", no_wrap=True)
    grid.add_column("limit", overflow="fold")
    grid.add_column("its figure", justify="right", no_wrap=True)
    grid.add_column("ratio (min - max)", justify="right", no_wrap=True)
    grid.add_column("goal", no_wrap=True)
    grid.add_column("reached", no_wrap=True)
    for scenario, found in outcomes.items():
        for outcome in found:
            grid.add_row(*_cells(outcome))
        if scenario in failures:
            grid.add_row(scenario, "[bold red]failed[/]", "", "see below")
        grid.add_section()
    return grid


def footnotes(entry: Mapping[str, object], outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """The machine, the corpus, and how to read the ratios."""
    machine = cast(Mapping[str, object], entry["machine"])
    where = (
        f"{machine['cores']} x {machine['cpu']}, {machine['memory_mib']} MiB, Linux {machine['kernel']}, "
        f"{machine['file_system']}, Python {machine['python']}, SQLite {machine['sqlite']}; "
        f"messages: {entry['corpus']}; {entry['seconds']:.0f} s"
    )
    servers = cast(Mapping[str, str], entry["servers"])
    notes = [
        where,
        *(["stack mode on " + ", ".join(f"{name} {version}" for name, version in servers.items())] if servers else []),
        "ratio = figure / limit within each round: of a rate more is better, of a time, cost or size less.",
    ]
    if machine["file_system"] in VOLATILE_FILE_SYSTEMS:
        notes.append("The databases were in memory: an fsync cost nothing. Choose a folder on a disk with --workdir.")
    if entry["quick"]:
        notes.append("--quick measures too little to conclude anything from.")
    if any(_is_client_bound(figure) for found in outcomes.values() for o in found for figure in (o.figure, o.limit)):
        notes.append("* the client used its whole core, so the server may be faster than this figure.")
    return notes


def _cells(outcome: Outcome) -> list[str]:
    row, ratio = outcome.row, outcome.ratio
    return [
        escape(row.label),
        _figure(outcome.figure, row.unit),
        _latencies(outcome.figure) if row.unit.endswith("/s") or row.unit == "ms" else "",
        escape(row.limit_label),
        _figure(outcome.limit, row.unit),
        f"{number(ratio.median)} ({number(ratio.low)} - {number(ratio.high)})",
        "" if row.goal is None else goal_text(row.goal, row.unit),
        {None: "", True: "[green]yes[/]", False: "[bold red]no[/]"}[outcome.reached],
    ]


def _figure(figure: Figure, unit: str) -> str:
    return f"{number(figure.spread.median)} {unit}{'*' if _is_client_bound(figure) else ''}"


def _latencies(figure: Figure) -> str:
    if not all(name in figure.details for name in SHOWN_LATENCIES):
        return ""
    return " / ".join(number(figure.details[name]) for name in SHOWN_LATENCIES)


def _is_client_bound(figure: Figure) -> bool:
    return figure.details.get("client_cpu", 0.0) >= CLIENT_BOUND


def goal_text(goal: Goal, unit: str) -> str:
    """A goal as the table shows it."""
    sign = "≥" if goal.bound == "at_least" else "≤"
    return f"{sign} {number(goal.value)}" + (f" {unit}" if goal.of == "figure" else "")


def number(value: float) -> str:
    """A number with about three significant digits, and all digits before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
