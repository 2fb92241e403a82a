"""The process that migrates: it is told the file by its parent, which holds the lock, and answers what SQLite says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from chat_system.apart import obey
from chat_system.embedded.migrations import upgrade


def _migrate(path: str) -> str | None:
    try:
        upgrade(Path(path))
    except DBAPIError as error:
        return str(error.orig)
    except (sqlite3.Error, OSError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    obey(_migrate)
