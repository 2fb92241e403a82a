"""The commands of the campaign: `python -m campaign --help`."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from campaign import record, tables
from campaign.fuzz import Fuzz
from campaign.hostile import HOLD_S, Target
from campaign.hostile import attack as attack_by_clients
from campaign.rounds import Plan, kept
from campaign.together import SITES, attack_alone, attack_together
from tests.checker import check as judge
from tests.houses import EmbeddedHouse
from tests.servers.shared import missing

SEEDS = 1_000_000
RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"
UNLIMITED = {"rate_per_s": 10_000_000, "rate_burst": 10_000_000, "unknown_rate_per_s": 10_000_000}

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def tell(line: str) -> None:
    """Say it at once."""
    print(line, flush=True)


@cli.command()
def run(
    minutes: Annotated[float, typer.Option(help="How long to attack each mode.")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="Repeats the choices of a run.")] = None,
    mode: Annotated[str, typer.Option(help="embedded, stack or both.")] = "both",
    faults: Annotated[int | None, typer.Option(help="Stop after so many faults.")] = None,
    sites: Annotated[int, typer.Option(help="How many houses to attack at once, each with servers of its own.")] = 1,
    only: Annotated[str, typer.Option(help="Only faults whose name contains this.")] = "",
    out: Annotated[Path, typer.Option(help="Where results and kept rounds go.")] = RESULTS,
) -> None:
    """Attack the house under load, judge, and record what was found."""
    # So that what was started ends when this is asked to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = random.randrange(SEEDS) if seed is None else seed
    modes = [mode] if mode != "both" else list(SITES)
    if lacks := missing():
        tell(f"without the stack house: this machine has no {', no '.join(lacks)}")
        modes = [one for one in modes if one != "stack"]
    broken = 0
    for one in modes:
        tell(f"{one}: seed {chosen}, {minutes:g} minutes, sites: {sites}")
        plan = Plan(chosen, minutes, faults, kept=out, only=only)
        outcome = attack_together(one, plan, sites, tell) if sites > 1 else attack_alone(one, plan, tell)
        record.write(out / f"faults-{one}.json", record.of_faults(outcome))
        for detail in outcome.details:
            tell(detail)
        broken += sum(outcome.violations.values())
    sys.exit(1 if broken else 0)


@cli.command()
def fuzz(
    requests: Annotated[int, typer.Option(help="How many.")] = 1_000_000,
    minutes: Annotated[float, typer.Option(help="Stop after so long.")] = 60.0,
    seed: Annotated[int | None, typer.Option(help="Repeats the choices of a run.")] = None,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULTS,
) -> None:
    """Send requests that are made up from the OpenAPI document, and judge every answer."""
    chosen = random.randrange(SEEDS) if seed is None else seed
    tell(f"seed {chosen}, {requests} requests")
    with _lonely_house() as house:
        found = Fuzz(house.url, house.pid, chosen).run(requests, tell, minutes)
        record.write(out / "fuzz.json", record.of_fuzz(found))
        tell("\n".join(found.examples))
        defects = house.log_text().count("Traceback")
    tell(f"{found.requests} requests, faults: {dict(found.faults)}, tracebacks in the log: {defects}")
    sys.exit(1 if found.faults or defects else 0)


@cli.command()
def hostile(
    hold_s: Annotated[float, typer.Option(help="How long each kind of client holds on.")] = HOLD_S,
    share: Annotated[float, typer.Option(help="Fewer clients: 0.1 is a tenth.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULTS,
) -> None:
    """Send slow, greedy and rude clients, and see whether others are served meanwhile."""
    with _lonely_house() as house:
        found = asyncio.run(attack_by_clients(Target.of(house.host, house.port, house.pid), hold_s, share))
        record.write(out / "hostile.json", record.of_hostile(found))
    for one in found:
        tell(f"{one.kind}: {one}")
    sys.exit(1 if any(one.bystander_failures for one in found) else 0)


@contextmanager
def _lonely_house() -> Iterator[EmbeddedHouse]:
    """An embedded house in memory, if the system has such a place: what it writes is not what is tested."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
    place = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="chat-system-campaign-", dir=place) as folder:
        house = EmbeddedHouse(Path(folder), UNLIMITED)
        try:
            house.start()
            yield house
        finally:
            house.kill()


@cli.command()
def report(
    results: Annotated[Path, typer.Option(help="Where the results are.")] = RESULTS,
    document: Annotated[Path, typer.Option(help="The document whose tables are made anew.")] = DOCUMENT,
) -> None:
    """Write the figures of the last runs into docs/reliability.md."""
    document.write_text(tables.renewed(document.read_text("utf-8"), results), "utf-8")


@cli.command()
def check(folder: Path) -> None:
    """Judge a round again that broke a promise."""
    violations = judge(*kept(folder))
    for one in violations:
        tell(str(one))
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    cli()
