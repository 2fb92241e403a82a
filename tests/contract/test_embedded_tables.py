"""The embedded house, looked at from below: what its tables hold, and what is said of planted damage."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from chat_system.embedded import journal as embedded_journal
from chat_system.embedded.search import RECENT_MESSAGES, SCAN_APPLICATION
from chat_system.model import ApplicationId, ChangeChat, ChatEdit, NewMessage, Once, PostMessages
from tests.contract.houses import SQLITE_FILE, EmbeddedPorts, OpenHouse

HELD_BACK_S = 6.0
"""Far above what an index is held back for, in tests that shorten it."""

TABLES = ("applications", "chats", "messages", "search_queue", "search_behind", "receipts")


@pytest.fixture
async def application(embedded: OpenHouse) -> ApplicationId:
    """A fresh application of the embedded house."""
    return await embedded.new_application()


@pytest.fixture
async def chat(embedded: OpenHouse, application: ApplicationId) -> int:
    """A fresh chat of it."""
    return await embedded.open_chat(application)


def rows(tables: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has."""
    return {table: tables.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def indexed(tables: sqlite3.Connection, trigram: str) -> list[int]:
    """The rows under which the index itself holds a trigram, whether a message stands there or not."""
    quoted = '"' + trigram.replace('"', '""') + '"'
    return [row for (row,) in tables.execute("SELECT rowid FROM search WHERE search MATCH ? ORDER BY rowid", (quoted,))]


async def sweep_all(house: OpenHouse) -> int:
    """Sweep until nothing remains; how many pieces it took."""
    pieces = 0
    while await house.store.sweep():
        pieces += 1
    return pieces


async def fill(house: OpenHouse, application: ApplicationId, word: str) -> None:
    """Two chats with messages in every state: indexed, queued, edited, deleted, set aside; and kept keys."""
    for _ in range(2):
        chat = await house.open_chat(application, once=Once.of("path", f"chat {word}", b"1"))
        await house.open_chat(application)
        await house.post(application, chat, *(f"{word} first {index}" for index in range(620)))
        await house.projector(batch=1_000).drain()
        for number in range(1, 12):
            await house.edit(application, chat, number, f"{word} edited {number}")
        for number in range(20, 32):
            await house.delete(application, chat, number)
        await house.projector().step()
        for number in range(6, 16):
            await house.edit(application, chat, number, f"{word} edited again {number}")
        await house.delete(application, chat, 40)
        await house.post(application, chat, f"{word} queued {chat}", once=Once.of("path", word, b"2"))
        entries = await house.journal.read("search", 3)
        await house.journal.set_aside("search", entries[0], "for a reason")
        word = word.upper()


async def test_a_sweep_removes_every_row_and_every_entry_of_the_index(
    embedded: OpenHouse, tables: sqlite3.Connection
) -> None:
    """Of an erased application no table holds a row, and the index no trigram of any text it ever had."""
    stays, goes = await embedded.new_application(), await embedded.new_application()
    await fill(embedded, stays, "keep")
    await embedded.projector().drain()
    before, kept = rows(tables), indexed(tables, "kee")
    await fill(embedded, goes, "lose")
    assert len(indexed(tables, "los")) > 500
    assert len(indexed(tables, "irs")) > len(kept)
    await embedded.store.erase_application(goes)
    assert await sweep_all(embedded) > 2, "a large application goes in pieces"
    assert rows(tables) == before | {"applications": 1}
    assert indexed(tables, "los") == indexed(tables, "ose") == []
    assert indexed(tables, "kee") == kept
    everything = [row for (row,) in tables.execute("SELECT id FROM messages")]
    for trigram in ("fir", "edi", "ted", "que", "ed ", "aga"):
        assert set(indexed(tables, trigram)) <= set(everything), "an entry of the index without a message"
    tables.execute("INSERT INTO search (search) VALUES ('integrity-check')")
    assert await embedded.store.verify() == []


@pytest.mark.parametrize("copies", [1, 7, 100], ids=lambda copies: f"{copies}_of_each")
async def test_a_row_has_null_where_a_message_says_nothing_and_nowhere_else(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int, copies: int
) -> None:
    """Neither a zero nor an empty object is taken for nothing, in statements of few rows and of many."""
    said = [
        (NewMessage("0"), (None, "0", None, None)),
        (NewMessage("A0", "0"), ("0", "A0", "a0", None)),
        (NewMessage("x", "a", {}), ("a", "x", None, b"{}")),
        (NewMessage("\u0130", None, {"0": None}), (None, "\u0130", "i\u0307", b'{"0":null}')),
    ]
    change = PostMessages(chat, [new for new, _ in said] * copies)
    await embedded.journal.append(application, change)
    found = tables.execute("SELECT sender, body, folded, metadata FROM messages ORDER BY id").fetchall()
    assert found == [row for _, row in said] * copies


async def test_the_index_holds_the_text_that_a_message_has_now(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """When every change was applied, old texts are gone from the index, whatever the order of events."""
    await embedded.post(application, chat, *(f"{word} body" for word in ("aaa", "bbb", "ccc", "ddd", "eee")))
    await embedded.projector().drain()
    await embedded.edit(application, chat, 1, "xxx body")
    await embedded.edit(application, chat, 1, "yyy body")
    await embedded.edit(application, chat, 2, "zzz body")
    await embedded.edit(application, chat, 2, "bbb body")
    await embedded.edit(application, chat, 3, "www body")
    await embedded.delete(application, chat, 3)
    await embedded.delete(application, chat, 4)
    await embedded.projector(batch=1).drain()
    await embedded.edit(application, chat, 5, "EEE BODY")
    await embedded.projector().drain()
    keys = [key for (key,) in tables.execute("SELECT id FROM messages ORDER BY id")]
    held = {
        word: indexed(tables, word) for word in ("aaa", "xxx", "yyy", "bbb", "zzz", "ccc", "www", "ddd", "eee", "EEE")
    }
    gone: list[int] = []
    assert held == {
        "aaa": gone, "xxx": gone, "yyy": [keys[0]], "bbb": [keys[1]], "zzz": gone,
        "ccc": gone, "www": gone, "ddd": gone, "eee": [keys[4]], "EEE": gone,
    }  # fmt: skip
    assert indexed(tables, "bod") == [keys[0], keys[1], keys[4]]
    assert rows(tables)["search_queue"] == rows(tables)["search_behind"] == 0


async def test_old_messages_are_found_through_the_index(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """With the index emptied behind its back they are not: it is not by reading all that they are found."""
    await embedded.post(application, chat, "a rare needle")
    for _ in range(3):
        await embedded.post(application, chat, *(f"filler {index}" for index in range(RECENT_MESSAGES // 2)))
    await embedded.projector(batch=2_000).drain()

    async def found() -> tuple[int, int]:
        in_chat = await embedded.search.in_chat(application, chat, "needle", before=None, limit=5)
        in_application = await embedded.search.in_application(application, "needle", after=None, limit=5)
        return len(in_chat), len(in_application)

    assert await found() == (1, 1)
    tables.execute("INSERT INTO search (search) VALUES ('delete-all')")
    assert await found() == (0, 0)


async def test_what_was_set_aside_is_found_all_the_same(
    embedded: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """A message that the index could not take is read itself, though it is old; its next edit is indexed."""
    await embedded.post(application, chat, "a rare needle")
    (entry,) = await embedded.journal.read("search", 10)
    await embedded.journal.set_aside("search", entry, "for a reason")
    for _ in range(3):
        await embedded.post(application, chat, *(f"filler {index}" for index in range(RECENT_MESSAGES // 2)))
    await embedded.projector(batch=2_000).drain()
    assert (await embedded.journal.backlog("search")).set_aside == 1
    found = await embedded.search.in_chat(application, chat, "needle", before=None, limit=5)
    assert [message.number for message in found] == [1]
    await embedded.edit(application, chat, 1, "a rare thread")
    await embedded.projector(batch=2_000).drain()
    assert (await embedded.journal.backlog("search")).set_aside == 0
    found = await embedded.search.in_chat(application, chat, "thread", before=None, limit=5)
    assert [message.number for message in found] == [1]


async def test_keys_are_swept_when_their_time_is_over(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """More of them than one piece takes; those that are kept stay."""
    for index in range(5):
        await embedded.post(
            application,
            chat,
            "hello",
            once=Once.of("path", f"{index}", b"", kept_s=None if index % 2 else 60),
        )
    tables.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        " INSERT INTO receipts SELECT ?, CAST('expired ' || i AS BLOB), x'00', 1, 1, 1, 0, 1000 + i FROM n",
        (application,),
    )
    assert await sweep_all(embedded) > 1
    assert rows(tables)["receipts"] == 5


async def test_keys_of_chats_are_never_used_again(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """Rows of chats and applications that come after an erasure get keys above all that ever were."""
    highest = tables.execute("SELECT (SELECT max(id) FROM applications), max(id) FROM chats").fetchone()
    await embedded.store.erase_application(application)
    await sweep_all(embedded)
    assert rows(tables) == dict.fromkeys(TABLES, 0)
    await embedded.reopen()
    await embedded.new_chat()
    now = tables.execute("SELECT (SELECT max(id) FROM applications), max(id) FROM chats").fetchone()
    assert now[0] > highest[0]
    assert now[1] > highest[1]


DAMAGE: dict[str, tuple[str, Sequence[str]]] = {
    "a message is missing": ("DELETE FROM messages WHERE id & 4294967295 = 2", ["application 1, chat 1"] * 2),
    "the first message is missing": (
        "DELETE FROM messages WHERE id & 4294967295 = 1",
        ["application 1, chat 1"] * 2,
    ),
    "the last message is missing": (
        "DELETE FROM messages WHERE id & 4294967295 = 4",
        ["application 1, chat 1", "application 1, chat 1"],
    ),
    "all messages are missing": ("DELETE FROM messages", ["application 1, chat 1"] * 2),
    "a chat is missing": (
        "DELETE FROM chats WHERE number = 2",
        ["application 1", "application 1"],
    ),
    "messages without a chat": (
        "DELETE FROM chats WHERE number = 1",
        ["application 1", "application 1", "application 1"],
    ),
    "too many messages counted": (
        "UPDATE chats SET messages_count = 9 WHERE number = 1",
        ["application 1, chat 1"],
    ),
    "a tombstone counted": (
        "UPDATE chats SET messages_count = 4 WHERE number = 1",
        ["application 1, chat 1"],
    ),
    "messages counted where none are": (
        "UPDATE chats SET messages_count = 1 WHERE number = 2",
        ["application 1, chat 2"],
    ),
    "too few chats counted": ("UPDATE applications SET chats_count = 2 WHERE id = 1", ["application 1"]),
    "a revision too high": ("UPDATE chats SET revision = 99 WHERE number = 1", ["application 1, chat 1"]),
    "a revision too low": ("UPDATE chats SET revision = 1 WHERE number = 1", ["application 1, chat 1"]),
    "a revision without a message": (
        "UPDATE chats SET revision = 1 WHERE number = 2",
        ["application 1, chat 2"],
    ),
    "a revision given twice": ("UPDATE messages SET revision = 1 WHERE id = 1 << 32 | 4", ["application 1, chat 1"]),
}
COUNTS_ONLY = [name for name in DAMAGE if "counted" in name]


@pytest.fixture
async def damageable(embedded: OpenHouse) -> OpenHouse:
    """A house with one application of three chats; the first has four messages, one of them a tombstone."""
    application = await embedded.new_application()
    for _ in range(3):
        await embedded.open_chat(application)
    await embedded.post(application, 1, "one", "two", "three", "four")
    await embedded.edit(application, 1, 2, "TWO")
    await embedded.delete(application, 1, 3)
    await embedded.reopen()
    return embedded


@pytest.mark.parametrize(("damage", "wanted"), DAMAGE.values(), ids=DAMAGE)
async def test_planted_damage_is_found_and_named(
    damageable: OpenHouse, tables: sqlite3.Connection, damage: str, wanted: Sequence[str]
) -> None:
    """Each discrepancy says where and what; nothing else is blamed."""
    assert await damageable.store.verify() == []
    tables.execute(damage)
    found = await damageable.store.verify()
    assert sorted({one.where for one in found}) == sorted(set(wanted)), found
    assert all(one.what for one in found)


@pytest.mark.parametrize("name", COUNTS_ONLY)
async def test_a_recount_mends_counts_and_says_which(
    damageable: OpenHouse, tables: sqlite3.Connection, name: str
) -> None:
    """It returns what `verify` found; afterwards all is well, and counting goes on from there."""
    damage, _ = DAMAGE[name]
    tables.execute(damage)
    found = await damageable.store.verify()
    assert await damageable.store.recount() == found != []
    assert await damageable.store.verify() == []
    assert await damageable.store.recount() == []
    application = ApplicationId(1)
    await damageable.post(application, 1, "five")
    await damageable.open_chat(application)
    assert (await damageable.store.chat(application, 1)).messages_count == 4
    assert (await damageable.store.application(application)).chats_count == 4
    assert await damageable.store.verify() == []


async def test_a_recount_mends_counts_that_are_in_memory_too(damageable: OpenHouse, tables: sqlite3.Connection) -> None:
    """Counters that were seeded from a wrong count neither undo the recount nor go on from it."""
    application = ApplicationId(1)
    tables.execute(DAMAGE["too many messages counted"][0])
    await damageable.post(application, 1, "five")
    assert (await damageable.store.chat(application, 1)).messages_count == 10
    _, found = await asyncio.gather(damageable.post(application, 1, "six"), damageable.store.recount())
    assert [one.where for one in found] == ["application 1, chat 1"]
    assert (await damageable.store.chat(application, 1)).messages_count == 5
    await damageable.post(application, 1, "seven")
    assert (await damageable.store.chat(application, 1)).messages_count == 6


async def test_numbering_trusts_the_rows_more_than_the_counts(
    damageable: OpenHouse, tables: sqlite3.Connection
) -> None:
    """A chat whose count and revision are wrong still allots the number and revision that follow its rows."""
    tables.execute("UPDATE chats SET messages_count = 0, revision = 0 WHERE number = 1")
    receipt = await damageable.post(ApplicationId(1), 1, "five")
    assert (receipt.number, receipt.revision) == (5, 7)


async def test_a_damaged_page_is_found(damageable: OpenHouse, tables: sqlite3.Connection, tmp_path: Path) -> None:
    """What SQLite finds wrong with the file is a discrepancy; all the rest is looked at all the same."""
    page_bytes = tables.execute("PRAGMA page_size").fetchone()[0]
    root = tables.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'receipts_by_expiry'").fetchone()[0]
    tables.execute(DAMAGE["too many messages counted"][0])
    tables.close()
    await damageable.close()
    with (tmp_path / SQLITE_FILE).open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xff" * 64)
    await damageable.open()
    found = await damageable.store.verify()
    assert {one.where for one in found} == {"file", "application 1, chat 1"}


async def test_the_index_does_not_wait_for_ever_while_others_post(
    embedded: OpenHouse, application: ApplicationId, chat: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wait` may hold back for a bounded time, however steadily messages come in."""
    monkeypatch.setattr(embedded_journal, "QUIET_S", 0.3)
    monkeypatch.setattr(embedded_journal, "HELD_MAX_S", 0.5)
    assert await embedded.journal.read("search", 10) == []
    waiting = asyncio.create_task(embedded.journal.wait("search"))

    async def post() -> None:
        while not waiting.done():
            await embedded.post(application, chat, "again and again")
            await asyncio.sleep(0.01)

    await asyncio.wait_for(post(), HELD_BACK_S)


async def test_the_index_does_not_wait_for_ever_while_others_edit(
    embedded: OpenHouse, application: ApplicationId, chat: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wait` may hold back a bounded number of entries, edits and deletions among them."""
    monkeypatch.setattr(embedded_journal, "QUIET_S", 0.2)
    monkeypatch.setattr(embedded_journal, "QUEUE_MAX_MESSAGES", 20)
    await embedded.post(application, chat, *("old text" for _ in range(400)))
    await embedded.projector(batch=1_000).drain()
    waiting = asyncio.create_task(embedded.journal.wait("search"))
    for number in range(1, 401):
        await (embedded.delete if number % 2 else embedded.edit)(
            application, chat, number, *["new text"] * (1 - number % 2)
        )
        await asyncio.sleep(0.005)
        if waiting.done():
            return
    waiting.cancel()
    pytest.fail("400 changes waited, 20 may")


@pytest.mark.parametrize(("posts", "limit"), [(1, 100), (10, 5)])
async def test_a_busy_chat_does_not_starve_an_older_one(
    embedded: OpenHouse, application: ApplicationId, chat: int, posts: int, limit: int
) -> None:
    """Whether a read has room for more than the busy one has, or it has more than any read takes."""
    busy = await embedded.open_chat(application)
    await embedded.post(application, busy, "first")
    await embedded.projector(batch=limit).step()
    await embedded.post(application, chat, *map(str, range(20)))
    left = set(range(1, 21))
    for _ in range(80):
        await embedded.post(application, busy, *["more"] * posts)
        entries = await embedded.journal.read("search", limit)
        await embedded.search.apply(entries)
        left -= {entry.fact.number for entry in entries if entry.chat == chat}  # type: ignore[union-attr]
    assert left == set()


async def test_many_small_batches_leave_few_segments(
    embedded: OpenHouse, application: ApplicationId, chat: int, tables: sqlite3.Connection
) -> None:
    """The index is merged as it grows: else each search would look into as many segments as there were batches."""
    batches = 40
    for turn in range(batches):
        await embedded.post(application, chat, f"needle {turn}", f"thread {turn}")
        await embedded.search.apply(await embedded.journal.read("search", 10))
    (segments,) = tables.execute("SELECT count(DISTINCT segid) FROM search_idx").fetchone()
    assert segments <= 8
    assert len(indexed(tables, "nee")) == len(indexed(tables, "thr")) == batches
    tables.execute("INSERT INTO search (search) VALUES ('integrity-check')")


async def test_a_search_that_reads_a_whole_application_reads_each_message_once(tables: sqlite3.Connection) -> None:
    """Chat by chat, by key: by age it would look through all of the application again for each chat."""
    parameters = {"application": 1, "folded": "x", "at": 1, "id": 1, "limit": 1}
    plan = [row[3] for row in tables.execute(f"EXPLAIN QUERY PLAN {SCAN_APPLICATION}", parameters)]
    assert any("SEARCH m USING INTEGER PRIMARY KEY" in step for step in plan), plan
    assert not any("messages_by_age" in step for step in plan), plan


async def test_a_chat_is_never_changed_before_it_was_created(
    embedded: OpenHouse, application: ApplicationId, chat: int, tables: sqlite3.Connection
) -> None:
    """Though the clock was set back meanwhile."""
    tables.execute("UPDATE chats SET created_at = created_at + 3600000, updated_at = updated_at + 3600000")
    before = await embedded.store.chat(application, chat)
    await embedded.journal.append(application, ChangeChat(chat, ChatEdit(title="later")))
    changed = await embedded.store.chat(application, chat)
    assert changed.title == "later"
    assert changed.updated_at >= changed.created_at == before.created_at


async def test_changes_that_are_committed_while_they_are_looked_for_come_without_a_gap(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int, monkeypatch: Any
) -> None:
    """After each look into the file a message is created and another changed: of those, later ones come after all."""
    await embedded.post(application, chat, "one", "two", "three")
    assert [one.revision for one in await embedded.store.changes(application, chat, 0, 10)] == [1, 2, 3]
    database = cast(EmbeddedPorts, embedded.ports).database
    query, latest = database.query, 3

    def looked(question: Any) -> Any:
        nonlocal latest
        answer = query(question)
        tables.execute("BEGIN IMMEDIATE")
        tables.execute(
            "INSERT INTO messages (id, application_id, revision, body, created_at)"
            " SELECT max(id) + 1, application_id, ? + 1, 'new', 1 FROM messages",
            (latest,),
        )
        tables.execute(
            "UPDATE messages SET first_revision = coalesce(first_revision, revision), revision = ? + 2, updated_at = 2"
            " WHERE id = (SELECT min(id) FROM messages)",
            (latest,),
        )
        tables.execute("COMMIT")
        latest += 2
        return answer

    monkeypatch.setattr(database, "query", looked)
    seen: list[int] = [3]
    while seen[-1] < 20:
        seen += [one.revision for one in await embedded.store.changes(application, chat, seen[-1], 10)]
    # The one message that is changed again and again comes with its latest revision only.
    created = [revision for revision in range(4, seen[-1]) if revision % 2 == 0]
    assert [revision for revision in seen if revision % 2 == 0] == created
