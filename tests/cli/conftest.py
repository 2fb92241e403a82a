"""Fixtures of the command line's tests.

program   a Program over a fresh folder, whose database is there and empty
house     a House over a database of its own, in this process
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat_system.settings import Settings
from chat_system.wiring import House, migrate, open_house
from tests.cli.program import Program


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a row. Making one takes longer than most tests, copying it does not."""
    path = tmp_path_factory.mktemp("empty") / "chat.sqlite3"
    migrate(Settings(sqlite_path=str(path)))
    return path


@pytest.fixture
def program(tmp_path: Path, empty_database: Path) -> Program:
    """The program over a folder with an empty database."""
    shutil.copy(empty_database, tmp_path / "chat.sqlite3")
    return Program(tmp_path)


@pytest.fixture
async def house(tmp_path: Path, empty_database: Path) -> AsyncIterator[House]:
    """An empty house in this process."""
    path = tmp_path / "inside.sqlite3"
    shutil.copy(empty_database, path)
    async with open_house(Settings(sqlite_path=str(path))) as opened:
        yield opened
