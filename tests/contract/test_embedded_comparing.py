"""`check` of the embedded house finds an index that does not hold what the messages say, and blames no other."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from chat_system.embedded import comparing
from chat_system.embedded.store import EmbeddedStore
from chat_system.ports import Discrepancy
from tests.contract.houses import SQLITE_FILE, OpenHouse

BEHIND = 2
"""How many messages of the second chat are not indexed."""

DELETE = "INSERT INTO search (search, rowid, folded) VALUES ('delete', 1 << 32 | 2, 'two \"quoted\" words')"
NOT_HELD = "the search index does not hold all of its text"
NOT_SAID = "the search index holds more than its text"
ANOTHER = "the search index holds another text than its"

# What is done to the index or to what is known of it, and what is found then.
DAMAGE = {
    "a message is not indexed": (DELETE, {("application 1, chat 1, message 2", NOT_HELD)}),
    "one trigram of it is not": (
        "INSERT INTO search (search, rowid, folded) VALUES ('delete', 1 << 32 | 2, 'two')",
        {("application 1, chat 1, message 2", NOT_HELD)},
    ),
    "a text too many": (
        "INSERT INTO search (rowid, folded) VALUES (1 << 32 | 1, 'never said')",
        {("application 1, chat 1, message 1", NOT_SAID)},
    ),
    "a deleted message's text": (
        "INSERT INTO search (rowid, folded) VALUES (1 << 32 | 3, 'three')",
        {("application 1, chat 1, message 3", NOT_SAID)},
    ),
    "a text that nobody posted": (
        "INSERT INTO search (rowid, folded) VALUES (7 << 32 | 1, 'nobody')",
        {("search index", f"it holds key {7 << 32 | 1}, of which there is no message")},
    ),
    "indexed and said not to be": (
        "INSERT INTO search (rowid, folded) VALUES (2 << 32 | 1, 'too early')",
        {("application 1, chat 2, message 1", NOT_SAID)},
    ),
    "said to be indexed and not": (
        "DELETE FROM search_behind WHERE chat_id = 2",
        {(f"application 1, chat 2, message {number}", NOT_HELD) for number in range(1, BEHIND + 1)},
    ),
    "queued under another text": (
        "UPDATE search_queue SET indexed_as = 'fiver'",
        {("application 1, chat 1, message 5", ANOTHER)},
    ),
    "a change that was not queued": (
        "DELETE FROM search_queue",
        {("application 1, chat 1, message 5", ANOTHER)},
    ),
    "exchanged": (
        "UPDATE messages SET body = iif(body = 'four', 'first', 'four') WHERE body IN ('first', 'four')",
        {("application 1, chat 1, message 1", ANOTHER), ("application 1, chat 1, message 4", ANOTHER)},
    ),
}


async def compared(house: OpenHouse) -> Sequence[Discrepancy]:
    """What differs."""
    return await cast(EmbeddedStore, house.store).compare_index()


@pytest.fixture
async def indexed(embedded: OpenHouse) -> OpenHouse:
    """A house whose first chat is indexed but for an edit, and whose second is not."""
    application = await embedded.new_application()
    for _ in range(2):
        await embedded.open_chat(application)
    await embedded.post(application, 1, "first", 'TWO "quoted" words', "three", "four", "fifth")
    await embedded.delete(application, 1, 3)
    await embedded.projector().drain()
    await embedded.edit(application, 1, 5, "5TH")
    await embedded.post(application, 2, *(f"not yet {number}" for number in range(BEHIND)))
    return embedded


@pytest.mark.parametrize(("damage", "wanted"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("slice_messages", [1, 10_000])
async def test_an_index_that_differs_is_found_and_the_message_named(
    indexed: OpenHouse,
    tables: sqlite3.Connection,
    damage: str,
    wanted: set[tuple[str, str]],
    slice_messages: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However the messages are cut into slices. No text is told."""
    monkeypatch.setattr(comparing, "SLICE_MESSAGES", slice_messages)
    assert await compared(indexed) == []
    tables.execute(damage)
    assert {(one.where, one.what) for one in await compared(indexed)} == wanted


def statements_that_fill_it_anew() -> str:
    """What docs/operating.md gives an operator for it."""
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text("utf-8")
    found = re.search(r'sqlite3 chat\.sqlite3 "(BEGIN; INSERT INTO search .*?)"', text, re.DOTALL)
    assert found is not None
    return found.group(1)


async def test_of_many_that_differ_a_few_are_named_and_the_index_can_be_filled_anew(
    embedded: OpenHouse, tables: sqlite3.Connection
) -> None:
    """An index that was emptied does not fill the screen, and is mended as the documentation says."""
    application, chat = await embedded.new_chat()
    await embedded.open_chat(application)
    await embedded.post(application, chat, *(["the same text"] * 10 * comparing.SUSPECTS_MAX))
    await embedded.projector().drain()
    assert await compared(embedded) == []
    tables.execute("INSERT INTO search (search) VALUES ('delete-all')")
    found = await compared(embedded)
    assert len(found) == comparing.SUSPECTS_MAX
    assert {one.what for one in found} == {NOT_HELD}
    await embedded.edit(application, chat, 1, "another text")
    tables.executescript(statements_that_fill_it_anew())
    assert await compared(embedded) == []
    await embedded.projector().drain()
    assert await compared(embedded) == []
    assert tables.execute("SELECT count(*) FROM search_behind").fetchone() == (0,)
    assert tables.execute("SELECT count(*) FROM search WHERE search MATCH 'tex'").fetchone() == (200,)


async def test_what_a_search_does_not_find_is_not_held(embedded: OpenHouse, tables: sqlite3.Connection) -> None:
    """All of the index' leaves are there, but the ways to them are lost."""
    application, chat = await embedded.new_chat()
    await embedded.post(application, chat, *(f"{number:x}" * 3 for number in range(3_000, 4_000)))
    await embedded.projector().drain()
    assert await compared(embedded) == []
    tables.execute("DELETE FROM search_idx")
    found = await compared(embedded)
    assert found
    assert {one.what for one in found} == {NOT_HELD}


async def test_a_damaged_index_is_named(indexed: OpenHouse, tables: sqlite3.Connection) -> None:
    """What FTS5 can't read is said to be damaged; numbers and counts are looked at all the same."""
    tables.execute("UPDATE search_data SET block = x'ff' WHERE id > 10")
    tables.execute("UPDATE chats SET messages_count = 9 WHERE number = 2")
    await indexed.reopen()
    assert {one.where for one in await compared(indexed)} == {"search index"}
    assert "application 1, chat 2" in {one.where for one in await indexed.store.verify()}


async def test_an_index_that_is_fed_meanwhile_differs_from_nothing(
    indexed: OpenHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is indexed between two looks, and said to be, was seen by neither."""
    said_numbers = comparing.said_numbers
    fed = 0

    def and_then_feed(connection: sqlite3.Connection) -> Iterator[tuple[bytes, int]]:
        nonlocal fed
        yield from said_numbers(connection)
        with closing(sqlite3.connect(tmp_path / SQLITE_FILE, isolation_level=None)) as other:
            other.execute("INSERT INTO search (rowid, folded) SELECT id, body FROM messages WHERE id >> 32 = 2")
            fed += other.execute("DELETE FROM search_behind WHERE chat_id = 2").rowcount

    monkeypatch.setattr(comparing, "said_numbers", and_then_feed)
    assert await compared(indexed) == []
    monkeypatch.undo()
    assert fed == 1
    assert await compared(indexed) == []


async def test_comparing_works_while_another_writes(indexed: OpenHouse, tables: sqlite3.Connection) -> None:
    """It takes no lock that whoever writes would have to wait for, and none that it would have to wait for itself."""
    tables.execute("BEGIN IMMEDIATE")
    try:
        assert await compared(indexed) == []
    finally:
        tables.execute("ROLLBACK")
