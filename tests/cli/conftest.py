"""Fixtures of the command line's tests. Its programs run over an SQLite file, where nothing else is said.

program   a Program over a fresh folder, whose database is there and empty
sampled   the same, the sample being imported already
filled    the same with two chats of two messages, and run Inside this process
house     a House over storage of its own, in this process: once for each entry of HOUSES
target    an empty application of that house
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat_system.settings import Settings
from chat_system.wiring import House, migrate, open_house
from tests.cli.lines import SAMPLE, line, written
from tests.cli.program import Inside, Program
from tests.cli.target import Target
from tests.houses import HOUSES
from tests.stack_place import stack_place


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a row. Making one takes longer than most tests, copying it does not."""
    path = tmp_path_factory.mktemp("empty") / "chat.sqlite3"
    migrate(Settings(sqlite_path=str(path)))
    return path


@pytest.fixture(scope="session")
def sample_database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A database with the sample, as an import left it."""
    folder = tmp_path_factory.mktemp("sample")
    shutil.copy(empty_database, folder / "chat.sqlite3")
    return Program(folder).imported(str(SAMPLE))


@pytest.fixture(scope="session")
def small_database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A database with two chats of two messages."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copy(empty_database, folder / "chat.sqlite3")
    (folder / "small.ndjson").write_bytes(written([line(f"chat {number // 2}", f"{number}") for number in range(4)]))
    return Program(folder).imported("small.ndjson")


@pytest.fixture
def program(tmp_path: Path, empty_database: Path) -> Program:
    """The program over a folder with an empty database."""
    shutil.copy(empty_database, tmp_path / "chat.sqlite3")
    return Program(tmp_path)


@pytest.fixture
def sampled(tmp_path: Path, sample_database: Path) -> Program:
    """The program over a folder with the sample in its database."""
    shutil.copy(sample_database, tmp_path / "chat.sqlite3")
    return Program(tmp_path)


@pytest.fixture
def filled(
    tmp_path: Path, small_database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inside:
    """The program inside this process, over a folder with two small chats in its database."""
    shutil.copy(small_database, tmp_path / "chat.sqlite3")
    return Inside(tmp_path, monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture(params=sorted(HOUSES))
async def house(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> AsyncIterator[House]:
    """An empty house in this process, without a worker; once for each kind."""
    if request.param == "stack":
        settings = await asyncio.to_thread(lambda: stack_place().settings(tmp_path))
    else:
        settings = Settings(sqlite_path=str(tmp_path / "inside.sqlite3"))
        shutil.copy(empty_database, settings.sqlite_path)
    async with open_house(settings) as opened:
        yield opened


@pytest.fixture
async def target(house: House, tmp_path: Path) -> Target:
    """An application to import into."""
    return await Target.of(house, tmp_path)
