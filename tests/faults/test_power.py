"""Loss of power: whatever was acknowledged before it is there afterwards, and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checker import check
from tests.conftest import BuildHouse, Connect, only
from tests.faults.conftest import UnderLoad
from tests.faults.history import Ask, Exchange
from tests.faults.power import NoDisks, make_disk, mounted, power_fails
from tests.faults.reading import read_everything
from tests.faults.unavailable import accepted
from tests.faults.whole import assert_whole

FAILURES = 2

pytestmark = only("embedded", because="the stack house keeps nothing on this disk: its servers do")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A disk's image and where it is mounted; the test is left out where no disk can be made."""
    image = tmp_path / "disk.ext4"
    try:
        make_disk(image)
        with mounted(image, tmp_path / "disk") as folder:
            yield image, folder
    except NoDisks as missing:
        pytest.skip(str(missing))


def known_at(history: list[Exchange], moment: float) -> list[Exchange]:
    """The clients' log at a moment: what had no answer yet is unknown, what was not sent is not there."""
    known = [one for one in history if one.answered_at <= moment]
    waiting = [one for one in history if one.sent_at <= moment < one.answered_at and one.ask is not Ask.READ]
    return known + [one.without_answer() for one in waiting]


async def test_what_was_acknowledged_before_the_power_failed_is_there_afterwards(
    disk: tuple[Path, Path], build_house: BuildHouse, connect: Connect, under_load: UnderLoad, seed: int
) -> None:
    """Under load the power fails at random moments: a server on what the disk held then keeps every promise."""
    image, folder = disk
    house, chance = build_house(sqlite_path=str(folder / "chat.sqlite3")), random.Random(seed)
    house.start()
    load = await under_load(house)
    moments: list[float] = []
    async with load.running():
        for failure in range(FAILURES):
            await accepted(load)
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            moments.append(time.monotonic())
            os.kill(house.pid, signal.SIGSTOP)
            power_fails(image, image.with_name(f"failure-{failure}"))
            os.kill(house.pid, signal.SIGCONT)
    house.kill()
    for failure, moment in enumerate(moments):
        left = image.with_name(f"failure-{failure}")
        with mounted(left, image.with_name(f"disk-{failure}")) as found:
            after = build_house(sqlite_path=str(found / "chat.sqlite3"))
            await asyncio.to_thread(after.start)
            reading = await read_everything(connect(after), load.tokens)
            await assert_whole(after)
            after.kill()
        assert [str(one) for one in check(known_at(load.history, moment), reading)] == []
