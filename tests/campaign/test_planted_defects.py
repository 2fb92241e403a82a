"""A server with a defect in it is found out: by the log of its clients and what it shows, under load, over HTTP."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaign.watchers import Watchers
from tests.campaign.defective import DEFECTS
from tests.checker import check
from tests.client import Client
from tests.faults.load import Load
from tests.faults.reading import read_everything
from tests.houses import EmbeddedHouse

REQUESTS = 250
SETTLE_S = 1.0
SEED = "planted"
ROOT = Path(__file__).parents[2]


class DefectiveHouse(EmbeddedHouse):
    """The embedded house of the test build; without a defect, that of the product."""

    defect: str | None = None

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return super().environment() | {"PYTHONPATH": path}

    def run(self, command: str, log_path: Path) -> subprocess.Popen[bytes]:
        if self.defect is None:
            return super().run(command, log_path)
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.campaign.defective", self.defect, command],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[DefectiveHouse]:
    """A house that may be given a defect before it is started."""
    house = DefectiveHouse(tmp_path)
    yield house
    house.kill()


async def verdict(house: DefectiveHouse) -> tuple[set[str], list[str]]:
    """The rules that a server breaks under a short load, and what else was odd."""
    house.start()
    async with Client(house.url) as client:
        load = Load(client, SEED, clients=3)
        await load.prepare(applications=2)
        watchers = Watchers(client, load, random.Random(SEED))
        async with load.running(), watchers.following():
            while len(load.history) < REQUESTS:  # noqa: ASYNC110 - the test's own limit of time bounds it
                await asyncio.sleep(0.05)
        await load.settle()
        reading = await read_everything(client, load.tokens, settle_s=SETTLE_S)
        reading = await watchers.complete(reading, settle_s=SETTLE_S)
    return {one.rule.name for one in check(load.history, reading)}, load.surprises


async def test_a_server_without_a_defect_breaks_no_rule(planted: DefectiveHouse) -> None:
    """The same load, the same readers and searches: the product passes."""
    assert await verdict(planted) == (set(), [])


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_server_with_a_planted_defect_is_found_out(planted: DefectiveHouse, defect: str) -> None:
    """Each defect is named by the rules that it breaks."""
    planted.defect = defect
    rules, _ = await verdict(planted)
    assert DEFECTS[defect][1] <= rules
