"""The stack's store on its own: how it applies facts to MySQL, and what it tells the journal about them.

What readers see is the business of the suites of every house; nothing here asks for the journal's tail.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chat_system.errors import ConfigurationError, NotFound, Unavailable
from chat_system.model import (
    BODY_MAX_BYTES,
    ApplicationId,
    ChatChanged,
    ChatCounted,
    Fact,
    KeyUsed,
    MessageChanged,
    Once,
    Receipt,
)
from chat_system.ports import ApplicationWindow, Discrepancy, Entry
from tests.eventually import eventually
from tests.servers.process import free_port
from tests.servers.shared import run_servers, wanted
from tests.servers.storage import Storage

if not wanted():
    pytest.skip("this machine has no servers for the stack", allow_module_level=True)

from asyncmy.errors import MySQLError

from chat_system.stack import store as module
from chat_system.stack.applying import NumberTakenTwice
from chat_system.stack.mysql import REVISIONS, Address, Database, migrate
from chat_system.stack.store import StackStore
from chat_system.stack.tail import ChatSeed
from chat_system.telemetry import REGISTRY

VERSIONS = Path(module.__file__).parent / "migrations" / "versions"
TABLES = ("applications", "chats", "messages", "receipts", "journal_epochs", "installation")
CREATED = 1_700_000_000_000
TOKEN_CHARACTERS = 43
HOUR_MS = 3_600_000
UNKNOWN = ApplicationId(987_654_321)


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    """A database of this module's own, with all tables."""
    storage = Storage(run_servers().addresses(), "store")
    storage.create_database()
    asyncio.run(migrate(storage.mysql_url))
    yield storage
    storage.execute(f"DROP DATABASE {storage.database}")


@pytest.fixture
async def database(storage: Storage) -> AsyncIterator[Database]:
    """Open, and empty."""
    database = await Database.open(storage.mysql_url)
    async with database.transaction() as transaction:
        for table in TABLES:
            await transaction.execute(f"DELETE FROM {table}")
    yield database
    await database.close()


class Surroundings:
    """What the store tells others, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    async def erased(self, application: ApplicationId) -> None:
        self.told.append(("erased", application))

    async def erase_index(self, application: ApplicationId) -> None:
        self.told.append(("index", application))

    async def forget(self, application: ApplicationId, chat: int) -> None:
        self.told.append(("forget", (application, chat)))


@pytest.fixture
def around() -> Surroundings:
    """Hears what the store tells others."""
    return Surroundings()


@pytest.fixture
def store(database: Database, around: Surroundings) -> StackStore:
    """A store whose tail nobody asks."""
    tail: Any = None
    store = StackStore(database, tail, around.erased)
    store.forget, store.erase_index = around.forget, around.erase_index
    return store


@pytest.fixture
async def application(store: StackStore) -> ApplicationId:
    """A fresh application."""
    return await create(store, "a")


async def create(store: StackStore, text: str, once: Once | None = None) -> ApplicationId:
    """An application whose token begins like this."""
    token = text.ljust(TOKEN_CHARACTERS, "x")
    await store.create_application(token, text, once=once)
    application = await store.resolve(token)
    assert application is not None
    return application


def entries(application: ApplicationId, *facts: Fact, chat: int = 1, epoch: int = 0) -> list[Entry]:
    """The facts as a journal hands them over."""
    return [Entry(f"0/{epoch}-{index}/0", application, chat, fact) for index, fact in enumerate(facts)]


def posted(number: int, body: str = "body", revision: int = 0, created_at: int = CREATED) -> MessageChanged:
    """A new message; its revision is its number unless said otherwise."""
    return MessageChanged(number, revision or number, "sender", body, None, created_at)


def edited(number: int, revision: int, body: str) -> MessageChanged:
    """A message that was edited."""
    return MessageChanged(number, revision, "sender", body, b'{"edited":true}', CREATED, CREATED + revision)


def deleted(number: int, revision: int) -> MessageChanged:
    """A tombstone."""
    at = CREATED + revision
    return MessageChanged(number, revision, "sender", None, None, CREATED, at, at)


def opened(version: int = 1, title: str | None = "Title") -> ChatChanged:
    """A chat's own fields."""
    return ChatChanged(version, title, b'{"a":1}', CREATED, CREATED + version - 1)


def used(key: str, number: int, at: int, kept_s: int | None = 3600) -> KeyUsed:
    """An idempotency key with what it was allotted."""
    once = Once.of("path", key, str(number).encode(), kept_s)
    return KeyUsed(once, Receipt(number, number, at, replayed=True), None if kept_s is None else at + kept_s * 1000)


async def begin_epoch(store: StackStore, partition: int = 0) -> int:
    """Begin an epoch that nobody else has begun."""

    async def known() -> int:
        return 0

    async def begin(epoch: int) -> int:
        return epoch

    return await store.begin_epoch(partition, known, begin)


async def waiting_statements(database: Database) -> int:
    """How many transactions wait for a lock that another holds."""
    # The server renews this table only when nobody has read it for a tenth of a second.
    await asyncio.sleep(0.2)
    return len(await database.fetch("SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"))


async def contents(database: Database) -> list[Any]:
    """All that the tables of chats and messages hold."""
    return [
        await database.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in ("chats", "messages", "receipts")
    ] + [await database.fetch("SELECT id, chats_count FROM applications ORDER BY id")]


def now_ms() -> int:
    """The time as the tables hold it."""
    return time.time_ns() // 1_000_000


def backstop_hits() -> float:
    """The metric that must stay 0."""
    return REGISTRY.get_sample_value("chat_backstop_hits_total") or 0.0


# Applying


async def test_in_whatever_order_facts_come_the_tables_are_the_same(
    store: StackStore, database: Database, application: ApplicationId
) -> None:
    """One by one or together, repeated or not: the latest state of everything stands at the end."""
    facts: list[Fact] = [opened(), opened(2, None), posted(1), edited(1, 3, "edited"), deleted(1, 4), ChatCounted(2, 2)]
    facts += [posted(2), ChatCounted(4, 1), used("key", 2, CREATED)]
    everything = entries(application, *facts)
    await store.apply(everything)
    expected = await contents(database)
    assert await store.stored_message(application, 1, 1) == deleted(1, 4)
    assert await store.stored_chat(application, 1) == opened(2, None)
    assert await store.chat_seed(application, 1) == ChatSeed(2, 4, 1, 2)
    shuffle = random.Random(7).shuffle
    for size in (1, 2, 3, 5):
        async with database.transaction() as transaction:
            for table in ("chats", "messages", "receipts"):
                await transaction.execute(f"DELETE FROM {table}")
        again = [*everything, *everything[::2]]
        shuffle(again)
        for start in range(0, len(again), size):
            await store.apply(again[start : start + size])
        assert await contents(database) == expected


async def test_texts_come_back_as_they_were(store: StackStore, application: ApplicationId) -> None:
    """Quotes, backslashes, percent signs, line ends, trailing blanks, every plane of Unicode, and the longest body."""
    texts = [
        "'",
        "''",
        "\\",
        "\\'",
        "'\\",
        "\\\\'",
        '"',
        "%s %d %",
        "a\r\nb\x1a\x08\t",
        " blank ",
        "\u00a0e\u0301",
        "😀",
    ]
    texts += ["\uffff\U0010ffff", "�", "--'; DROP TABLE messages; #", "\\0\\n", "x" * BODY_MAX_BYTES, "字" * 21_845]
    facts = [
        MessageChanged(number, number, text[:255], text, f'{{"k":"{number}\\\\ \\" %s 😀"}}'.encode(), CREATED)
        for number, text in enumerate(texts, 1)
    ]
    await store.apply(entries(application, opened(), *facts))
    for fact in facts:
        assert await store.stored_message(application, 1, fact.number) == fact
    changed = [msgspec.structs.replace(fact, revision=fact.number + 100, updated_at=CREATED + 1) for fact in facts]
    await store.apply(entries(application, *changed))
    assert [state async for chunk in store.rows(application) for _, state in chunk] == changed


async def test_a_batch_of_any_size_is_stored_whole(
    store: StackStore, application: ApplicationId, database: Database
) -> None:
    """Also when it takes many statements, one row being longer than a statement should be."""
    database.statement_max_bytes = 2_000
    facts = [posted(number, "é" * (1 + 7 * number)) for number in range(1, 401)]
    await store.apply(entries(application, opened(), *facts))
    assert [state async for chunk in store.rows(application) for _, state in chunk] == facts
    assert await store.count_messages(application) == 400


async def test_a_count_that_comes_before_its_chat_shows_no_chat(store: StackStore, application: ApplicationId) -> None:
    """The chat is there when it was opened, with the count that was waiting; until then its number is taken."""
    await store.apply(entries(application, posted(1), ChatCounted(1, 1)))
    assert await store.stored_chat(application, 1) is None
    assert await store.chat_seed(application, 1) is None
    assert await store.last_chat(application) == 1
    await store.apply(entries(application, opened()))
    assert await store.stored_chat(application, 1) == opened()
    assert await store.chat_seed(application, 1) == ChatSeed(1, 1, 1, 1)


async def test_what_was_erased_or_never_was_gets_no_facts(
    store: StackStore, database: Database, application: ApplicationId
) -> None:
    """Facts that arrive late are dropped; those of others in the batch are applied."""
    gone = await create(store, "gone")
    await store.erase_application(gone)
    facts = (opened(), posted(1), ChatCounted(1, 1), used("key", 1, CREATED))
    await store.apply([*entries(gone, *facts), *entries(application, *facts), *entries(UNKNOWN, *facts)])
    for table in ("chats", "messages", "receipts"):
        assert await database.fetch(f"SELECT DISTINCT application_id FROM {table}") == [(application,)]


async def test_a_fact_that_mysql_refuses_leaves_nothing_of_its_batch(
    store: StackStore, database: Database, application: ApplicationId
) -> None:
    """The error is the fact's own, not that of a server that is away; the others of the batch pass without it."""
    facts = [posted(1), MessageChanged(2, 2, "s" * 256, "body", None, CREATED), posted(3)]
    with pytest.raises(MySQLError, match="sender"):
        await store.apply(entries(application, opened(), *facts))
    assert await store.count_messages(application) == 0
    assert await store.stored_chat(application, 1) is None
    await store.apply(entries(application, opened(), facts[0], facts[2]))
    assert await store.count_messages(application) == 2


@pytest.mark.parametrize(
    "other",
    [
        posted(1, "other body"),
        posted(1, created_at=CREATED + 1),
        posted(1, revision=2),
        MessageChanged(1, 2, "other sender", "edited", None, CREATED, CREATED + 2),
        ChatChanged(1, "Title", None, CREATED + 1, CREATED + 1),
    ],
    ids=["same revision", "other time", "new with a later revision", "edited by another", "chat"],
)
async def test_two_facts_with_one_number_are_never_made_into_one(
    store: StackStore, database: Database, application: ApplicationId, other: Fact
) -> None:
    """In one batch or one after another: the second is refused, counted, and leaves everything as it was."""
    first: list[Fact] = [opened(), posted(1)]
    hits = backstop_hits()
    with pytest.raises(NumberTakenTwice):
        await store.apply(entries(application, *first, other))
    assert await store.count_messages(application) == 0
    await store.apply(entries(application, *first))
    before = await contents(database)
    with pytest.raises(NumberTakenTwice, match="chat 1"):
        await store.apply(entries(application, posted(2), other))
    assert await contents(database) == before
    assert backstop_hits() > hits


async def test_workers_that_apply_the_same_at_once_do_not_fail(
    store: StackStore, database: Database, application: ApplicationId
) -> None:
    """Each batch in an order of its own, deadlocks included: everything is there once."""
    facts = [
        Entry(f"0/0-{chat}-{number}/0", application, chat, fact)
        for chat, number in itertools.product(range(1, 9), range(1, 31))
        for fact in (posted(number), ChatCounted(number, number))
    ]
    facts += [Entry("0/0-1/0", application, chat, opened()) for chat in range(1, 9)]
    facts += [Entry("0/0-1/0", application, chat, edited(5, 40, "edited")) for chat in range(1, 9)]

    async def work(seed: int) -> None:
        mine = list(facts)
        random.Random(seed).shuffle(mine)
        for start in range(0, len(mine), 100):
            await store.apply(mine[start : start + 100])

    await asyncio.gather(*(work(seed) for seed in range(6)))
    assert await store.count_messages(application) == 240
    assert await store.last_chat(application) == 8
    for chat in range(1, 9):
        assert await store.chat_seed(application, chat) == ChatSeed(30, 40, 30, 1)
        assert await store.stored_message(application, chat, 5) == edited(5, 40, "edited")
    assert await database.fetch("SELECT chats_count FROM applications WHERE id = %s", (application,)) == [(8,)]


# What the journal asks


async def test_facts_of_an_epoch_that_is_over_are_dropped(store: StackStore, application: ApplicationId) -> None:
    """Their numbers may have been given again; those of the epoch that began are applied."""
    assert [await begin_epoch(store, partition) for partition in (0, 0, 1, 0)] == [1, 2, 1, 3]
    await store.apply([*entries(application, posted(1, "old"), epoch=2), *entries(application, posted(2), epoch=3)])
    assert await store.stored_message(application, 1, 1) is None
    assert await store.stored_message(application, 1, 2) == posted(2)


@pytest.mark.parametrize("begun", [False, True])
async def test_an_epoch_begins_after_what_is_being_applied(
    store: StackStore, database: Database, application: ApplicationId, begun: bool
) -> None:
    """Whoever raised it sees all that the epoch before left, also when it is the first."""
    if begun:
        await begin_epoch(store)
    async with database.transaction() as other:
        # An apply can't end while another holds the row of its application's chat.
        await other.execute("INSERT INTO chats (application_id, number) VALUES (%s, 1)", (application,))
        applying = asyncio.create_task(store.apply(entries(application, opened(), posted(1), epoch=int(begun))))
        await eventually(lambda: waiting_statements(database), 1)
        beginning = asyncio.create_task(begin_epoch(store))
        await eventually(lambda: waiting_statements(database), 2)
        assert not applying.done()
        assert not beginning.done()
    assert await beginning == int(begun) + 1
    assert applying.done()
    assert await store.stored_message(application, 1, 1) == posted(1)


async def test_a_chat_is_counted_when_its_count_was_lost(store: StackStore, application: ApplicationId) -> None:
    """A count of an earlier revision than the messages' latest says nothing any more."""
    await store.apply(entries(application, opened(), posted(1), posted(2), ChatCounted(2, 2)))
    await store.apply(entries(application, posted(3), posted(4), deleted(2, 5)))
    assert await store.chat_seed(application, 1) == ChatSeed(4, 5, 3, 1)
    assert await store.chat_seed(application, 2) is None


async def test_a_number_that_any_row_bears_was_given(store: StackStore, application: ApplicationId) -> None:
    """Even when only a message of the chat survived: no later chat takes its number."""
    assert await store.last_chat(application) == 0
    await store.apply(entries(application, posted(1), chat=3))
    assert await store.last_chat(application) == 3
    await store.apply(entries(application, opened(), chat=5))
    assert await store.last_chat(application) == 5
    assert await store.last_chat(UNKNOWN) is None
    await store.erase_application(application)
    assert await store.last_chat(application) is None
    assert await store.chat_seed(application, 5) is None


async def test_the_first_use_of_a_key_counts_until_it_expires(store: StackStore, application: ApplicationId) -> None:
    """A later use of a key that is kept changes nothing, one of an expired key replaces it; expired are not told."""
    now = now_ms()
    assert not await store.has_receipts()
    first, second = used("kept", 1, now), used("kept", 2, now + 1)
    expired, anew = used("expired", 3, now - 7_200_000), used("expired", 4, now)
    forever, old = used("forever", 5, CREATED, None), used("old", 6, now - 7_200_000)
    for fact in (first, second, expired, anew, forever, used("forever", 7, now), old):
        await store.apply(entries(application, fact))
    assert await store.has_receipts()
    wanted_keys = [(application, fact.once.key) for fact in (first, anew, forever, old)]
    kept = await store.receipts([*wanted_keys, (UNKNOWN, first.once.key), (application, b"\0" * 16)])
    assert kept == dict(zip(wanted_keys[:3], (first, anew, forever), strict=True))
    assert await store.receipts([]) == {}


# Applications


async def test_of_simultaneous_creations_with_one_key_one_creates(store: StackStore, database: Database) -> None:
    """The others are given the same application."""
    once = Once.of("/applications", "key", b"payload")
    answers = await asyncio.gather(
        *(store.create_application(f"{index:0{TOKEN_CHARACTERS}d}", "Name", once=once) for index in range(8))
    )
    assert len({application.token for application, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert len(await store.applications(ApplicationWindow(10))) == 1
    assert not await store.has_receipts()


async def test_a_token_still_opens_while_mysql_is_away(
    store: StackStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked before is remembered for as long as it takes; what is unknown is Unavailable."""
    monkeypatch.setattr(module, "TOKEN_KEPT_S", 0.0)
    application = await create(store, "a")
    token, other = (text.ljust(TOKEN_CHARACTERS, "x") for text in "ab")
    assert await store.resolve(token) == application
    await database.close()
    address, database.address = database.address, replace(database.address, port=free_port())
    assert await store.resolve(token) == application
    with pytest.raises(Unavailable):
        await store.resolve(other)
    database.address = address
    assert await store.resolve(other) is None
    await database.fetch("UPDATE applications SET erased_at = 1")
    assert await store.resolve(token) is None


async def test_erasing_again_closes_the_application_again(
    store: StackStore, application: ApplicationId, around: Surroundings
) -> None:
    """Whoever marked it first may have been stopped before others were told."""
    await store.erase_application(application)
    with pytest.raises(NotFound):
        await store.erase_application(application)
    assert around.told == [("erased", application)] * 2
    with pytest.raises(NotFound):
        await store.erase_application(UNKNOWN)


async def test_a_setting_stays_as_it_was_first(store: StackStore) -> None:
    """The same value passes, another is refused by name."""
    await asyncio.gather(*(store.fix("partitions", "8") for _ in range(4)))
    with pytest.raises(ConfigurationError, match="partitions is 9, and was 8"):
        await store.fix("partitions", "9")


# Operations


async def test_an_erased_application_is_removed_in_pieces_its_row_an_hour_later(
    store: StackStore, database: Database, application: ApplicationId, around: Surroundings
) -> None:
    """It leaves the index first; what arrives late goes, too; while the row only waits, nothing is left to do."""
    await store.apply(entries(application, opened(), *(posted(number) for number in range(1, 4_100))))
    await store.apply(entries(application, used("key", 1, CREATED, None)))
    await store.erase_application(application)
    around.told.clear()
    assert await store.sweep()
    assert around.told == [("erased", application), ("index", application)]
    while await store.sweep():
        pass
    assert (await contents(database))[:3] == [[], [], []]
    await database.fetch("INSERT INTO chats (application_id, number) VALUES (%s, 1)", (application,))
    assert await store.sweep()
    assert not await store.sweep()
    assert len(await database.fetch("SELECT 1 FROM applications")) == 1
    await database.fetch("UPDATE applications SET erased_at = erased_at - %s", (HOUR_MS + 1,))
    assert not await store.sweep()
    assert await database.fetch("SELECT 1 FROM applications") == []
    assert around.told[2:] == [("index", application)]


async def test_expired_keys_are_removed(store: StackStore, database: Database, application: ApplicationId) -> None:
    """Those that are kept, for a while or for ever, stay."""
    now = now_ms()
    await store.apply(entries(application, used("a", 1, now), used("b", 2, CREATED), used("c", 3, CREATED, None)))
    while await store.sweep():
        pass
    assert await database.fetch("SELECT number FROM receipts ORDER BY number") == [(1,), (3,)]


async def test_verify_names_all_that_is_wrong(
    store: StackStore, database: Database, application: ApplicationId
) -> None:
    """Nothing where all is well; else a sentence for each fault, at its place."""
    for chat in (1, 2, 3, 4):
        await store.apply(entries(application, opened(), *map(posted, (1, 2, 3)), ChatCounted(3, 3), chat=chat))
    assert await store.verify() == []
    for statement in (
        "UPDATE applications SET chats_count = 9",
        "UPDATE chats SET messages_count = 7 WHERE number = 1",
        "DELETE FROM messages WHERE chat_number = 2 AND number = 2",
        "UPDATE messages SET revision = 3 WHERE chat_number = 3 AND number = 1",
        "UPDATE chats SET revision = 5 WHERE number = 4",
        "UPDATE messages SET chat_number = 7 WHERE chat_number = 4 AND number = 3",
    ):
        await database.fetch(statement)
    where = f"application {application}"
    assert await store.verify() == [
        Discrepancy(where, "chats_count is 9, there are 4"),
        Discrepancy(f"{where}, chat 1", "messages_count is 7, there are 3"),
        Discrepancy(f"{where}, chat 2", "messages_count is 3, there are 2"),
        Discrepancy(f"{where}, chat 2", "messages are numbered from 1 to 3, there are 2"),
        Discrepancy(f"{where}, chat 3", "3 messages have 2 different revisions"),
        Discrepancy(f"{where}, chat 4", "messages_count is 3, there are 2"),
        Discrepancy(f"{where}, chat 4", "revision is 5, the latest message has 2"),
        Discrepancy(f"{where}, chat 7", "1 messages stand in no chat"),
    ]


async def test_recount_mends_counts_and_has_the_journal_forget_them(
    store: StackStore, database: Database, application: ApplicationId, around: Surroundings
) -> None:
    """It tells what was wrong, and leaves alone a chat of which something is still on its way."""
    for chat in (1, 2, 3):
        await store.apply(entries(application, opened(), posted(1), posted(2), ChatCounted(2, 2), chat=chat))
    await database.fetch("UPDATE applications SET chats_count = 5")
    await database.fetch("UPDATE chats SET messages_count = 9 WHERE number = 2")
    await store.apply(entries(application, ChatCounted(3, 3), chat=3))
    where = f"application {application}"
    assert await store.recount() == [
        Discrepancy(where, "chats_count is 5, there are 3"),
        Discrepancy(f"{where}, chat 2", "messages_count is 9, there are 2"),
    ]
    assert around.told == [("forget", (application, 2))]
    await store.apply(entries(application, posted(3), chat=3))
    assert await store.verify() == []
    assert await store.recount() == []


async def test_rows_are_all_messages_in_chunks_of_bounded_size(
    store: StackStore, application: ApplicationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By chat and number, tombstones included, none of another application; long messages come in shorter chunks."""
    monkeypatch.setattr(module, "ROWS_MAX", 50)
    monkeypatch.setattr(module, "ROWS_BYTES", 10_000)
    other = await create(store, "other")
    await store.apply(entries(other, opened(), posted(1)))
    facts: list[tuple[int, MessageChanged]] = []
    for chat, body in ((1, "short"), (2, "short"), (5, "long " * 200), (7, "short")):
        states = [*(posted(number, body) for number in range(1, 100)), deleted(100, 101)]
        facts += [(chat, state) for state in states]
        await store.apply(entries(application, *states, chat=chat))
    chunks = [chunk async for chunk in store.rows(application)]
    assert [row for chunk in chunks for row in chunk] == facts
    assert max(map(len, chunks)) == 50
    # Once long ones were seen, a chunk is as long as it should be, more or less.
    long = [chunk for chunk in chunks if all(chat == 5 for chat, _ in chunk)]
    assert len(long) >= 5
    assert max(map(len, long[1:])) <= 11
    assert await store.count_messages(application) == len(facts)
    assert [number async for number in store.application_ids()] == [application, other]


# The database


def test_the_history_of_the_schema_is_known_by_name() -> None:
    """What the program knows without Alembic is what stands in its folder."""
    assert tuple(sorted(file.stem.partition("_")[0] for file in VERSIONS.glob("[0-9]*.py"))) == REVISIONS


async def test_of_many_that_migrate_at_once_one_does(storage: Storage) -> None:
    """The others wait for it; the tables are there for all."""
    new = Storage(storage.addresses, "migrating")
    new.create_database()
    try:
        assert sorted(await asyncio.gather(*(migrate(new.mysql_url) for _ in range(5)))) == [False] * 4 + [True]
        database = await Database.open(new.mysql_url)
        assert await database.fetch("SELECT * FROM messages") == []
        # A migration that was cut off is run again from its beginning.
        await database.fetch("DELETE FROM alembic_version")
        assert await migrate(new.mysql_url)
        await database.fetch("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(ConfigurationError, match="newer"):
            await migrate(new.mysql_url)
        await database.close()
    finally:
        new.execute(f"DROP DATABASE {new.database}", database="")


async def test_a_server_that_is_not_there_is_unavailable(storage: Storage) -> None:
    """Opening needs nobody; each call says so by itself, migrating after the time it was given."""
    away = replace(Address.of(storage.mysql_url), port=free_port())
    database = Database(away, 2)
    with pytest.raises(Unavailable, match="away"):
        await database.fetch("SELECT 1")
    with pytest.raises(Unavailable, match="away"):
        async with database.transaction():
            pytest.fail("there is no server")
    with pytest.raises(Unavailable):
        await migrate(f"mysql://chat@127.0.0.1:{away.port}/chat", wait_s=0.1)
    await database.close()


async def test_a_server_that_keeps_silent_is_unavailable(storage: Storage) -> None:
    """It accepts the connection and never says a word."""
    silence = asyncio.Event()

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        database = Database(replace(Address.of(storage.mysql_url), port=port), 2)
        with pytest.raises(Unavailable, match="does not answer"):
            await database.fetch("SELECT 1", timeout_s=0.2)
        await database.close()
        silence.set()


async def test_who_may_not_enter_is_told_by_the_operators_words(storage: Storage) -> None:
    """Reads are Unavailable, for somebody may mend it; migrating names the place, and never the password."""
    parts = Address.of(storage.mysql_url)
    url = f"mysql://nobody:a-secret@{parts.host}:{parts.port}/{parts.database}"
    database = await Database.open(url)
    with pytest.raises(Unavailable, match="refuses"):
        await database.fetch("SELECT 1")
    with pytest.raises(ConfigurationError, match=parts.database) as caught:
        await migrate(url)
    assert "a-secret" not in str(caught.value) + repr(database.address)
    for wrong in (
        "mysql://host:3306",
        "mysql://host:99999/chat",
        "mysql://host/chat?ssl=1",
        "mysql://host/chat?tls=/no",
    ):
        with pytest.raises(ConfigurationError, match="CHAT_MYSQL_URL"):
            await Database.open(wrong)


async def test_connections_that_died_idle_are_replaced(store: StackStore, database: Database) -> None:
    """Neither a read nor a transaction fails for it."""
    await asyncio.gather(*(database.fetch("SELECT SLEEP(0.05)") for _ in range(4)))
    for _ in range(2):
        victims = await database.fetch(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        assert victims
        own = (await database.fetch("SELECT CONNECTION_ID()"))[0][0]
        other = await Database.open(await url_of(database))
        for (victim,) in [*victims, (own,)]:
            await other.fetch(f"KILL {victim}")
        await other.close()
        await create(store, f"{own}-")
        await asyncio.gather(*(database.fetch("SELECT SLEEP(0.05)") for _ in range(4)))


async def url_of(database: Database) -> str:
    """The address as it is set."""
    address = database.address
    password = f":{address.password}" if address.password else ""
    return f"mysql://{address.user}{password}@{address.host}:{address.port}/{address.database}"


async def test_a_transaction_that_is_cancelled_leaves_nothing(store: StackStore, database: Database) -> None:
    """Its locks are gone as well: the next one does not wait for them."""
    application = await create(store, "a")

    async def hold() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE applications SET name = 'other' WHERE id = %s", (application,))
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await store.rename_application(application, "renamed")).name == "renamed"
