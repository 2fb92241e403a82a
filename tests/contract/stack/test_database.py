"""The database itself: migrating it, and what happens when it is away, refuses us, or drops connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from asyncmy.errors import MySQLError

from chat_system.errors import ConfigurationError, Unavailable
from chat_system.stack import store as module
from chat_system.stack.mysql import Address, Database
from chat_system.stack.schema import REVISIONS, migrate
from chat_system.stack.store import StackStore
from tests.contract.stack.facts import (
    create,
)
from tests.servers.process import free_port
from tests.servers.storage import Storage

NOT_INSERTABLE = 1471
VERSIONS = Path(module.__file__).parent / "migrations" / "versions"


def test_the_history_of_the_schema_is_known_by_name() -> None:
    """What the program knows without Alembic is what stands in its folder."""
    assert tuple(sorted(file.stem.partition("_")[0] for file in VERSIONS.glob("[0-9]*.py"))) == REVISIONS


async def test_of_many_that_migrate_at_once_one_does(storage: Storage) -> None:
    """The others wait for it; the tables are there for all."""
    new = Storage(storage.addresses, "migrating")
    new.create_database()
    try:
        assert sorted(await asyncio.gather(*(migrate(new.mysql_url) for _ in range(5)))) == [False] * 4 + [True]
        database = await Database.open(new.mysql_url)
        assert await database.fetch("SELECT * FROM messages") == []
        # A migration that was cut off is run again from its beginning.
        await database.fetch("DELETE FROM alembic_version")
        assert await migrate(new.mysql_url)
        await database.fetch("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(ConfigurationError, match="newer"):
            await migrate(new.mysql_url)
        await database.close()
    finally:
        new.execute(f"DROP DATABASE {new.database}", database="")


async def test_a_server_that_is_not_there_is_unavailable(storage: Storage) -> None:
    """Opening needs nobody; each call says so by itself, migrating after the time it was given."""
    away = replace(Address.of(storage.mysql_url), port=free_port())
    database = Database(away, 2)
    with pytest.raises(Unavailable, match="away"):
        await database.fetch("SELECT 1")
    with pytest.raises(Unavailable, match="away"):
        async with database.transaction():
            pytest.fail("there is no server")
    with pytest.raises(Unavailable):
        await migrate(f"mysql://chat@127.0.0.1:{away.port}/chat", wait_s=0.1)
    await database.close()


async def test_a_server_that_keeps_silent_is_unavailable(storage: Storage) -> None:
    """It accepts the connection and never says a word."""
    silence = asyncio.Event()

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        database = Database(replace(Address.of(storage.mysql_url), port=port), 2)
        with pytest.raises(Unavailable, match="does not answer"):
            await database.fetch("SELECT 1", timeout_s=0.2)
        await database.close()
        silence.set()


async def test_who_may_not_enter_is_told_by_the_operators_words(storage: Storage) -> None:
    """Reads are Unavailable, for somebody may mend it; migrating names the place, and never the password."""
    parts = Address.of(storage.mysql_url)
    url = f"mysql://nobody:a-secret@{parts.host}:{parts.port}/{parts.database}"
    database = await Database.open(url)
    with pytest.raises(Unavailable, match="refuses"):
        await database.fetch("SELECT 1")
    with pytest.raises(ConfigurationError, match=parts.database) as caught:
        await migrate(url)
    assert "a-secret" not in str(caught.value) + repr(database.address)
    for wrong in (
        "mysql://host:3306",
        "mysql://host:99999/chat",
        "mysql://host/chat?ssl=1",
        "mysql://host/chat?tls=/no",
    ):
        with pytest.raises(ConfigurationError, match="CHAT_MYSQL_URL"):
            await Database.open(wrong)


async def test_what_stops_a_migration_is_told_in_mysqls_words(storage: Storage) -> None:
    """It happens in a process of its own, and means here what it would mean if it had happened here."""
    new = Storage(storage.addresses, "migrating")
    new.create_database()
    try:
        new.execute("CREATE VIEW alembic_version AS SELECT * FROM (SELECT '' AS version_num) AS none WHERE FALSE")
        with pytest.raises(MySQLError, match="not insertable") as caught:
            await migrate(new.mysql_url)
        assert caught.value.args[0] == NOT_INSERTABLE
        new.execute("DROP VIEW alembic_version")
        assert await migrate(new.mysql_url)
    finally:
        new.execute(f"DROP DATABASE {new.database}", database="")


async def test_a_process_that_migrates_does_not_keep_what_that_takes(storage: Storage) -> None:
    """Alembic and SQLAlchemy would be as much memory as a third of all the rest."""
    new = Storage(storage.addresses, "migrating")
    new.create_database()
    code = "import os, sys; from chat_system.settings import Settings; from chat_system.wiring import migrate; "
    code += "print(migrate(Settings.from_environment(os.environ)), {'alembic', 'sqlalchemy'} & sys.modules.keys())"
    environment = os.environ | {"CHAT_MODE": "stack", "CHAT_MYSQL_URL": new.mysql_url}
    try:
        said = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert said.stdout.splitlines()[-1] == "True set()"
    finally:
        new.execute(f"DROP DATABASE {new.database}", database="")


async def test_connections_that_died_idle_are_replaced(store: StackStore, database: Database) -> None:
    """Neither a read nor a transaction fails for it."""
    await asyncio.gather(*(database.fetch("SELECT SLEEP(0.05)") for _ in range(4)))
    for _ in range(2):
        victims = await database.fetch(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        assert victims
        own = (await database.fetch("SELECT CONNECTION_ID()"))[0][0]
        other = await Database.open(await url_of(database))
        for (victim,) in [*victims, (own,)]:
            await other.fetch(f"KILL {victim}")
        await other.close()
        await create(store, f"{own}-")
        await asyncio.gather(*(database.fetch("SELECT SLEEP(0.05)") for _ in range(4)))


async def url_of(database: Database) -> str:
    """The address as it is set."""
    address = database.address
    password = f":{quote(address.password, safe='')}" if address.password else ""
    return f"mysql://{address.user}{password}@{address.host}:{address.port}/{address.database}"


async def test_a_transaction_that_is_cancelled_leaves_nothing(store: StackStore, database: Database) -> None:
    """Its locks are gone as well: the next one does not wait for them."""
    application = await create(store, "a")

    async def hold() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE applications SET name = 'other' WHERE id = %s", (application,))
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await store.rename_application(application, "renamed")).name == "renamed"
