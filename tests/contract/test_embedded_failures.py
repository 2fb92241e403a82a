"""The embedded house when a transaction fails: all who share it are told, and nothing is half recorded.

The failures are real ones: triggers that RAISE, a database that may not grow, a lock that another process
holds, a COMMIT that breaks a constraint, and units with defects.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from chat_system.embedded import database as embedded_database
from chat_system.embedded import journal as embedded_journal
from chat_system.embedded import store as embedded_store
from chat_system.embedded.database import INLINE_MAX_BYTES, Database, Transaction
from chat_system.errors import ConfigurationError, NotFound, Unavailable
from chat_system.model import ApplicationId, Receipt, Window
from tests.contract.houses import SQLITE_FILE, EmbeddedPorts, OpenHouse

PATIENCE_S = 15.0
LARGE = "x" * 40_000


@pytest.fixture
async def application(embedded: OpenHouse) -> ApplicationId:
    """A fresh application of the embedded house."""
    return await embedded.new_application()


@pytest.fixture
async def chat(embedded: OpenHouse, application: ApplicationId) -> AsyncIterator[int]:
    """A chat that must end without a gap, and in which a post must still be possible."""
    number = await embedded.open_chat(application)
    yield number
    receipt = await asyncio.wait_for(embedded.post(application, number, "the last"), PATIENCE_S)
    assert receipt.number == len(await embedded.bodies(application, number))
    assert await embedded.store.verify() == []


def database(embedded: OpenHouse) -> Database:
    """The database below an embedded house."""
    return cast(EmbeddedPorts, embedded.ports).database


async def write(embedded: OpenHouse, unit: Any, size: int = 0) -> Any:
    """Run a unit of the test's own; as a coroutine, so that it starts together with others."""
    return await database(embedded).write(unit, size=size)


async def together(*calls: Any) -> list[Any]:
    """Start all at once; their results or errors."""
    return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE_S)


@contextmanager
def failing(tables: sqlite3.Connection, how: str) -> Iterator[None]:
    """Messages that say 'fail' fail to be written, as the trigger's RAISE says."""
    tables.execute(
        "CREATE TRIGGER failing BEFORE INSERT ON messages WHEN NEW.body = 'fail'"
        f" BEGIN SELECT RAISE({how}, 'this was meant to fail'); END"
    )
    yield
    tables.execute("DROP TRIGGER failing")


@pytest.mark.parametrize("how", ["ABORT", "FAIL", "ROLLBACK"])
async def test_a_transaction_that_fails_records_nothing_of_anyone(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int, how: str
) -> None:
    """All who share it are told Unavailable; chats that were opened in it are not there either."""
    await embedded.post(application, chat, "before")
    with failing(tables, how):
        outcomes = await together(
            embedded.open_chat(application),
            embedded.post(application, chat, "one"),
            embedded.post(application, chat, "fail"),
            embedded.post(application, chat, "two"),
            embedded.store.create_application("t" * 43, "Name"),
            embedded.post(application, 99, "nowhere"),
        )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 6
    assert await embedded.bodies(application, chat) == ["before"]
    assert await embedded.store.revision(application, chat) == 1
    assert (await embedded.store.application(application)).chats_count == 1
    assert await embedded.store.resolve("t" * 43) is None


async def test_counters_are_forgotten_after_a_transaction_that_failed(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """The numbers that it had allotted are allotted again: to messages, revisions, chats and counts."""
    await embedded.post(application, chat, "one", "two")
    with failing(tables, "ABORT"):
        for _ in range(3):
            await together(
                embedded.post(application, chat, *["lost"] * 7),
                embedded.open_chat(application),
                embedded.delete(application, chat, 1),
                embedded.post(application, chat, "fail"),
            )
    receipt = await embedded.post(application, chat, "three")
    assert (receipt.number, receipt.revision) == (3, 3)
    assert await embedded.open_chat(application) == chat + 1
    found = await embedded.store.chat(application, chat)
    assert (found.messages_count, found.revision) == (3, 3)
    assert await embedded.bodies(application, chat) == ["one", "two", "three"]


async def test_a_batch_is_all_or_nothing(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """When its last message can't be written, none is; a small one on the loop, a large one in the thread."""
    with failing(tables, "FAIL"):
        for text in ("small", LARGE):
            outcomes = await together(embedded.post(application, chat, *[text] * 12, "fail"))
            assert [type(outcome) for outcome in outcomes] == [Unavailable]
            assert await embedded.bodies(application, chat) == []


async def test_a_key_is_not_kept_by_a_transaction_that_failed(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """What could not be recorded is recorded when it is sent again with its key."""
    from tests.contract.test_journal_once import ONCE, OTHER_PAYLOAD  # noqa: PLC0415 - two of its constants

    with failing(tables, "ABORT"):
        await together(embedded.post(application, chat, "kept", once=ONCE), embedded.post(application, chat, "fail"))
    assert await embedded.journal.receipt(application, ONCE) is None
    receipt = await embedded.post(application, chat, "kept", once=OTHER_PAYLOAD)
    assert (receipt.number, receipt.replayed) == (1, False)


async def test_who_comes_after_a_transaction_that_failed_is_recorded(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """What queued while it failed is in the next transaction, and unharmed."""
    with failing(tables, "ABORT"):
        failed = asyncio.create_task(embedded.post(application, chat, *[LARGE] * 8, "fail"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(embedded.post(application, chat, f"after {index}")) for index in range(9)]
        outcomes = await together(failed, *waiting)
    assert isinstance(outcomes[0], Unavailable)
    assert sorted(outcome.number for outcome in outcomes[1:]) == list(range(1, 10))


async def test_a_full_disk_refuses_and_space_that_is_freed_accepts(
    embedded: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """A database that may not grow refuses small and large writes, and takes them once it may grow again."""
    await embedded.post(application, chat, "before")
    pages = await write(embedded, lambda transaction: limit_pages(transaction, 1))
    accepted = 0
    for size in (1, 9):
        refused = 0
        while not refused:
            outcomes = await together(*(embedded.post(application, chat, *[LARGE] * size) for _ in range(4)))
            assert all(isinstance(outcome, Receipt | Unavailable) for outcome in outcomes)
            accepted += sum(size for outcome in outcomes if isinstance(outcome, Receipt))
            refused = sum(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert len(await embedded.bodies(application, chat)) == 1 + accepted
    await write(embedded, lambda transaction: limit_pages(transaction, pages + 10_000))
    assert (await embedded.post(application, chat, LARGE)).number == 2 + accepted


def limit_pages(transaction: Transaction, count: int) -> int:
    """Let the database have so many pages at most (never fewer than it has); how many that is."""
    found: int = transaction.execute(f"PRAGMA max_page_count = {count}").fetchone()[0]
    return found


async def test_a_commit_that_fails_is_told_to_all_and_records_nothing(
    embedded: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Every statement succeeded and the COMMIT does not: no one is told that it was recorded."""
    # A constraint that is looked at by COMMIT alone; the switch works between transactions only.
    writer = database(embedded)._writer  # noqa: SLF001 - there is no other way to reach it
    writer.execute("PRAGMA foreign_keys = ON")

    def break_at_commit(transaction: Transaction) -> None:
        transaction.execute("PRAGMA defer_foreign_keys = ON")
        transaction.execute(
            "INSERT INTO chats (application_id, number, created_at, updated_at) VALUES (987654, 1, 0, 0)"
        )

    outcomes = await together(
        embedded.post(application, chat, "one"),
        embedded.open_chat(application),
        write(embedded, break_at_commit, 0),
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    # What is large has a transaction of its own, in the thread.
    with pytest.raises(Unavailable):
        await write(embedded, break_at_commit, INLINE_MAX_BYTES + 1)
    writer.execute("PRAGMA foreign_keys = OFF")
    assert await embedded.bodies(application, chat) == []
    assert await embedded.open_chat(application) == chat + 1


class DefectError(Exception):
    """A programming error."""


def fail_at_once(transaction: Transaction) -> None:
    """Fail before anything is written."""
    raise DefectError


def fail_half_way(transaction: Transaction) -> None:
    """Fail with one thing written and another staged."""
    insert = "INSERT INTO applications (token, name, created_at, updated_at) VALUES (?, 'half', 0, 0)"
    transaction.execute(insert, ("half written",))
    transaction.stage(insert, [("half staged",)])
    raise DefectError


@pytest.mark.parametrize("size", [0, INLINE_MAX_BYTES + 1], ids=["on the loop", "in the thread"])
@pytest.mark.parametrize("unit", [fail_at_once, fail_half_way])
async def test_a_unit_with_a_defect_takes_down_only_itself(
    embedded: OpenHouse,
    tables: sqlite3.Connection,
    application: ApplicationId,
    chat: int,
    unit: Any,
    size: int,
) -> None:
    """Its error goes to its caller; all who share its transaction are recorded and told so."""
    outcomes = await together(
        embedded.post(application, chat, "one"),
        write(embedded, unit, size),
        embedded.open_chat(application),
        write(embedded, unit, size),
        embedded.post(application, chat, "two"),
        embedded.post(application, 99, "nowhere"),
    )
    assert [type(outcome) for outcome in outcomes] == [
        Receipt,
        DefectError,
        int,
        DefectError,
        Receipt,
        NotFound,
    ]
    assert [outcomes[0].number, outcomes[2], outcomes[4].number] == [1, 2, 2]
    assert await embedded.bodies(application, chat) == ["one", "two"]
    assert tables.execute("SELECT count(*) FROM applications WHERE name = 'half'").fetchone() == (0,)


@pytest.mark.parametrize("size", [0, INLINE_MAX_BYTES + 1], ids=["on the loop", "in the thread"])
async def test_a_unit_alone_with_its_defect_leaves_the_database_working(
    embedded: OpenHouse, application: ApplicationId, chat: int, size: int
) -> None:
    """A transaction that loses its only unit ends, and the next ones follow."""
    for _ in range(3):
        with pytest.raises(DefectError):
            await asyncio.wait_for(write(embedded, fail_half_way, size), PATIENCE_S)
        await asyncio.wait_for(embedded.post(application, chat, "next"), PATIENCE_S)


def stage_the_impossible(transaction: Transaction) -> None:
    """Stage a row that the driver can't take: it is noticed when all is written."""
    transaction.stage("UPDATE applications SET name = ? WHERE id = ?", [("name", 2**70)])


def stage_a_broken_end(transaction: Transaction) -> None:
    """Leave something for the end of the transaction that fails there."""

    def end(transaction: Transaction) -> None:
        raise DefectError

    transaction.before_commit["broken"] = end


@pytest.mark.parametrize("size", [0, INLINE_MAX_BYTES + 1], ids=["on the loop", "in the thread"])
@pytest.mark.parametrize("unit", [stage_the_impossible, stage_a_broken_end])
async def test_a_defect_that_shows_at_the_end_of_a_transaction_freezes_nothing(
    embedded: OpenHouse, application: ApplicationId, chat: int, unit: Any, size: int
) -> None:
    """Whose it is no one knows: all of the transaction are told that nothing was recorded, the next ones are recorded.

    What is large has a transaction of its own, in the thread; those beside it are not touched.
    """
    outcomes = await together(
        embedded.post(application, chat, "one"),
        embedded.post(application, chat, "two"),
        write(embedded, unit, size),
    )
    recorded = ["one", "two"] if size else []
    assert [type(outcome) for outcome in outcomes[:2]] == [Receipt if size else Unavailable] * 2
    assert isinstance(outcomes[2], Exception)
    assert await embedded.bodies(application, chat) == recorded
    assert (await asyncio.wait_for(embedded.post(application, chat, "next"), PATIENCE_S)).number == len(recorded) + 1


async def test_a_file_that_can_not_be_read_is_unavailable(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """Every kind of read says so, and works again when the file can be read."""
    await embedded.post(application, chat, "needle")
    reads: list[Callable[[], Awaitable[Any]]] = [
        embedded.store.ping,
        lambda: embedded.store.resolve("unknown"),
        lambda: embedded.store.application(application),
        lambda: embedded.store.chat(application, chat),
        lambda: embedded.store.messages(application, chat, Window()),
        lambda: embedded.search.in_application(application, "needle", after=None, limit=5),
        lambda: embedded.search.in_chat(application, chat, "needle", before=None, limit=5),
        lambda: embedded.journal.backlog("search"),
        embedded.store.verify,
    ]
    names = ("applications", "chats", "messages", "search_queue", "search_behind")
    for name in names:
        tables.execute(f"ALTER TABLE {name} RENAME TO {name}_away")
    for read in reads:
        with pytest.raises(Unavailable):
            await read()
    for name in names:
        tables.execute(f"ALTER TABLE {name}_away RENAME TO {name}")
    for read in reads:
        await read()


async def test_what_is_forgotten_under_pressure_is_found_again(
    embedded: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two of everything in memory, many chats of many applications are numbered as ever."""
    monkeypatch.setattr(embedded_journal, "COUNTERS_MAX", 2)
    monkeypatch.setattr(embedded_store, "TOKENS_MAX", 2)
    monkeypatch.setattr(embedded_store, "CHAT_IDS_MAX", 2)
    chats = [await embedded.new_chat() for _ in range(5)]
    for _ in range(4):
        await together(*(embedded.post(*one, "a", "b") for one in chats), *(embedded.post(*one, "c") for one in chats))
        for application, chat in chats:
            assert (await embedded.edit(application, chat, 1, "edited")).number == 1
            await embedded.edit(application, chat, 1, "a")
    for application, chat in chats:
        assert len(await embedded.bodies(application, chat)) == 12
        assert await embedded.store.revision(application, chat) == 20
    assert await embedded.store.verify() == []


@pytest.mark.parametrize("text", ["small", LARGE])
async def test_a_lock_of_another_process_is_waited_for(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int, text: str
) -> None:
    """Writes that meet it are recorded when it is gone, in order; the event loop goes on meanwhile."""
    tables.execute("BEGIN IMMEDIATE")
    posts = [asyncio.create_task(embedded.post(application, chat, *[f"{index} {text}"] * 8)) for index in range(3)]
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not any(post.done() for post in posts)
    assert await embedded.bodies(application, chat) == [], "reading needs no lock"
    tables.execute("ROLLBACK")
    assert [receipt.number for receipt in await together(*posts)] == [1, 9, 17]


async def test_a_file_belongs_to_one_server(embedded: OpenHouse, tmp_path: Path) -> None:
    """Whoever opens it a second time is refused, also by another name; closing it twice does no harm."""
    link = tmp_path / "link.sqlite3"
    link.symlink_to(tmp_path / SQLITE_FILE)
    for path in (tmp_path / SQLITE_FILE, link):
        with pytest.raises(ConfigurationError, match="in use"):
            await Database.open(path)
    await database(embedded).close()
    await database(embedded).close()
    other = await Database.open(link)
    await other.close()


async def test_what_can_not_be_written_at_the_end_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the lock: who waits is told, and the file is closed."""
    monkeypatch.setattr(embedded_database, "LOCKED_WAIT_S", 0.2)
    opened = await Database.open(tmp_path / "new.sqlite3")
    with closing(sqlite3.connect(opened.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = opened.write(lambda transaction: transaction.execute("DELETE FROM receipts"))
        await asyncio.wait_for(opened.close(), PATIENCE_S)
        with pytest.raises(Unavailable):
            await waiting
    await (await Database.open(opened.path)).close()


async def test_a_file_that_could_not_be_opened_is_nobody_s(tmp_path: Path) -> None:
    """Who tries again is not told that it is in use, by himself."""
    path = tmp_path / "new.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigurationError, match="can't be used"):
            await Database.open(path)
    await (await Database.open(path)).close()


async def test_what_the_index_refuses_is_set_aside_and_found_all_the_same(
    embedded: OpenHouse, tables: sqlite3.Connection, application: ApplicationId, chat: int
) -> None:
    """The others of its batch are indexed; searches read the message itself; tried again it is indexed, too."""
    await embedded.post(application, chat, "one", "two", "three")
    await embedded.projector(batch=100).drain()
    for number in (1, 2, 3):
        await embedded.edit(application, chat, number, f"edited {number}")
    tables.execute(
        "CREATE TRIGGER refusing BEFORE DELETE ON search_queue WHEN OLD.id & 255 = 2"
        " BEGIN SELECT RAISE(ABORT, 'this one is not to be had'); END"
    )
    await embedded.projector(batch=100).drain()
    backlog = await embedded.journal.backlog("search")
    assert (backlog.entries, backlog.set_aside) == (0, 1)
    [aside] = await embedded.journal.asides()
    assert "message 2" in aside.about
    assert "this one is not to be had" in aside.error
    found = await embedded.search.in_chat(application, chat, "edited", before=None, limit=10)
    assert [message.number for message in found] == [3, 2, 1]
    tables.execute("DROP TRIGGER refusing")
    assert await embedded.journal.retry("search") == 1
    await embedded.projector(batch=100).drain()
    assert (await embedded.journal.backlog("search")).set_aside == 0


async def test_closing_waits_for_what_was_submitted(
    embedded: OpenHouse, application: ApplicationId, tmp_path: Path
) -> None:
    """Appends that run when the house is closed are answered, and are there when it is opened again."""
    chat = await embedded.open_chat(application)
    posts = [asyncio.create_task(embedded.post(application, chat, f"{index}")) for index in range(30)]
    await asyncio.sleep(0)
    await embedded.close()
    receipts = await together(*posts)
    assert sorted(receipt.number for receipt in receipts) == list(range(1, 31))
    await embedded.open()
    assert len(await embedded.bodies(application, chat)) == 30
