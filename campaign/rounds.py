"""A campaign in one mode: rounds of faults under load, each judged by itself; at the end all of them once more.

A round has applications, clients and live readers of its own, and its log is dropped once it was judged right: so a
campaign of any length needs no more memory than a round. Of what was right a digest is kept, and compared with what is
readable after the last fault. The log of a round that broke a promise is kept, one JSON object a line:

    python -m campaign check FOLDER       # judge a kept round again
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec

from campaign.faults import faults_of
from campaign.nemesis import Nemesis, Strike
from campaign.sites import Site
from campaign.watchers import Watchers
from tests.checker import check
from tests.client import Client
from tests.faults.history import CREATIONS, ApplicationReading, Exchange
from tests.faults.load import KEY_PREFIX, Load
from tests.faults.logs import tracebacks
from tests.faults.reading import read_everything

APPLICATIONS = 2
LOG, READING, STRIKES = "log.ndjson", "reading.json", "strikes.json"
DETAILS_PER_ROUND = 20
DETAIL_MAX_CHARACTERS = 1000


@dataclass
class Outcome:
    """What a campaign in one mode did and found."""

    mode: str
    seed: int
    servers: dict[str, str]
    sites: int = 1
    seconds: float = 0.0
    rounds: int = 0
    strikes: list[Strike] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    messages: int = 0
    events: int = 0
    searches: int = 0
    late_ends: int = 0
    torn_times: int = 0
    torn_bytes: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """How many faults there were; two at once are two."""
        return sum(len(strike.kinds) for strike in self.strikes)


@dataclass(frozen=True)
class Plan:
    """How long, from which seed, and how large a round is; of several sites at once, which this one is (from 1)."""

    seed: int
    minutes: float
    faults: int | None = None
    faults_per_round: int = 40
    clients: int = 4
    kept: Path = Path()
    only: str = ""
    site: int = 0

    @property
    def name(self) -> str:
        """Seed and site: what every choice follows from, and what the files of a run are called."""
        return f"{self.seed}-{self.site}" if self.site else str(self.seed)


async def attack(site: Site, plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """Run rounds until the time is up or the faults are injected; then judge all that is there once more."""
    plan.kept.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(site.mode, plan.seed, site.servers())
    chance = random.Random(f"{plan.name}/{site.mode}")
    chosen = [one for one in faults_of(site, chance) if plan.only in one.name]
    diary = plan.kept / f"{site.mode}-{plan.name}.log"
    nemesis = Nemesis(site, chosen, chance, outcome.strikes, tell=partial(_note, diary))
    began = time.monotonic()
    digests: dict[str, str] = {}

    def goes_on() -> bool:
        in_time = time.monotonic() - began < plan.minutes * 60
        return in_time and (plan.faults is None or nemesis.injected < plan.faults)

    await site.start()
    while goes_on():
        try:
            await _round(site, nemesis, plan, outcome, digests, goes_on)
        except (AssertionError, httpx.HTTPError, OSError, ValueError, subprocess.SubprocessError) as error:
            # A house that does not recover, or does not end when it is asked to: there is nothing left to attack.
            outcome.violations["STOPPED"] += 1
            outcome.details.append(f"round {outcome.rounds}, at {nemesis.now}, after {outcome.strikes[-3:]}: {error!r}")
            (plan.kept / f"{site.mode}-{plan.name}-stopped.log").write_text(site.log_text())
            return outcome
        outcome.seconds = time.monotonic() - began
        tell(
            f"{site.mode}: round {outcome.rounds}, {outcome.faults} faults, {outcome.acknowledged} acknowledged,"
            f" {sum(outcome.violations.values())} broken promises, {outcome.seconds:.0f} s"
        )
    await _judge_the_end(site, outcome, digests)
    outcome.late_ends = len(site.late_ends)
    outcome.torn_times, outcome.torn_bytes = site.unsynced.torn_times, site.unsynced.torn_bytes
    outcome.seconds = time.monotonic() - began
    return outcome


def _note(diary: Path, line: str) -> None:
    with diary.open("a") as file:
        file.write(f"{time.monotonic():.3f} {line}\n")


async def _round(
    site: Site, nemesis: Nemesis, plan: Plan, outcome: Outcome, digests: dict[str, str], goes_on: Callable[[], bool]
) -> None:
    outcome.rounds += 1
    seed = f"{plan.name}.{outcome.rounds}"
    until = nemesis.injected + plan.faults_per_round
    async with AsyncExitStack() as ends:
        client = await ends.enter_async_context(Client(site.url))
        load = Load(client, seed, plan.clients)
        await load.prepare(APPLICATIONS)
        watchers = Watchers(client, load, random.Random(seed))
        async with load.running(), watchers.following():
            await nemesis.until_served(load)
            while nemesis.injected < until and goes_on():
                await nemesis.strike(load)
        await load.settle()
        await site.until_applied()
        reading = await watchers.complete(await read_everything(client, load.tokens))
    _count(outcome, load, reading)
    violations = await asyncio.to_thread(check, load.history, reading)
    outcome.violations.update(one.rule.name for one in violations)
    outcome.violations["SURPRISE"] += len(load.surprises)
    found = [*load.surprises, *map(str, violations)]
    outcome.details += [f"round {outcome.rounds}: {one}"[:DETAIL_MAX_CHARACTERS] for one in found[:DETAILS_PER_ROUND]]
    if found:
        folder = plan.kept / f"{site.mode}-{plan.name}-round-{outcome.rounds}"
        keep(folder, load.history, reading)
        (folder / STRIKES).write_bytes(msgspec.json.encode(outcome.strikes))
        (folder / "processes.log").write_text(site.log_text())
    digests.update({token: digest(one) for token, one in reading.items()})


def _count(outcome: Outcome, load: Load, reading: Mapping[str, ApplicationReading]) -> None:
    outcome.answers.update("no answer" if one.status is None else str(one.status) for one in load.history)
    outcome.acknowledged += sum(one.acknowledged and one.ask in CREATIONS for one in load.history)
    outcome.messages += sum(len(chat.messages) for one in reading.values() for chat in one.chats)
    outcome.events += sum(len(copy.events) for one in reading.values() for copy in one.copies)
    outcome.searches += sum(len(one.searches) for one in reading.values())


async def _judge_the_end(site: Site, outcome: Outcome, digests: Mapping[str, str]) -> None:
    """What was right stays right, the operator's own check finds nothing, and no process met with a defect."""
    async with Client(site.url) as client:
        for token, before in digests.items():
            reading = await read_everything(client, [token])
            if token not in reading or digest(reading[token]) != before:
                outcome.violations["VANISHED"] += 1
                outcome.details.append("an application is no longer what it was when its round was judged")
    checked = await site.command("check")
    if checked.returncode:
        outcome.violations["CHECK"] += 1
        outcome.details.append(f"chat-system check: {checked.stdout[-2000:]}{checked.stderr[-1000:]}")
    told = told_secrets((*digests, KEY_PREFIX), {"logs": site.log_text(), "metrics": await site.metrics()})
    outcome.violations["TOKEN"] += len(told)
    outcome.details += told
    defects = tracebacks(site.log_text())
    outcome.violations["TRACEBACK"] += len(defects)
    outcome.details += [one[:DETAIL_MAX_CHARACTERS] for one in defects[:DETAILS_PER_ROUND]]


def told_secrets(secrets: Collection[str], places: Mapping[str, str]) -> list[str]:
    """Where tokens or keys stand that may stand nowhere, and how often."""
    counts = {place: sum(text.count(secret) for secret in secrets) for place, text in places.items()}
    return [f"tokens or keys stand in the {place} {count} times" for place, count in counts.items() if count]


def digest(reading: ApplicationReading) -> str:
    """What does not change when nobody changes it."""
    chats = [(one.chat, one.messages) for one in reading.chats]
    return hashlib.sha256(msgspec.json.encode((reading.application, chats), order="deterministic")).hexdigest()


def keep(folder: Path, history: list[Exchange], reading: Mapping[str, ApplicationReading]) -> None:
    """Write a round down, so that it can be judged again."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("wb") as log:
        for one in history:
            log.write(msgspec.json.encode(one) + b"\n")
    (folder / READING).write_bytes(msgspec.json.encode(reading))


def kept(folder: Path) -> tuple[list[Exchange], dict[str, ApplicationReading]]:
    """A round that was kept."""
    lines = (folder / LOG).read_bytes().splitlines()
    history: Any = [_exchange(line) for line in lines]
    return history, msgspec.json.decode((folder / READING).read_bytes(), type=dict[str, ApplicationReading])


def _exchange(line: bytes) -> Exchange:
    """One line; a request without an answer has null where its time of answer would be."""
    fields = msgspec.json.decode(line)
    if fields["answered_at"] is None:
        del fields["answered_at"]
    return msgspec.convert(fields, Exchange)
