"""The stack's store on its own: how it applies facts to MySQL, and what it tells the journal about them.

What readers see is the business of the suites of every house; nothing here asks for the journal's tail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from chat_system.model import ApplicationId
from chat_system.stack.mysql import Database
from chat_system.stack.schema import migrate
from chat_system.stack.store import StackStore
from tests.contract.stack.facts import create
from tests.contract.stack.surroundings import Surroundings
from tests.servers.shared import run_servers, wanted
from tests.servers.storage import Storage

if not wanted():
    collect_ignore_glob = ["test_*.py"]

TABLES = ("applications", "chats", "messages", "receipts", "journal_epochs", "installation")


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """A database of these tests' own, with all tables."""
    storage = Storage(run_servers().addresses(), "store")
    storage.create_database()
    asyncio.run(migrate(storage.mysql_url))
    yield storage
    storage.execute(f"DROP DATABASE {storage.database}")


@pytest.fixture
async def database(storage: Storage) -> AsyncIterator[Database]:
    """Open, and empty."""
    database = await Database.open(storage.mysql_url)
    async with database.transaction() as transaction:
        for table in TABLES:
            await transaction.execute(f"DELETE FROM {table}")
    yield database
    await database.close()


@pytest.fixture
def around() -> Surroundings:
    """Hears what the store tells others."""
    return Surroundings()


@pytest.fixture
def store(database: Database, around: Surroundings) -> StackStore:
    """A store whose tail nobody asks."""
    tail: Any = None
    store = StackStore(database, tail, around.erased)
    store.forget, store.erase_index = around.forget, around.erase_index
    return store


@pytest.fixture
async def application(store: StackStore) -> ApplicationId:
    """A fresh application."""
    return await create(store, "a")
