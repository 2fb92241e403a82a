"""Applying facts to MySQL: any order, any number of times, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import random

import msgspec
import pytest
from asyncmy.errors import MySQLError

from chat_system.model import BODY_MAX_BYTES, ApplicationId, ChatChanged, ChatCounted, Fact, MessageChanged
from chat_system.ports import Entry
from chat_system.stack.applying import NumberTakenTwice
from chat_system.stack.mysql import Database
from chat_system.stack.store import StackStore
from chat_system.stack.tail import ChatSeed
from tests.contract.stack.facts import (
    CREATED,
    UNKNOWN,
    backstop_hits,
    contents,
    create,
    deleted,
    edited,
    entries,
    opened,
    posted,
    used,
)


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
    texts += [
        "".join(map(chr, range(1, 32))),
        "\f\\f\\u0001\x7f",
        "],[",
        '],["",',
        "\uffff\U0010ffff",
        "�",
        "--'; DROP TABLE messages; #",
        "\\0\\n",
        "x" * BODY_MAX_BYTES,
        "字" * 21_845,
    ]
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
