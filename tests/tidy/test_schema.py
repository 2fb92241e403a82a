"""The history of the embedded schema: what the program expects is what the migrations build, every time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from chat_system.embedded import schema
from chat_system.embedded.database import migrate_file
from chat_system.embedded.migrations import FOLDER, statements


def history() -> list[str]:
    """Alembic's revisions, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    return [script.revision for script in scripts.walk_revisions()][::-1]


def made(path: Path) -> list[tuple[str, str, str]]:
    """Everything in the schema of a file: its kind, its name and the SQL that made it."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name")
        return found.fetchall()


def test_the_program_knows_the_migrations_that_there_are() -> None:
    """Its list of revisions is Alembic's, in the same order, and its head is Alembic's head."""
    assert list(schema.REVISIONS) == history()
    assert history()[-1] == schema.HEAD


def test_revisions_are_numbered_without_a_gap() -> None:
    """0001, 0002 …, each with a file of SQL of the same number."""
    assert history() == [f"{number:04d}" for number in range(1, len(history()) + 1)]
    files = sorted(path.name for path in (FOLDER / "versions").glob("*.sql"))
    assert files == [f"schema_{revision}.sql" for revision in history()]


def test_no_statement_of_a_migration_is_lost() -> None:
    """What stands in the SQL files is all taken: split into statements, joined again, it is the same text."""
    for path in sorted((FOLDER / "versions").glob("*.sql")):
        assert "".join(statements(path)).strip() == path.read_text("utf-8").strip()


def test_the_migrations_build_the_same_schema_every_time(tmp_path: Path) -> None:
    """Two new files have the same tables, indexes and marks."""
    first, second = tmp_path / "first.sqlite3", tmp_path / "second.sqlite3"
    assert migrate_file(first)
    assert migrate_file(second)
    assert made(first) == made(second) != []
    for path in (first, second):
        assert schema.current_revision(path) == schema.HEAD
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_migrating_what_is_current_changes_nothing(tmp_path: Path) -> None:
    """It says that there was nothing to do, and leaves the file as it was, byte for byte."""
    path = tmp_path / "chat.sqlite3"
    migrate_file(path)
    before = path.read_bytes()
    assert not migrate_file(path)
    assert path.read_bytes() == before


def test_every_table_of_ours_is_strict(tmp_path: Path) -> None:
    """A column holds what it is declared to hold; the search index's own tables are SQLite's."""
    path = tmp_path / "chat.sqlite3"
    migrate_file(path)
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
    loose = {name for name, strict in tables if not strict and not name.startswith("sqlite_")}
    assert loose == {"alembic_version"}


def test_a_process_that_migrates_does_not_keep_what_that_takes(tmp_path: Path) -> None:
    """Alembic and SQLAlchemy would be as much memory as half of all the rest."""
    code = "import pathlib, sys; from chat_system.embedded.database import migrate_file as migrate; "
    code += "print(migrate(pathlib.Path('chat.sqlite3')), {'alembic', 'sqlalchemy'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == "True set()\n"
