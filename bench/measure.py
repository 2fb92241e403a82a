"""The words of a benchmark, and the rounds in which it is measured.

A *contestant* is something that can be measured again and again; measuring it once gives a *sample*,
named figures. A *stage* is what a scenario sets up: contestants, the *rows* that compare them, and a
check that what was measured really happened. `run` measures all contestants in turn, round by round (A B
A B ...), so a machine that grows slower during the run slows the scenario and its limit alike.

A row's ratio is always figure / limit, taken within each round: for a rate more is better, for a time, a
cost or a size less is better. Medians are reported, with the smallest and the largest ratio beside them.

Not promised: significance. Few rounds on a busy machine give a wide spread, and the spread is printed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Sample = Mapping[str, float]

SHOWN_LATENCIES = ("p50_ms", "p99_ms")


class Wrong(Exception):
    """What was measured is not what should have happened, so the figures mean nothing."""


@dataclass(frozen=True)
class Goal:
    """What a row should reach: a bound on its ratio to the limit, or on the figure itself."""

    of: Literal["ratio", "figure"]
    bound: Literal["at_least", "at_most"]
    value: float

    def reached(self, figure: float, ratio: float | None) -> bool:
        """Whether the medians of a row keep the bound; without a ratio, a goal of a ratio is not reached."""
        judged = figure if self.of == "figure" else ratio
        if judged is None:
            return False
        return judged >= self.value if self.bound == "at_least" else judged <= self.value


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of one contestant beside a figure of another."""

    label: str
    contestant: str
    figure: str
    unit: str
    limit: str
    limit_label: str
    limit_figure: str = ""
    goal: Goal | None = None


@dataclass(frozen=True)
class Contestant:
    """Something to measure. `measure` is given the seconds that a timed measurement should take."""

    name: str
    measure: Callable[[float], Sample]
    warm_up: bool = True


@dataclass(frozen=True)
class Stage:
    """What a scenario set up. `rest` runs before each measurement, `check` once after the last one."""

    contestants: Sequence[Contestant]
    rows: Sequence[Row]
    rest: Callable[[], object] = field(default=lambda: None)
    check: Callable[[], None] = field(default=lambda: None)
    rounds_at_most: int | None = None
    """For what takes long and hardly varies."""


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of a handful of numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Figure:
    """What one contestant showed over all rounds, in the order of the rounds."""

    contestant: str
    samples: Sequence[float]
    details: Mapping[str, float]
    """The medians of all figures of its samples."""

    @property
    def spread(self) -> Spread:
        """Median, smallest and largest of the samples."""
        return Spread.of(self.samples)


@dataclass(frozen=True)
class Outcome:
    """A row with its figures."""

    row: Row
    figure: Figure
    limit: Figure

    @property
    def ratio(self) -> Spread:
        """Figure / limit, within each round."""
        return Spread.of([a / b for a, b in zip(self.figure.samples, self.limit.samples, strict=True)])

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where the row has none."""
        goal = self.row.goal
        return None if goal is None else goal.reached(self.figure.spread.median, self.ratio.median)


def run(stage: Stage, *, rounds: int, seconds: float, warm_up_s: float) -> list[Outcome]:
    """Measure all contestants of a stage `rounds` times, in turn, and compare them.

    Raises:
        Wrong: the stage's check found that the measured work was not done as it should.
    """
    for contestant in stage.contestants:
        if contestant.warm_up:
            stage.rest()
            contestant.measure(warm_up_s)
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in stage.contestants}
    for _ in range(min(rounds, stage.rounds_at_most or rounds)):
        for contestant in stage.contestants:
            stage.rest()
            samples[contestant.name].append(contestant.measure(seconds))
    stage.check()
    return [
        Outcome(
            row,
            _figure(row.contestant, row.figure, samples[row.contestant]),
            _figure(row.limit, row.limit_figure or row.figure, samples[row.limit]),
        )
        for row in stage.rows
    ]


def _figure(contestant: str, name: str, samples: Sequence[Sample]) -> Figure:
    details = {other: statistics.median([sample[other] for sample in samples]) for other in samples[0]}
    return Figure(contestant, [sample[name] for sample in samples], details)


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of an ordered, non-empty sequence lies, by nearest rank."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
