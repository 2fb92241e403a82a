"""A reindex on a real Elasticsearch: it loses nothing while messages go on being written, or it fails loudly.

The store and the journal are small ones in memory: what a reindex reads of them is two protocols, and here the
order of events is the test's to choose.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from chat_system.errors import NotFound, Unavailable
from chat_system.model import ApplicationId, MessageChanged
from chat_system.ports import Entry
from chat_system.stack import indices, reindex
from chat_system.stack.elasticsearch import Elasticsearch
from chat_system.stack.reindex import Reindex, ReindexFailed
from chat_system.stack.search import StackSearch

PIECE = 50
FIRST, SECOND = ApplicationId(1), ApplicationId(2)
STEPS = 40


class Tail:
    """One group of the journal: what it has not acknowledged yet."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = {entry.position: entry for entry in entries}
        self.closed = False

    async def read(self, limit: int) -> Sequence[Entry]:
        return list(self.entries.values())[:limit]

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            del self.entries[entry.position]

    async def beginning(self, application: ApplicationId) -> str:
        assert application in (FIRST, SECOND)
        return "0/1-0/0"

    async def close(self) -> None:
        self.closed = True


class World:
    """Accepts messages, applies them to the store and to the search index whenever the test says so.

    While `gate` is closed, rows are read out no further than the first piece; `copying` is set when that was copied.
    """

    def __init__(self, search: StackSearch) -> None:
        self.search = search
        self.stored: dict[ApplicationId, dict[tuple[int, int], MessageChanged]] = {}
        self.tails: dict[str, Tail] = {}
        self.unstored: list[Entry] = []
        self.unindexed: list[Entry] = []
        self.told: list[tuple[int, int]] = []
        self.copying = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._accepted = 0
        self._revisions: dict[tuple[ApplicationId, int], int] = {}

    def accept(self, application: ApplicationId, chat: int, number: int, body: str | None) -> None:
        """A message is posted, edited or deleted."""
        self._accepted += 1
        revision = self._revisions[application, chat] = self._revisions.get((application, chat), 0) + 1
        state = MessageChanged(number, revision, None, body, None, 1_000 + number)
        entry = Entry(f"0/1-{self._accepted}/0", application, chat, state)
        for tail in self.tails.values():
            tail.entries[entry.position] = entry
        self.unstored.append(entry)
        self.unindexed.append(entry)

    def store(self) -> None:
        """The store applies what was accepted."""
        for entry in self.unstored:
            place = entry.chat, entry.message.number
            rows = self.stored.setdefault(entry.application, {})
            if place not in rows or rows[place].revision < entry.message.revision:
                rows[place] = entry.message
        self.unstored.clear()

    async def index(self) -> None:
        """The search index applies what was accepted."""
        entries, self.unindexed = self.unindexed, []
        await self.search.apply(entries)

    async def settle(self) -> None:
        """Both apply."""
        self.store()
        await self.index()

    async def follow(self, name: str) -> Tail:
        """A group of its own, which begins with what the store has not."""
        if name not in self.tails:
            self.tails[name] = Tail(self.unstored)
        return self.tails[name]

    def open_tails(self) -> list[Tail]:
        """The groups that nobody has closed."""
        return [tail for tail in self.tails.values() if not tail.closed]

    async def application_ids(self) -> AsyncIterator[ApplicationId]:
        for application in list(self.stored):
            yield application

    async def rows(self, application: ApplicationId) -> AsyncIterator[Sequence[tuple[int, MessageChanged]]]:
        if application not in self.stored:
            raise NotFound
        places = sorted(self.stored[application])
        for start in range(0, len(places), PIECE):
            if start or application != FIRST:
                await self.gate.wait()
            yield [(place[0], self.stored[application][place]) for place in places[start : start + PIECE]]

    async def count_messages(self, application: ApplicationId) -> int:
        if application not in self.stored:
            raise NotFound
        return len(self.stored[application])

    def tell(self, copied: int, total: int) -> None:
        """How far a reindex is."""
        self.told.append((copied, total))
        if copied:
            self.copying.set()

    def reindex(self, store: Any = None, settle_s: float = 1.0) -> Reindex:
        """A reindex of it; `settle_s` is how long differing counts are given."""
        return Reindex(self.search, store or self, self.follow, self.tell, settle_s=settle_s)

    async def check(self) -> None:
        """The index holds what the store holds, message by message."""
        await self.search.refresh()
        for application, rows in self.stored.items():
            assert await self.search.count(application) == len(rows)
            for chat in {chat for chat, _ in rows}:
                found = await self.search.in_chat(application, chat, "m", before=None, limit=10_000)
                wanted = {number: state.body for (at, number), state in rows.items() if at == chat and state.body}
                assert {message.number: message.body for message in found} == wanted

    async def untouched(self) -> None:
        """The alias is where it was, no index is beside it, and no group is left in the journal."""
        assert await self.search.indices.all() == {f"{self.search.alias}-000001": True}
        assert self.open_tails() == []
        await self.check()


@pytest.fixture
async def world(elasticsearch_url: str) -> AsyncIterator[World]:
    """Two applications of 120 messages each in three chats, some edited and deleted, all stored and indexed."""
    elasticsearch = Elasticsearch(elasticsearch_url)

    async def known(*_: int) -> None:
        return

    made = World(StackSearch(elasticsearch, f"test-{secrets.token_hex(6)}", known, known))
    await made.search.create()
    for application in (FIRST, SECOND):
        for index in range(120):
            made.accept(application, 1 + index % 3, 1 + index // 3, f"message {index}")
        made.accept(application, 1, 5, "edited message")
        made.accept(application, 2, 6, None)
    await made.settle()
    await made.search.refresh()
    yield made
    for name in await made.search.indices.all():
        await elasticsearch.ask("DELETE", f"/{name}")
    await elasticsearch.close()


async def test_a_new_index_takes_the_place_of_the_old_one_with_every_row(world: World) -> None:
    """Also rows that the old index had lost; the old index goes, and progress is told to the end."""
    await world.search.erase(FIRST)
    done = await world.reindex().run()
    assert (done.index, done.copied, done.followed) == (f"{world.search.alias}-000002", 240, 0)
    assert await world.search.indices.all() == {done.index: True}
    assert world.told[0] == (0, 240)
    assert world.told[-1] == (240, 240)
    assert world.open_tails() == []
    await world.check()
    world.accept(FIRST, 1, 41, "message after")
    await world.settle()
    await world.check()


async def test_nothing_written_during_a_reindex_is_missing_afterwards(world: World) -> None:
    """Posts, edits and deletions at every moment of it, stored and indexed late; searches find what they found."""
    running = asyncio.create_task(world.reindex(settle_s=20).run())
    step = 0
    while not running.done():
        step += 1
        if step <= STEPS:
            world.accept(FIRST, 1, 40 + step, f"message {step} while reindexing")
            world.accept(SECOND, 2, 1 + step % 40, f"message edited {step}")
            world.accept(SECOND, 3, 40 + step, None if step % 5 == 0 else "message")
        if step % 3 == 0:
            await world.index()
        if step % 4 == 0:
            world.store()
        found = await world.search.in_chat(FIRST, 3, "message", before=None, limit=100)
        assert len(found) == 40, "searches are answered all along"
        await asyncio.sleep(0.01)
    assert (await running).followed > 0
    await world.settle()
    await world.check()


async def test_what_the_old_index_got_at_the_last_moment_is_in_the_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that applied to the old index just before the alias moved has done so in vain, but for the journal."""
    ask = world.search.elasticsearch.ask
    late = []

    async def ask_late(method: str, path: str, *rest: Any, **more: Any) -> Any:
        if path == "/_aliases":
            late.append(path)
            world.accept(FIRST, 1, 41, "message of the last moment")
            world.accept(FIRST, 1, 1, "message edited at the last moment")
            await world.settle()
        return await ask(method, path, *rest, **more)

    monkeypatch.setattr(world.search.elasticsearch, "ask", ask_late)
    await world.reindex().run()
    assert late == ["/_aliases"]
    await world.check()


async def test_a_fact_from_before_does_not_come_back_when_it_is_tried_again(world: World) -> None:
    """Set aside while the message changed on: the new index has the later state, and an older revision is older."""
    world.accept(FIRST, 1, 41, "message of old")
    aside = world.unindexed[-1]
    world.accept(FIRST, 1, 41, None)
    await world.settle()
    await world.reindex().run()
    await world.search.apply([aside])
    await world.check()


class Lossy:
    """The same store, which does not read one of its rows out to a reindex."""

    def __init__(self, world: World) -> None:
        self.application_ids = world.application_ids
        self.count_messages = world.count_messages
        self._rows = world.rows

    async def rows(self, application: ApplicationId) -> AsyncIterator[Sequence[tuple[int, MessageChanged]]]:
        async for piece in self._rows(application):
            yield [row for row in piece if (application, row[0], row[1].number) != (SECOND, 2, 7)]


class Overfull(Lossy):
    """The same store, which counts a row less than it reads out."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._world = world
        self.count_messages = self._one_less
        self.rows = world.rows  # type: ignore[method-assign]

    async def _one_less(self, application: ApplicationId) -> int:
        return await self._world.count_messages(application) - 1


async def test_a_reindex_that_lost_a_row_fails_and_changes_nothing(world: World) -> None:
    """The sentence names the application and both counts."""
    with pytest.raises(ReindexFailed, match="application 2: 120 rows, 119 documents"):
        await world.reindex(Lossy(world)).run()
    await world.untouched()


async def test_more_documents_than_rows_fail_when_nothing_is_being_written(world: World) -> None:
    """A surplus that no writer explains is a defect, too."""
    with pytest.raises(ReindexFailed, match="application 1: 119 rows, 120 documents"):
        await world.reindex(Overfull(world)).run()
    await world.untouched()


async def test_a_refused_message_fails_the_reindex_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the rows or from the journal: nothing is left out in silence."""
    monkeypatch.setitem(indices._MAPPINGS["properties"], "number", {"type": "byte"})  # noqa: SLF001 - the only way
    world.accept(SECOND, 3, 300, "message with a number too large")
    await world.index()
    with pytest.raises(ReindexFailed, match="application 2, chat 3, message 300"):
        await world.reindex().run()
    world.store()
    with pytest.raises(ReindexFailed, match="application 2, chat 3, message 300"):
        await world.reindex().run()
    await world.untouched()


async def test_a_reindex_that_is_interrupted_leaves_nothing_behind(world: World) -> None:
    """Control-C in the middle: the alias stands, the half-filled index and the group go."""
    world.gate.clear()
    running = asyncio.create_task(world.reindex().run())
    await world.copying.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()
    await world.untouched()


async def test_what_a_killed_reindex_left_is_removed_only_on_demand(world: World) -> None:
    """It may still be running: the operator decides."""
    left = f"{world.search.alias}-000002"
    await world.search.indices.make(left, alias=f"{left}-filling")
    abandoned = await world.follow(left)
    with pytest.raises(ReindexFailed, match=f"{left} .*--discard"):
        await world.reindex().run()
    assert abandoned in world.open_tails()
    done = await world.reindex().run(discard=True)
    assert abandoned not in world.open_tails()
    assert await world.search.indices.all() == {done.index: True}
    await world.check()


async def test_an_index_that_another_deletes_is_not_made_by_guessing(world: World) -> None:
    """Writing to an index that is gone would make one with a mapping of Elasticsearch's own."""
    world.gate.clear()
    running = asyncio.create_task(world.reindex().run())
    new = f"{world.search.alias}-000002"
    await world.copying.wait()
    await world.search.elasticsearch.ask("DELETE", f"/{new}")
    world.gate.set()
    with pytest.raises(ReindexFailed):
        await running
    await world.untouched()


async def test_settings_of_an_operator_survive_and_shards_may_change(world: World) -> None:
    """Replicas and the refresh interval are the old index's, the number of shards what was asked for."""
    theirs = {"refresh_interval": "3s", "auto_expand_replicas": "0-2"}
    await world.search.elasticsearch.ask("PUT", f"/{world.search.alias}/_settings", theirs)
    done = await world.reindex().run(shards=3)
    found = await world.search.elasticsearch.ask("GET", f"/{done.index}/_settings")
    settings = found[done.index]["settings"]["index"]
    kept = settings["refresh_interval"], settings["auto_expand_replicas"], settings["number_of_shards"]
    assert kept == ("3s", "0-2", "3")
    await world.check()


async def test_an_application_erased_meanwhile_is_no_difference(world: World) -> None:
    """Its rows go while they are being counted, and its documents with them."""
    world.gate.clear()
    running = asyncio.create_task(world.reindex(settle_s=20).run())
    await world.copying.wait()
    del world.stored[SECOND]
    await world.search.erase(SECOND)
    world.gate.set()
    await running
    await world.check()


async def block(world: World, on: bool | None) -> None:
    """Make the new index refuse writes, or take them again."""
    new = f"{world.search.alias}-000002"
    await world.search.elasticsearch.ask("PUT", f"/{new}/_settings", {"index.blocks.write": on})


async def test_a_reindex_waits_while_elasticsearch_can_not_take_more(world: World) -> None:
    """A block that is lifted costs time only."""
    world.gate.clear()
    running = asyncio.create_task(world.reindex().run())
    await world.copying.wait()
    await block(world, True)
    world.gate.set()
    await asyncio.sleep(0.5)
    assert not running.done()
    await block(world, None)
    await running
    await world.check()


async def test_a_reindex_gives_up_on_an_elasticsearch_that_stays_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its patience it ends without effect."""
    monkeypatch.setattr(reindex, "PATIENCE_S", 0.5)
    world.gate.clear()
    running = asyncio.create_task(world.reindex().run())
    await world.copying.wait()
    await block(world, True)
    world.gate.set()
    with pytest.raises(Unavailable):
        await running
    await world.untouched()
