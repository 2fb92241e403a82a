"""The history of the stack's tables, kept by Alembic.

A migration is a numbered file in `versions/`; its SQL stands in a file of the same number. DDL does not roll back,
so every statement can be repeated, and a migration that was cut off is run again from its beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

FOLDER = Path(__file__).parent


async def upgrade(connect: Callable[[], Awaitable[Any]]) -> None:
    """Bring the database to the newest revision, on a connection of its own. The caller holds the lock.

    Failures are the driver's own.
    """
    engine = create_async_engine("mysql+asyncmy://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
            await connection.commit()
    except DBAPIError as error:
        raise (error.orig or error) from error
    finally:
        await engine.dispose()


def statements(file: Path) -> list[str]:
    """The statements of an SQL file: each ends with a semicolon at the end of a line."""
    return [statement for statement in file.read_text(encoding="utf-8").split(";\n") if statement.strip()]


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
