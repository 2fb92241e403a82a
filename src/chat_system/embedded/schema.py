"""What a database file must be before it is opened, and how it becomes so.

The history of the schema is Alembic's (`migrations/`). A file that is current already is opened without importing
Alembic, which would take longer than all the rest of the start; any other is migrated by a process of its own, or
Alembic would take as much memory as all the rest, for as long as the server runs.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from chat_system.apart import run
from chat_system.errors import ConfigurationError

REVISIONS = ("0001", "0002", "0003")
"""The history in `migrations/versions`, oldest first; a test holds the two together."""

HEAD = REVISIONS[-1]

APPLICATION_ID = 0x43686174
"""SQLite's own mark in the file's header ("Chat"): what carries another is not ours."""

_HEADER_BYTES = 108
"""The file's header and the head of its first page."""

_MAGIC = b"SQLite format 3\0"


def examine(path: Path) -> None:
    """Look at the file's header without touching it.

    Raises:
        ConfigurationError: it is not a database of ours, or it is damaged.
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            return
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise ConfigurationError(f"The database {path} can't be read: {error.strerror}.") from error
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise ConfigurationError(f"{path} is no SQLite database; it was left as it is.")
    mark = int.from_bytes(header[68:72], "big")
    log = Path(f"{path}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if mark != APPLICATION_ID and not (mark == 0 and _is_unfinished(header, has_log=has_log)):
        raise ConfigurationError(f"{path} is a database of another program; it was left as it is.")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    current = header[24:28] == header[92:96]
    if current and not has_log and size < page * pages:
        raise ConfigurationError(
            f"The database {path} is damaged: it has {size} bytes and should have {page * pages}. "
            "Restore a backup; the file was left as it is."
        )


def current_revision(path: Path) -> str | None:
    """The schema revision of the file; None when it is new or empty.

    Raises:
        ConfigurationError: the file is damaged.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    connection = sqlite3.connect(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if "alembic_version" not in tables:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        # One row of each table: a damaged root page is found now rather than under load.
        for table in ("applications", "chats", "messages", "search_queue", "search_behind", "receipts"):
            if table in tables:
                connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            # A full disk, a lock, no right to write: nobody shall restore a backup for it.
            raise
        raise ConfigurationError(
            f"The database {path} is damaged ({error}). Restore a backup; nothing was changed."
        ) from error
    finally:
        connection.close()
    return None if row is None else str(row[0])


def require_current(path: Path) -> None:
    """For commands that only read.

    Raises:
        ConfigurationError: there is no database, or it needs a migration first.
    """
    if not path.exists():
        raise ConfigurationError(f"There is no database at {path}.")
    if current_revision(path) != HEAD:
        raise ConfigurationError(f"The database {path} needs a migration: run `chat-system migrate`.")


def migrate(path: Path) -> bool:
    """Bring the file to the newest schema; True when there was something to do. The caller holds the lock.

    Raises:
        ConfigurationError: the file is damaged, or newer than this program.
        sqlite3.Error, OSError: it can't be migrated; it has the schema that it had.
    """
    revision = current_revision(path)
    if revision == HEAD:
        return False
    if revision is not None and revision not in REVISIONS:
        raise ConfigurationError(
            f"The database {path} has schema {revision}, and this program knows up to {HEAD}:"
            " it was made by a newer version. It was left as it is."
        )
    # Before anything is in it: these marks live in the file's header.
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    if wrong := run("chat_system.embedded.migrations", str(path)):
        raise sqlite3.OperationalError(wrong)
    return True


def _is_unfinished(header: bytes, *, has_log: bool) -> bool:
    """A process was killed between making the file and marking it: its first page lists no table yet."""
    # Looking through SQLite would write to a file that may not be ours.
    return not has_log and int.from_bytes(header[103:105], "big") == 0
