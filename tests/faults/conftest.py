"""Fixtures of the fault suites.

seed        function  what every random choice of the test follows from. CHAT_TEST_SEED sets it, else it is
                      drawn anew; the report of a failed test names it.
under_load  function  under_load(house, ...) prepares a Load of a running house; its client is closed at the
            end.
expose      function  expose(**settings) makes a stack house, not started, whose servers can be taken away from it
            (tests/faults/exposed.py): an Exposed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import BuildHouse, Connect, own
from tests.faults.exposed import Exposed, wired
from tests.faults.load import Load
from tests.houses import House, SettingValue, StackHouse
from tests.servers.mariadb import MariaDBServer
from tests.servers.redis import RedisServer
from tests.servers.storage import Storage

UnderLoad = Callable[..., Awaitable[Load]]
Expose = Callable[..., Exposed]

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


@pytest.fixture
def expose(build_house: BuildHouse, own_redis: RedisServer) -> Iterator[Expose]:
    """Makes stack houses on servers that can be taken away; what they leave on shared ones is removed."""
    made: list[Exposed] = []

    with ExitStack() as wires:

        def make(
            mysql: MariaDBServer | None = None, redis: RedisServer = own_redis, **settings: SettingValue
        ) -> Exposed:
            servers = own(mysql=mysql, redis=redis)
            to_mysql, to_redis, to_search, through = wires.enter_context(wired(servers))
            house = build_house(through, **settings)
            assert isinstance(house, StackHouse)
            direct = Storage(servers)
            direct.name = house.storage.name
            made.append(Exposed(house, direct, redis, to_redis, to_mysql, to_search))
            return made[-1]

        yield make
        for one in made:
            one.house.kill()
            one.house.kill_worker()
            # Past the wires, so that what is on the run's servers is found and removed.
            one.house.storage.addresses = one.direct.addresses
