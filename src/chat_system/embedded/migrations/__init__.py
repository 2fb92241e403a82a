"""The history of the embedded schema, kept by Alembic.

A migration is a numbered file in `versions/`; its SQL stands in a file of the same number. All of an upgrade
is one transaction: a crash leaves the old schema.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

FOLDER = Path(__file__).parent


def upgrade(path: Path) -> None:
    """Bring the database file to the newest revision."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, isolation_level=None),
        poolclass=StaticPool,
    )
    # The driver's own transactions would commit before each DDL statement.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def statements(file: Path) -> list[str]:
    """The statements of an SQL file."""
    found, statement = [], ""
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found
