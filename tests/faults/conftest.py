"""Fixtures of the fault suites.

seed        function  what every random choice of the test follows from. CHAT_TEST_SEED sets it, else it is
                      drawn anew; the report of a failed test names it.
under_load  function  under_load(house, ...) prepares a Load of a running house; its client is closed at the
end.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import Connect
from tests.faults.load import Load
from tests.houses import House

UnderLoad = Callable[..., Awaitable[Load]]

SEEDS = 1_000_000


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's random choices, named in its report if it fails."""
    chosen = int(os.environ.get("CHAT_TEST_SEED", random.randrange(SEEDS)))
    request.node.add_report_section("setup", "seed", f"repeat with CHAT_TEST_SEED={chosen}")
    return chosen


@pytest.fixture
def under_load(connect: Connect, seed: int) -> UnderLoad:
    """Prepares loads: applications with a chat each, and clients that know them."""
    prepared = 0

    async def prepare(house: House, *, clients: int = 8, applications: int = 2) -> Load:
        nonlocal prepared
        load = Load(connect(house), f"{seed}.{prepared}", clients)
        prepared += 1
        await load.prepare(applications)
        return load

    return prepare
