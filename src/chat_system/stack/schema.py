"""How the database gets its tables: the history is Alembic's (`migrations/`), brought up to date at every start.

A database that is current is recognised without importing Alembic, any other is migrated by a process of its own: what
that imports would stay in memory. Any number of processes may start at once.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import msgspec
from asyncmy.errors import MySQLError, OperationalError

from chat_system.apart import run_in_background
from chat_system.errors import ConfigurationError, Unavailable
from chat_system.stack.mysql import MISCONFIGURED, Database, meaning
from chat_system.telemetry import log

REVISIONS = ("0001",)
"""The history in `migrations/versions`, oldest first; a test holds the two together."""

HEAD = REVISIONS[-1]

MIGRATION_WAIT_S = 120
"""How long to wait for another process that migrates."""


async def migrate(url: str, *, wait_s: float = 0.0) -> bool:
    """Bring the database to the newest schema; True when there was something to do. Many may do so at once.

    `wait_s` is how long to wait for the server to come up.

    Raises:
        ConfigurationError: the server refuses us, or the schema is newer than this program.
        Unavailable: the server is away.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    database = await Database.open(url, connections=2)
    told = False
    try:
        while True:
            try:
                return await _migrate(database, url)
            except Unavailable as error:
                if loop.time() < deadline:
                    if not told:
                        log.warning("start waits for mysql", reason=error.detail, for_s=wait_s)
                        told = True
                    await asyncio.sleep(0.5)
                    continue
                cause = error.__cause__
                if isinstance(cause, MySQLError) and cause.args[0] in MISCONFIGURED:
                    raise ConfigurationError(f"{error.detail} ({database.address}: {cause.args[1]})") from error
                raise
    finally:
        await database.close()


async def _migrate(database: Database, url: str) -> bool:
    if await _revision(database) == HEAD:
        return False
    lock = database.lock_name("migrate")
    async with database.transaction(timeout_s=None) as holding:
        if (await holding.fetch("SELECT GET_LOCK(%s, %s)", (lock, MIGRATION_WAIT_S)))[0][0] != 1:
            raise Unavailable("MySQL is being migrated by another process, which takes long.")
        try:
            revision = await _revision(database)
            if revision == HEAD:
                return False
            if revision is not None and revision not in REVISIONS:
                raise ConfigurationError(
                    f"The database {database.address} has schema {revision}, and this program knows up to {HEAD}:"
                    " it was made by a newer version. It was left as it is."
                )
            try:
                wrong = await run_in_background("chat_system.stack.migrations", url)
            except ChildProcessError as error:
                raise ConfigurationError(f"The database {database.address} can't be migrated: {error}.") from error
        finally:
            await holding.fetch("SELECT RELEASE_LOCK(%s)", (lock,))
    if wrong:
        # Out here: within, it would be taken for an error of this transaction.
        _raise(wrong)
    log.info("database migrated", database=str(database.address), revision=HEAD)
    return True


def _raise(wrong: str) -> NoReturn:
    """What went wrong in the process that migrates means what it would mean here."""
    number, text = msgspec.json.decode(wrong, type=tuple[int | None, str])
    with meaning(pass_unknown=True):
        raise ConnectionError(text) if number is None else OperationalError(number, text)


async def _revision(database: Database) -> str | None:
    """The schema revision of the database; None when it has none yet."""
    known = await database.fetch(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'alembic_version'"
    )
    rows = await database.fetch("SELECT version_num FROM alembic_version") if known else []
    return str(rows[0][0]) if rows else None
