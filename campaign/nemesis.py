"""Chooses faults, injects them one or two at a time, heals them, and measures how long recovery took.

Recovered is a house when it has acknowledged a message, shown it to a reader, and answered a search, all asked for
after healing began. What the probe posts is in the clients' log like everything else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from campaign.faults import Fault
from campaign.sites import Site
from tests.faults.load import Load

PAIR_SHARE = 0.25
STAGGER_S = 0.3
PAUSE_S = (0.05, 0.5)
RECOVERY_TIMEOUT_S = 120.0
STRIKE_TIMEOUT_S = 300.0
PROBE_PAUSE_S = 0.02
PAIR = "two at once"


class NotRecovered(AssertionError):
    """The house did not serve again in RECOVERY_TIMEOUT_S."""


@dataclass(frozen=True)
class Strike:
    """One fault, or two at once: when healing began, by the clock of the log, and how long it took to recover."""

    kinds: tuple[str, ...]
    at: float
    recovered_s: float


@dataclass
class Nemesis:
    """The faults of one site, what was done so far, and what is being done."""

    site: Site
    faults: Sequence[Fault]
    chance: random.Random
    strikes: list[Strike] = field(default_factory=list)
    now: tuple[str, ...] = ()
    tell: Callable[[str], None] = print

    @property
    def injected(self) -> int:
        """How many faults there were; a pair counts as two."""
        return sum(len(strike.kinds) for strike in self.strikes)

    async def strike(self, load: Load) -> Strike:
        """Let something happen to the house under this load, and see it recover.

        Raises:
            TimeoutError: it took more than STRIKE_TIMEOUT_S in all.
        """
        async with asyncio.timeout(STRIKE_TIMEOUT_S):
            return await self._strike(load)

    async def _strike(self, load: Load) -> Strike:
        chosen = self._choose()
        self.now = tuple(one.name for one in chosen)
        self.tell(f"{self.injected}: {' + '.join(self.now)}")
        await asyncio.sleep(self.chance.uniform(*PAUSE_S))
        if any(one.at_rest for one in chosen):
            load.pause()
            await load.quiet()
            await self.site.until_applied()
        for fault in chosen:
            await fault.inject()
            if fault is not chosen[-1]:
                await asyncio.sleep(self.chance.uniform(0, STAGGER_S))
        load.resume()
        await asyncio.sleep(max(self.chance.uniform(*one.lasts_s) for one in chosen))
        since = time.monotonic()
        # At the same time: what is started may need what the other fault took away.
        await asyncio.gather(*(one.heal() for one in self.chance.sample(chosen, len(chosen))))
        await self.until_served(load)
        self.tell(f"    recovered after {time.monotonic() - since:.3f} s")
        struck = Strike(self.now, since, time.monotonic() - since)
        self.strikes.append(struck)
        return struck

    def _choose(self) -> list[Fault]:
        weights = [one.weight for one in self.faults]
        first = self.chance.choices(self.faults, weights)[0]
        if first.at_rest or self.chance.random() >= PAIR_SHARE:
            return [first]
        others = [one for one in self.faults if one.touches != first.touches and not one.at_rest]
        if not others:
            return [first]
        return [first, self.chance.choices(others, [one.weight for one in others])[0]]

    async def until_served(self, load: Load) -> None:
        """Wait until the house serves.

        Raises:
            NotRecovered: it does not.
        """
        since = time.monotonic()
        while not await load.serves():
            if time.monotonic() - since > RECOVERY_TIMEOUT_S:
                raise NotRecovered(f"not recovered after {RECOVERY_TIMEOUT_S:.0f} s")
            await asyncio.sleep(PROBE_PAUSE_S)
