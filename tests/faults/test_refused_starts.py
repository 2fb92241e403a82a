"""What an operator can get wrong ends in one clear line and a code above zero, and harms nothing running."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import BuildHouse, only
from tests.faults.conftest import UnderLoad
from tests.faults.refusals import refusal
from tests.houses import EXIT_TIMEOUT_S, House


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("CHAT_SQLITE_PAHT", "x.sqlite3", "CHAT_SQLITE_PATH"),
        ("CHAT_ADMINKEY", "secret-value", "CHAT_ADMIN_KEY"),
        ("CHAT_ADMIN_KEY", "a secret-value", "CHAT_ADMIN_KEY"),
        ("CHAT_PORT", "eighty", "CHAT_PORT"),
        ("CHAT_PORT", "65536", "CHAT_PORT"),
        ("CHAT_MODE", "cloud", "CHAT_MODE"),
        ("CHAT_HOST", "0.0.0.0", "CHAT_ALLOW_OPEN"),
        ("CHAT_HOST", "::", "CHAT_ALLOW_OPEN"),
    ],
)
def test_a_setting_that_is_unknown_or_wrong_is_refused_by_name(
    build_house: BuildHouse, name: str, value: str, word: str
) -> None:
    """The one line names the setting that is meant, and never a secret's value."""
    house = build_house()
    line = refusal(house, **{name: value})
    assert word in line
    assert "secret-value" not in line
    assert not database_files(house), "a refused start left a database behind"


def database_files(house: House) -> list[str]:
    """What a start left in the house's folder."""
    return [path.name for path in house.folder.iterdir() if path.name.startswith("chat.sqlite3")]


def test_a_port_in_use_is_refused_by_number(build_house: BuildHouse) -> None:
    """The one line names the port; whoever listens there is not disturbed."""
    house = build_house()
    with socket.socket() as taken:
        taken.bind((house.host, house.port))
        taken.listen()
        assert str(house.port) in refusal(house)


def test_of_two_servers_started_at_once_on_one_port_one_serves_and_one_is_refused(
    build_house: BuildHouse,
) -> None:
    """Neither finds the port taken when it looks; still one of them ends with a line that names it."""
    one = build_house()
    other = build_house(port=one.port)
    one.spawn()
    other.spawn()
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while one.running and other.running:
        assert time.monotonic() < deadline, "both run, and only one can listen"
        time.sleep(0.02)
    ended = other if one.running else one
    assert ended.wait_for_exit() > 0
    assert "Traceback" not in ended.log_text()
    assert str(one.port) in ended.log_text()


@only("embedded", because="only this house makes a file")
@pytest.mark.parametrize("place", ["below-a-file", "proc", "a-folder", "an-endless-name", "a-dangling-link"])
def test_a_database_that_cannot_be_made_is_refused_by_name(build_house: BuildHouse, place: str) -> None:
    """Where no file can be made the line names the path. Permission bits are no test: root passes them."""
    house = build_house()
    path, named = unusable_path(house.folder, place)
    assert named in refusal(house, CHAT_SQLITE_PATH=str(path))


def unusable_path(folder: Path, place: str) -> tuple[Path, str]:
    """A path at which no database can be made, and what of it the operator must be told."""
    if place == "below-a-file":
        (folder / "file").write_text("not a folder", "utf-8")
        return folder / "file" / "chat.sqlite3", "chat.sqlite3"
    if place == "a-folder":
        (folder / "taken.sqlite3").mkdir()
        return folder / "taken.sqlite3", "taken.sqlite3"
    if place == "a-dangling-link":
        (folder / "link.sqlite3").symlink_to(folder / "nowhere" / "target.sqlite3")
        return folder / "link.sqlite3", "nowhere"
    if place == "an-endless-name":
        return folder / ("n" * 300), "n" * 40
    return Path("/proc/chat.sqlite3"), "/proc/chat.sqlite3"


@only("embedded", because="the stack house is made for any number of servers")
async def test_a_second_server_of_one_file_is_refused_and_the_first_goes_on(
    serve: BuildHouse, build_house: BuildHouse, under_load: UnderLoad
) -> None:
    """However the second server names the file, it ends with one line; the first keeps every promise."""
    first = serve()
    path = Path(str(first.storage_settings()["sqlite_path"]))
    second = build_house()
    (second.folder / "link.sqlite3").symlink_to(path)
    (second.folder / "link").symlink_to(path.parent)
    load = await under_load(first, clients=2)
    async with load.running():
        for name in (path, second.folder / "link.sqlite3", second.folder / "link" / path.name):
            assert "in use" in await asyncio.to_thread(refusal, second, CHAT_SQLITE_PATH=str(name))
    assert [str(one) for one in load.history if one.status is None or one.status >= 500] == []
    assert await load.broken_promises() == []
