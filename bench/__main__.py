"""`python -m bench`: measure, print one table, append to the history.

Exit status: 0 when everything was measured, reached or not; 1 when a scenario failed; 2 for a wrong call;
130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import history, report
from bench.corpus import Corpus
from bench.houses import PROJECT
from bench.measure import Outcome, Wrong, run
from bench.processes import allow_many_sockets
from bench.scenarios import HOUSES, SCENARIOS, STACK, Scenario
from bench.stack import Stack
from bench.workbench import DEFAULT, QUICK, Workbench

SAMPLE = PROJECT / "examples" / "chat-sample.ndjson.gz"
ALL = "all"


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser("python -m bench", description="Measure Chat System beside its limits.")
    options.add_argument(
        "--quick", action="store_true", help="everything small: a look in about a minute, not a result"
    )
    options.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="these scenarios; the beginning of a name selects all that begin so",
    )
    options.add_argument(
        "--house",
        choices=[*HOUSES, ALL],
        default=ALL,
        help="the scenarios of this house; if absent, of all that this machine can run",
    )
    options.add_argument("--rounds", type=positive, metavar="N", help="measure each scenario and its limit N times")
    options.add_argument(
        "--large",
        type=positive,
        metavar="N",
        help="so many messages in the large database, written straight into the servers instead of imported",
    )
    options.add_argument(
        "--data", type=Path, metavar="FILE", help="messages as NDJSON, with sender and body; may be .gz"
    )
    options.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="where databases are made, on a real disk; import files are kept in it",
    )
    options.add_argument("--no-history", action="store_true", help="do not append this run to the history")
    options.add_argument("--list", action="store_true", help="list the scenarios")
    return options


def selected(names: Sequence[str] | None, house: str) -> list[Scenario]:
    """The scenarios of a house, or of all that the machine can run, that some names or their beginnings mean.

    Raises:
        Wrong: a name means none, or the machine can't run what was asked for.
    """
    scenarios = [scenario for scenario in SCENARIOS if house in (ALL, scenario.house)]
    for name in names or ():
        if not any(scenario.name.startswith(name) for scenario in scenarios):
            raise Wrong(f"no scenario is called {name}: {', '.join(s.name for s in scenarios)}")
    chosen = [scenario for scenario in scenarios if names is None or scenario.name.startswith(tuple(names))]
    if any(scenario.house == STACK for scenario in chosen) and (lacks := Stack.missing()):
        reason = f"this machine has no {', no '.join(lacks)}"
        if house == STACK or all(scenario.house == STACK for scenario in chosen):
            raise Wrong(reason)
        print(f"the stack house is left out: {reason}", file=sys.stderr)
        return [scenario for scenario in chosen if scenario.house != STACK]
    return chosen


def open_corpus(data: Path | None) -> Corpus:
    """The messages of the given file, else of the sample, else generated ones."""
    if data is not None:
        return Corpus.open(data)
    return Corpus.open(SAMPLE) if SAMPLE.exists() else Corpus.generated()


@contextlib.contextmanager
def work_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder for this run, and of it nothing afterwards."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chat-bench-", dir=parent) as folder:
        yield Path(folder)


@dataclass
class Results:
    """What a run found out so far."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def measure_all(scenarios: Sequence[Scenario], bench: Workbench, results: Results) -> None:
    """Measure one scenario after the other. One that fails does not cost the others their figures."""
    sizes = bench.sizes
    for scenario in scenarios:
        print(f"{time.strftime('%H:%M:%S')}  {scenario.name}: {scenario.about}", file=sys.stderr, flush=True)
        results.outcomes[scenario.name] = []
        try:
            with contextlib.ExitStack() as stack:
                stage = scenario.set_up(bench, stack)
                outcomes = run(stage, rounds=sizes.rounds, seconds=sizes.seconds, warm_up_s=sizes.warm_up_s)
                results.outcomes[scenario.name] = [labelled(outcome, scenario.house) for outcome in outcomes]
        except Wrong as error:
            results.failures[scenario.name] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other scenarios go on
            traceback.print_exc()
            results.failures[scenario.name] = f"{type(error).__name__}: {error}"


def labelled(outcome: Outcome, house: str) -> Outcome:
    """The outcome under a label that says which house it is about, where that is not the embedded one."""
    label = outcome.row.label
    if house != STACK or label.startswith(f"{house}: "):
        return outcome
    return dataclasses.replace(outcome, row=dataclasses.replace(outcome.row, label=f"{house}: {label}"))


def run_benchmark(options: argparse.Namespace) -> int:
    """Measure what the options ask for, print it and record it; the exit status.

    Raises:
        Wrong: the options ask for something that is not there.
    """
    scenarios = selected(options.only, options.house)
    houses = [house for house in HOUSES if any(scenario.house == house for scenario in scenarios)]
    corpus = open_corpus(options.data)
    sizes = QUICK if options.quick else DEFAULT
    if options.rounds is not None:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    if options.large is not None:
        sizes = sizes.with_large_database(options.large)
    allow_many_sockets()
    started_at = time.monotonic()
    with work_folder(options.workdir) as folder:
        entry = history.opening(
            house=", ".join(houses), corpus=corpus.source, sizes=sizes, folder=folder, quick=options.quick
        )
        results = Results()
        versions: dict[str, str] = {}
        for house in houses:
            # Elasticsearch refuses root, and as another user has to get through this folder.
            folder.chmod(0o755)
            own = folder / house
            own.mkdir()
            with Workbench(house, own, corpus, sizes, import_files=options.workdir or folder) as bench:
                measure_all([scenario for scenario in scenarios if scenario.house == house], bench, results)
                versions |= bench.stack.versions()
        entry |= {"servers": versions}
    entry |= history.closing(time.monotonic() - started_at, results.outcomes, results.failures)
    report.show(entry, results.outcomes, results.failures)
    if not options.no_history:
        history.append(entry)
    return 1 if results.failures else 0


def main() -> int:
    """Do what the command line asks for; the exit status."""
    options = parser().parse_args()
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:16} {scenario.about}")
        return 0
    # Asked to end, it must end its servers too, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_benchmark(options)
    except Wrong as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted, nothing was recorded", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
