"""The embedded house's index and what is known of it: after anything that may happen, the one is what the other says.

Also a file of the first schema, which kept its books differently.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chat_system.embedded.migrations import FOLDER, statements
from chat_system.errors import Conflict
from chat_system.model import ApplicationId, Message
from tests.contract.houses import SQLITE_FILE, OpenHouse

STEPS = 120
MANY = 1_000

# What `unindexed` says that the index holds of each message.
SAID_TO_BE_HELD = """
    SELECT m.id, CASE
        WHEN q.id IS NOT NULL THEN q.indexed_as
        WHEN b.above < m.id & 4294967295 THEN NULL
        WHEN m.deleted_at IS NULL THEN coalesce(m.folded, m.body)
    END
    FROM messages m LEFT JOIN search_queue q ON q.id = m.id LEFT JOIN search_behind b ON b.chat_id = m.id >> 32"""


class Words:
    """Texts of one word each, none used twice, so that the index can be asked for each of them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def new(self) -> str:
        """The next word; three characters and more, the first three its own."""
        number = len(self.made)
        self.made.append(f"{chr(0x4E00 + number)}{chr(0x5E00 + number)}{chr(0x6E00 + number)}")
        return self.made[-1]

    def held(self, tables: sqlite3.Connection) -> set[tuple[int, str]]:
        """Which of them the index itself holds, and under which keys."""
        asked = "SELECT rowid FROM search WHERE search MATCH ?"
        return {(key, word) for word in self.made for (key,) in tables.execute(asked, (f'"{word}"',))}


def said_to_be_held(tables: sqlite3.Connection) -> set[tuple[int, str]]:
    """What it should hold."""
    return {(key, text) for key, text in tables.execute(SAID_TO_BE_HELD) if text is not None}


async def do_something(house: OpenHouse, dice: random.Random, words: Words, chats: Sequence[int]) -> None:
    """One step of what may happen to messages and to their index, in any order."""
    application, chat = ApplicationId(1), dice.choice(chats)
    count = len(await house.all_messages(application, chat))
    entries = await house.journal.read("search", dice.choice((1, 3, 10)))
    match dice.choice(("post", "post", "edit", "edit", "delete", "index", "index", "late", "aside", "retry", "reopen")):
        case "post":
            await house.post(application, chat, *(words.new() for _ in range(dice.choice((1, 4)))))
        case "edit" if count:
            try:
                await house.edit(application, chat, dice.randint(1, count), words.new())
            except Conflict:
                return
        case "delete" if count:
            await house.delete(application, chat, dice.randint(1, count))
        case "index":
            await house.search.apply(dice.sample(entries, len(entries)))
        case "late":
            # The entries that were read in between are applied by no one yet.
            later = await house.journal.read("search", 2)
            await house.search.apply(later)
        case "aside" if entries:
            await house.journal.set_aside("search", dice.choice(entries), "for a reason")
        case "retry":
            await house.journal.retry("search")
        case "reopen":
            await house.reopen()
        case _:
            pass


@pytest.mark.parametrize("seed", range(8))
async def test_the_index_holds_what_it_is_said_to_hold(
    embedded: OpenHouse, tables: sqlite3.Connection, seed: int
) -> None:
    """After each of many steps in any order; and in the end, the present text of every message and nothing else."""
    dice, words = random.Random(seed), Words()
    application = await embedded.new_application()
    chats = [await embedded.open_chat(application) for _ in range(3)]
    for _ in range(STEPS):
        await do_something(embedded, dice, words, chats)
        assert words.held(tables) == said_to_be_held(tables)
        waiting = tables.execute("SELECT count(*) FROM search_queue WHERE error IS NULL").fetchone()[0]
        assert (await embedded.journal.backlog("search")).entries >= waiting
    await embedded.journal.retry("search")
    await embedded.projector().drain()
    assert (await embedded.journal.backlog("search")).entries == 0
    for table in ("search_queue", "search_behind"):
        assert tables.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    present = {(chat, m.body) for chat in chats for m in await embedded.all_messages(application, chat) if m.body}
    numbers = dict(tables.execute("SELECT id, number FROM chats").fetchall())
    assert {(numbers[key >> 32], word) for key, word in words.held(tables)} == present
    assert await embedded.store.verify() == []


async def test_an_application_that_is_erased_while_it_is_behind_leaves_nothing(
    embedded: OpenHouse, tables: sqlite3.Connection
) -> None:
    """Neither of what the index holds nor of what it was to hold, and another application's stays."""
    words = Words()
    stays, goes = await embedded.new_application(), await embedded.new_application()
    for application in (stays, goes):
        for _ in range(2):
            chat = await embedded.open_chat(application)
            await embedded.post(application, chat, *(words.new() for _ in range(6)))
        await embedded.search.apply(await embedded.journal.read("search", 9))
    await embedded.edit(goes, 1, 1, words.new())
    assert tables.execute("SELECT count(*) FROM search_behind").fetchone() == (1,)
    kept = {key for (key,) in tables.execute("SELECT id FROM messages WHERE application_id = ?", (stays,))}
    await embedded.store.erase_application(goes)
    while await embedded.store.sweep():
        pass
    assert words.held(tables) == said_to_be_held(tables)
    assert {key for key, _ in words.held(tables)} <= kept
    await embedded.projector().drain()
    assert {key for key, _ in words.held(tables)} == kept
    assert tables.execute("SELECT count(*) FROM search_behind").fetchone() == (0,)


async def test_posting_to_a_chat_that_is_behind_writes_nothing_for_the_index(
    embedded: OpenHouse, tables: sqlite3.Connection
) -> None:
    """One row says all of a chat, and an edit of what was never indexed adds none."""
    application, chat = await embedded.new_chat()
    for _ in range(5):
        await embedded.post(application, chat, "one", "two")
    await embedded.edit(application, chat, 3, "three")
    await embedded.delete(application, chat, 4)
    assert tables.execute("SELECT chat_id, above FROM search_behind").fetchall() == [(1, 0)]
    assert tables.execute("SELECT count(*) FROM search_queue").fetchone() == (0,)


def first_schema(path: Path) -> None:
    """A file as the first schema left it, instead of any that is there: 12 messages, and what was changed of them."""
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements(FOLDER / "versions" / "schema_0001.sql"):
            connection.execute(statement)
        connection.execute("PRAGMA application_id = 0x43686174")
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.execute(
            "INSERT INTO applications (token, name, chats_count, created_at, updated_at) VALUES (?, 'old', 2, 1, 1)",
            ("o" * 43,),
        )
        # Of the first chat: 1 to 4 posted, 2 edited, 5 to 8 posted, 1 edited, 6 deleted, 9 posted, 2 edited again.
        revisions = {1: 10, 2: 13, 3: 3, 4: 4, 5: 6, 6: 11, 7: 8, 8: 9, 9: 12}
        changed, deleted = {1, 2, 6}, {6}
        for chat, numbers in ((1, revisions), (2, {1: 1, 2: 2, 3: 3})):
            connection.execute(
                "INSERT INTO chats (application_id, number, messages_count, revision, created_at, updated_at)"
                " VALUES (1, ?, ?, ?, 1, 1)",
                (chat, len(numbers) - (chat == 1), max(numbers.values())),
            )
            for number, revision in numbers.items():
                was_changed, is_gone = chat == 1 and number in changed, chat == 1 and number in deleted
                connection.execute(
                    "INSERT INTO messages (id, application_id, revision, body, created_at, updated_at, deleted_at)"
                    " VALUES (?, 1, ?, ?, 1, ?, ?)",
                    (
                        chat << 32 | number,
                        revision,
                        None if is_gone else f"body {chat} {number}",
                        2 if was_changed else None,
                        2 if is_gone else None,
                    ),
                )
        indexed = [1 << 32 | 1, 1 << 32 | 3, 2 << 32 | 1]
        for key in indexed:
            connection.execute(
                "INSERT INTO search (rowid, folded) VALUES (?, ?)", (key, f"body {key >> 32} {key & 0xFFFFFFFF}")
            )
        connection.execute(
            f"INSERT INTO search_queue (id, queued_at) SELECT id, 1 FROM messages WHERE id NOT IN {tuple(indexed)}"
        )


async def test_a_file_of_the_first_schema_is_read_as_before(embedded: OpenHouse, tmp_path: Path) -> None:
    """Its changes come by revision from any place on, it goes on counting, and all of it is found and indexed."""
    await embedded.close()
    first_schema(tmp_path / SQLITE_FILE)
    await embedded.open()
    application = ApplicationId(1)

    async def found() -> list[int]:
        matches = await embedded.search.in_chat(application, 1, "body", before=None, limit=20)
        return [message.number for message in matches]

    async def changes_from_everywhere() -> None:
        everything: list[Message] = sorted(await embedded.all_messages(application, 1), key=lambda m: m.revision)
        for after in range(everything[-1].revision + 2):
            wanted = [message for message in everything if message.revision > after]
            for limit in (1, 3, 50):
                assert await embedded.store.changes(application, 1, after, limit) == wanted[:limit]

    await changes_from_everywhere()
    assert await embedded.store.verify() == []
    assert (await embedded.journal.backlog("search")).entries == 9
    assert await found() == [9, 8, 7, 5, 4, 3, 2, 1]
    receipt = await embedded.post(application, 1, "body of today")
    assert (receipt.number, receipt.revision) == (10, 14)
    await embedded.edit(application, 1, 3, "body of yesterday")
    await embedded.edit(application, 1, 1, "body of long ago")
    await changes_from_everywhere()
    await embedded.projector(3).drain()
    assert (await embedded.journal.backlog("search")).entries == 0
    assert await found() == [10, 9, 8, 7, 5, 4, 3, 2, 1]
    assert await embedded.store.verify() == []
