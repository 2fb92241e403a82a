"""Fixtures of the conformance suites.

ports            function  an OpenHouse (tests/contract/houses.py): the ports of a house of this test's own,
                           opened in this process; once for each entry of OPENERS.
application      function  a fresh application of it.
chat             function  a fresh chat of that application.
embedded         function  an OpenHouse of the embedded house, for the tests of its own tables and failures.
tables           function  runs SQL on the embedded house's file, on a connection of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chat_system.model import ApplicationId
from tests.contract.houses import OPENERS, SQLITE_FILE, OpenHouse


@pytest.fixture(params=sorted(OPENERS))
async def ports(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """A house of this test's own, open."""
    house = OpenHouse(OPENERS[request.param], tmp_path)
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
def tables(embedded: OpenHouse, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own to the embedded house's file; every statement is a transaction."""
    with closing(sqlite3.connect(tmp_path / SQLITE_FILE, isolation_level=None, timeout=10)) as connection:
        yield connection
