"""Fixtures of the conformance suites.

ports            function  an OpenHouse (tests/contract/houses.py): the ports of a house of this test's own,
                           opened in this process; once for each entry of OPENERS, and for what OF_REDIS names
                           once more, on a Redis Cluster.
application      function  a fresh application of it.
chat             function  a fresh chat of that application.
embedded         function  an OpenHouse of the embedded house, for the tests of its own tables and failures.
stack            function  an OpenHouse of the stack house, with no worker, for what is its alone.
tables           function  runs SQL on the embedded house's file, on a connection of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from chat_system.model import ApplicationId
from tests.contract.houses import CLUSTER, OPENERS, SQLITE_FILE, Opener, OpenHouse, open_stack

OF_REDIS = ("test_journal_", "test_feed", "test_together")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of `ports` is about each house, those of Redis about the stack house on a Redis Cluster too."""
    if "ports" in metafunc.fixturenames:
        of_redis = "stack" in OPENERS and metafunc.module.__name__.rpartition(".")[2].startswith(OF_REDIS)
        metafunc.parametrize("ports", [*sorted(OPENERS), *([CLUSTER] if of_redis else [])], indirect=True)


@pytest.fixture
async def ports(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """A house of this test's own, open."""
    if request.param == CLUSTER:
        opener: Opener = partial(open_stack, redis_url=request.getfixturevalue("redis_cluster").url)
    else:
        opener = OPENERS[request.param]
    house = OpenHouse(opener, tmp_path)
    await house.open()
    yield house
    await house.close()


@pytest.fixture
async def application(ports: OpenHouse) -> ApplicationId:
    """A fresh application."""
    return await ports.new_application()


@pytest.fixture
async def chat(ports: OpenHouse, application: ApplicationId) -> int:
    """A fresh chat in the fresh application."""
    return await ports.open_chat(application)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """An embedded house of this test's own, open."""
    house = OpenHouse(OPENERS["embedded"], tmp_path)
    await house.open()
    yield house
    await house.close()


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """The stack house without a worker."""
    house = OpenHouse(OPENERS["stack"], tmp_path)
    await house.open()
    yield house
    await house.close()


@pytest.fixture
def tables(embedded: OpenHouse, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own to the embedded house's file; every statement is a transaction."""
    with closing(sqlite3.connect(tmp_path / SQLITE_FILE, isolation_level=None, timeout=10)) as connection:
        yield connection
