"""A database file that is damaged, foreign or too new is refused in one line and left as it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from chat_system.embedded.schema import APPLICATION_ID
from tests.conftest import BuildHouse, Connect, only
from tests.faults.refusals import contents, failure, refusal, scribble
from tests.houses import HOUSES, House

HEADER_BYTES = 100
SAMPLE_BATCHES = 6
BATCH_MESSAGES = 100

pytestmark = only("embedded", because="the files of the stack house are its servers' own business")


@pytest.fixture(scope="module")
def sample(house_name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a few hundred messages, made by a server that ended in an orderly way."""
    house = HOUSES[house_name](tmp_path_factory.mktemp("sample"))
    house.start()
    try:
        with httpx.Client(base_url=house.url, trust_env=False) as client:
            token = client.post("/applications", json={"name": "Sample"}).json()["token"]
            chats = f"/applications/{token}/chats"
            assert client.post(chats).status_code == 201
            for batch in range(SAMPLE_BATCHES):
                messages = [{"body": sample_body(batch * BATCH_MESSAGES + one)} for one in range(BATCH_MESSAGES)]
                answer = client.post(f"{chats}/1/messages/batch", json={"messages": messages})
                assert answer.status_code == 201
    finally:
        house.stop()
    path = database_of(house)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def sample_body(position: int) -> str:
    """The body of the sample's message at a position from 0."""
    return f"{position} " + "text " * 200


def database_of(house: House) -> Path:
    """The house's database file."""
    return Path(str(house.storage_settings()["sqlite_path"]))


def overwrite_the_header(path: Path) -> None:
    """Random bytes where SQLite's header was."""
    scribble(path, 0, HEADER_BYTES)


def truncate_in_the_middle(path: Path) -> None:
    """The second half is gone, and the file ends inside a page."""
    os.truncate(path, path.stat().st_size // 2 + 1234)


def truncate_to_a_piece_of_the_header(path: Path) -> None:
    """Only the first bytes are left."""
    os.truncate(path, 40)


def replace_by_random_bytes(path: Path) -> None:
    """Nothing of the database is left."""
    path.write_bytes(os.urandom(path.stat().st_size))


def overwrite_the_schema(path: Path) -> None:
    """The header is whole, the rest of the first page is not."""
    scribble(path, HEADER_BYTES, 3000)


@pytest.mark.parametrize(
    "damage",
    [
        overwrite_the_header,
        overwrite_the_schema,
        truncate_in_the_middle,
        truncate_to_a_piece_of_the_header,
        replace_by_random_bytes,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_database_is_refused_and_left_as_it_is(
    build_house: BuildHouse, sample: Path, damage: Callable[[Path], None]
) -> None:
    """The line names the file, and not one byte of it changes: whoever can repair it still can."""
    house = build_house()
    path = database_of(house)
    shutil.copy(sample, path)
    damage(path)
    before = contents(path)
    assert path.name in refusal(house)
    assert contents(path) == before


async def test_damage_in_the_middle_of_a_database_is_never_answered_with_wrong_content(
    build_house: BuildHouse, connect: Connect, sample: Path
) -> None:
    """Pages overwritten with random bytes: each message is read as it was or not at all; `check` sees it."""
    house = build_house()
    path = database_of(house)
    shutil.copy(sample, path)
    with sqlite3.connect(path) as connection:
        (token,) = connection.execute("SELECT token FROM applications").fetchone()
    connection.close()
    size = path.stat().st_size
    for part in range(2, 8):
        scribble(path, size * part // 10, 4096)
    try:
        house.start()
    except AssertionError:
        assert path.name in refusal(house)
        return
    client = connect(house)
    statuses: set[int] = set()
    for number in range(1, SAMPLE_BATCHES * BATCH_MESSAGES + 1, 7):
        answer = await client.get(f"/applications/{token}/chats/1/messages/{number}")
        statuses.add(answer.status_code)
        if answer.status_code == 200:
            assert answer.json()["body"] == sample_body(number - 1)
        else:
            assert_a_problem(answer)
    house.kill()
    failure(house, "check")
    assert len(statuses) > 1, "the damage hit no message that was read: this test proved nothing"


def assert_a_problem(answer: httpx.Response) -> None:
    """A problem without a word of its inside. SQLite may find nothing where the bytes are random: 404."""
    assert answer.status_code in (404, 500, 503), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert "sqlite" not in answer.text.lower()


def a_text_file(path: Path) -> None:
    """Somebody's notes."""
    path.write_text("These are my notes.\n" * 500, "utf-8")


def a_short_text_file(path: Path) -> None:
    """A file that is shorter than any header."""
    path.write_text("x", "utf-8")


def another_programs_database(path: Path) -> None:
    """An SQLite database without a mark, in the usual journal mode."""
    fill_a_foreign_database(path, mark=0, mode="DELETE")


def another_programs_marked_database(path: Path) -> None:
    """An SQLite database that carries the mark of its own program."""
    fill_a_foreign_database(path, mark=0x0F055112, mode="DELETE")


def another_programs_database_with_a_log(path: Path) -> None:
    """An SQLite database whose write-ahead log still holds everything, as its program's crash left it."""
    fill_a_foreign_database(path, mark=0, mode="WAL")


def fill_a_foreign_database(path: Path, *, mark: int, mode: str) -> None:
    """Write a table of another program; in WAL mode, keep the log as a crash would."""
    made = path.with_name("foreign")
    connection = sqlite3.connect(made, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute(f"PRAGMA application_id = {mark}")
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
    connection.executemany("INSERT INTO messages (body) VALUES (?)", [(f"theirs {one}",) for one in range(100)])
    for name, content in contents(made).items():
        path.with_name(name.replace("foreign", path.name)).write_bytes(content)
    connection.close()


@pytest.mark.parametrize(
    ("command", "make"),
    [
        ("serve", a_text_file),
        ("serve", a_short_text_file),
        ("serve", another_programs_database),
        ("serve", another_programs_marked_database),
        ("serve", another_programs_database_with_a_log),
        ("migrate", another_programs_database_with_a_log),
        ("check", another_programs_database_with_a_log),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_a_foreign_file_is_refused_and_left_as_it_is(
    build_house: BuildHouse, command: str, make: Callable[[Path], None]
) -> None:
    """A file that another program made is not ours to open: the line names it, and no byte of it changes."""
    house = build_house()
    path = database_of(house)
    make(path)
    before = contents(path)
    assert path.name in refusal(house, command)
    assert contents(path) == before


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_can_not_be_migrated_is_refused_in_one_line(build_house: BuildHouse, command: str) -> None:
    """Tables without a history are in the way of the first migration: what SQLite says of it, and no traceback."""
    house = build_house()
    path = database_of(house)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY)")
    said = refusal(house, command)
    assert path.name in said
    assert "table messages already exists" in said


@pytest.mark.parametrize("revision", ["9999", "0000", "something-else"])
def test_a_database_of_an_unknown_schema_is_refused_and_left_as_it_is(
    build_house: BuildHouse, sample: Path, revision: str
) -> None:
    """A file that a newer version made, or whose schema is unknown for another reason, is not touched."""
    house = build_house()
    path = database_of(house)
    shutil.copy(sample, path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = contents(path)
    assert revision in refusal(house)
    assert contents(path) == before
