"""`python -m bench.ledger`: what the history says, for people: the table in docs/performance.md, and the picture there.

The table shows each row as it was measured last. The picture shows, for each row that has a goal, its ratio in every
run that is not a quick one, with the goal as a line; above the line is better, whichever way the goal is meant.

Not promised: anything that is not in the history.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import msgspec

from bench.history import HISTORY
from bench.houses import PROJECT
from bench.measure import Goal
from bench.report import goal_text, number

PAGE = PROJECT / "docs" / "performance.md"
PICTURE = PROJECT / "docs" / "images" / "performance.svg"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

COLUMNS = 3
CELL_WIDTH, CELL_HEIGHT = 300, 96
PLOT_LEFT, PLOT_TOP, PLOT_WIDTH, PLOT_HEIGHT = 8, 30, 230, 52

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; fill: #24292f }
.goal { stroke: #9a6700; stroke-dasharray: 3 3 }
.line { fill: none; stroke: #0969da; stroke-width: 1.5 }
.span { stroke: #0969da; stroke-opacity: .35; stroke-width: 3 }
.dot { fill: #0969da }
.missed { fill: #cf222e }
.frame { fill: none; stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #8b949e } .title { fill: #e6edf3 } .frame { stroke: #30363d }
  .line, .span { stroke: #58a6ff } .dot { fill: #58a6ff } .missed { fill: #ff7b72 } .goal { stroke: #d29922 }
}
"""


@dataclass(frozen=True)
class Point:
    """One row of one run."""

    run: Mapping[str, Any]
    row: Mapping[str, Any]


def points(history: Path) -> Iterator[Point]:
    """All rows of all runs, oldest first, quick ones left out."""
    for line in history.read_bytes().splitlines():
        run = msgspec.json.decode(line)
        if not run["quick"]:
            for row in run["rows"]:
                yield Point(run, row)


def by_row(found: Sequence[Point]) -> dict[tuple[str, str], list[Point]]:
    """The points of each row, by its label and its limit's: of the rows that their scenario's last run has."""
    last_run = {point.row["scenario"]: point.run["date"] for point in found}
    rows: dict[tuple[str, str], list[Point]] = {}
    for point in found:
        rows.setdefault((point.row["label"], point.row["limit"]["label"]), []).append(point)
    return {key: seen for key, seen in rows.items() if seen[-1].run["date"] == last_run[seen[-1].row["scenario"]]}


def table(rows: Mapping[tuple[str, str], Sequence[Point]]) -> str:
    """Each row as it was measured last, in Markdown."""
    lines = [
        "| what | median | limit | its median | ratio (min - max) | goal | commit |",
        "| --- | ---: | --- | ---: | ---: | --- | --- |",
    ]
    for (label, limit), seen in rows.items():
        row, run = seen[-1].row, seen[-1].run
        ratio, unit = row["ratio"], row["unit"]
        spread = f"{number(ratio['median'])} ({number(ratio['low'])} - {number(ratio['high'])})"
        goal = "" if row["goal"] is None else goal_text(msgspec.convert(row["goal"], Goal), unit)
        verdict = {None: goal, True: f"{goal}: yes", False: f"{goal}: **no**"}[row["reached"]]
        figure, of_limit = number(row["figure"]["median"]), number(row["limit"]["median"])
        commit = (run["commit"] or "")[:8]
        lines.append(f"| {label} | {figure} {unit} | {limit} | {of_limit} {unit} | {spread} | {verdict} | {commit} |")
    return "\n".join(lines)


def machines(rows: Mapping[tuple[str, str], Sequence[Point]]) -> str:
    """On what the rows of the table were measured, one line for each run among them."""
    lines: dict[str, None] = {}
    for seen in rows.values():
        run = seen[-1].run
        machine, servers = run["machine"], run.get("servers") or {}
        lines[
            f"- {run['date'][:10]}, commit {(run['commit'] or '')[:8]}, {run['sizes']['rounds']} rounds: "
            f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_mib']:,} MiB, Linux {machine['kernel']}, "
            f"{machine['file_system']}, Python {machine['python']}, SQLite {machine['sqlite']}"
            + "".join(f", {name} {version}" for name, version in servers.items())
        ] = None
    return "\n".join(lines)


def picture(rows: Mapping[tuple[str, str], Sequence[Point]]) -> str:
    """The rows that have a goal, each in a frame of its own."""
    drawn = [(key, seen) for key, seen in rows.items() if seen[-1].row["goal"] is not None]
    height = -(-len(drawn) // COLUMNS) * CELL_HEIGHT
    cells = [_cell(index, label, seen) for index, ((label, _), seen) in enumerate(drawn)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * CELL_WIDTH}" height="{height}"'
        f' role="img" aria-label="How close each path is to its goal, run by run">\n<style>{STYLE}</style>\n'
        + "\n".join(cells)
        + "\n</svg>\n"
    )


def _cell(index: int, label: str, seen: Sequence[Point]) -> str:
    left, top = (index % COLUMNS) * CELL_WIDTH, (index // COLUMNS) * CELL_HEIGHT
    scores = [_score(point) for point in seen]
    highest = max(1.2, *(score[2] for score in scores)) * 1.05

    def x(turn: int) -> float:
        return PLOT_LEFT + 8 + turn * (PLOT_WIDTH - 16) / max(1, len(scores) - 1)

    def y(score: float) -> float:
        return PLOT_TOP + PLOT_HEIGHT * (1 - min(score, highest) / highest)

    path = " ".join(f"{x(turn):.1f},{y(score[0]):.1f}" for turn, score in enumerate(scores))
    marks = [
        f'<line class="span" x1="{x(turn):.1f}" x2="{x(turn):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'
        f'<circle class="dot{"" if median >= 1 else " missed"}" cx="{x(turn):.1f}" cy="{y(median):.1f}" r="3"/>'
        for turn, (median, low, high) in enumerate(scores)
    ]
    return "".join(
        [
            f'<g transform="translate({left} {top})"><text class="title" x="{PLOT_LEFT}" y="20">{escape(label)}</text>',
            f'<rect class="frame" x="{PLOT_LEFT}" y="{PLOT_TOP}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}"/>',
            f'<line class="goal" x1="{PLOT_LEFT}" x2="{PLOT_LEFT + PLOT_WIDTH}" y1="{y(1):.1f}" y2="{y(1):.1f}"/>',
            f'<polyline class="line" points="{path}"/>',
            *marks,
            f'<text x="{PLOT_LEFT + PLOT_WIDTH + 6}" y="{y(scores[-1][0]) + 4:.1f}">{number(scores[-1][0])}</text></g>',
        ]
    )


def _score(point: Point) -> tuple[float, float, float]:
    """How much of the goal was reached, 1 being just that: median, lowest, highest."""
    goal = point.row["goal"] or {"of": "ratio", "bound": "at_least", "value": 1.0}
    if goal["of"] == "ratio":
        values = [point.row["ratio"][name] for name in ("median", "low", "high")]
    else:
        samples = point.row["figure"]["samples"]
        values = [point.row["figure"]["median"], min(samples), max(samples)]
    scores = [value / goal["value"] if goal["bound"] == "at_least" else goal["value"] / value for value in values]
    return scores[0], min(scores), max(scores)


def main() -> int:
    """Write the table and the picture; the exit status."""
    rows = by_row(list(points(HISTORY)))
    text = PAGE.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{PAGE} has no place for the table: {BEGIN} {END}", file=sys.stderr)
        return 1
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\nMeasured on:\n\n{machines(rows)}\n\n{END}{after}", "utf-8")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(rows), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
