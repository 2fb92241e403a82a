"""The journal on Redis: numbering, recording and announcing are one Lua script (`scripts/append.lua`).

What the clients of this process ask while one call is under way goes together into the next, so they share a
round trip and an fsync. Redis answers when its file is flushed (`appendfsync always`).

One stream holds every accepted fact of a partition. Each projection is a consumer group, so a slow search index
never holds back the store. Counters of chats are in Redis while something of theirs is unapplied and an hour
longer; a cold one is seeded from the store under a ticket, which others' seeding makes void.

When Redis has lost its data, an epoch begins (`epochs`), and the counters are seeded from the store.

Not promised: order between workers of one group. `apply` must tolerate it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from chat_system import telemetry
from chat_system.errors import Conflict, IdempotencyMismatch, NotFound, Stale, Unavailable
from chat_system.model import (
    ApplicationId,
    Change,
    ChangeChat,
    ChatChanged,
    DeleteMessage,
    EditMessage,
    KeyUsed,
    MessageChanged,
    Once,
    OpenChat,
    PostMessages,
    Receipt,
    encode_metadata,
    same_metadata,
)
from chat_system.ports import Backlog, Entry, Projection, SetAside
from chat_system.stack import asides, facts
from chat_system.stack.asides import PROJECTIONS
from chat_system.stack.asking import ASK, COLD, ERASED, MISMATCH, Asked, pack, posting, unpack, weigh
from chat_system.stack.consuming import Consumer
from chat_system.stack.epochs import Epochs
from chat_system.stack.gathering import Gathering
from chat_system.stack.lanes import Lane
from chat_system.stack.redis import Redis, Script
from chat_system.stack.tail import ChatSeed, ChatTail, Tail
from chat_system.telemetry import log

ATTEMPTS = 20
"""How often a change is tried anew: seeded, checked, or based on what has changed meanwhile."""

TICK_S = 1.0
"""How often a process shows that it is alive, and looks at Redis' memory."""

MEMORY_MARK = 0.8
"""Of Redis' `maxmemory`: beyond it writes are refused, and the projections have room to catch up."""

GONE_MS = 7 * 24 * 3600 * 1000
"""How long an erased application is marked. No process remembers a token for nearly as long."""

MIB = 1024 * 1024

_BACKLOG = Script("backlog")
_FORGET = Script("forget")


class Seeds(Protocol):
    """What the journal asks the store when something is cold. All raise Unavailable when it is away."""

    async def chat_seed(self, application: ApplicationId, chat: int) -> ChatSeed | None:
        """Where a chat's counters stand; None when there is no such chat."""

    async def last_chat(self, application: ApplicationId) -> int | None:
        """The highest chat number; None for an application that is unknown or erased."""

    async def receipts(self, keys: Sequence[tuple[ApplicationId, bytes]]) -> dict[tuple[ApplicationId, bytes], KeyUsed]:
        """What is kept of idempotency keys, and has not expired."""

    async def stored_message(self, application: ApplicationId, chat: int, number: int) -> MessageChanged | None:
        """A message as it was applied."""

    async def stored_chat(self, application: ApplicationId, chat: int) -> ChatChanged | None:
        """A chat as it was applied."""


class _Raced(Exception):
    """Somebody else changed it between our look and our change, or our look was too long ago."""


class _Unchanged(Exception):
    """There is nothing to change: nothing is recorded, and this is the answer."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__()
        self.receipt = receipt


class StackJournal:
    """Records changes, and hands what was recorded to the projections of this process."""

    def __init__(self, redis: Redis, tail: Tail, epochs: Epochs, memory_mark_mb: int = 0) -> None:
        self._redis = redis
        self._tail = tail
        self._epochs = epochs
        self._memory_mark_bytes = memory_mark_mb * MIB
        self._is_full = False
        self._wakes = {projection: asyncio.Event() for projection in PROJECTIONS}
        self._plenty = {projection: asyncio.Event() for projection in PROJECTIONS}
        self._first_lanes: dict[Projection, Lane] = {}
        self._lanes: list[Lane] = []
        self.wake()
        self._turns: dict[ApplicationId, asyncio.Future[None]] = {}
        self._opened: set[ApplicationId] = set()
        self._seeding: dict[tuple[int, int, int], asyncio.Future[list[int]]] = {}
        self._changes = Gathering(redis, Script("append"), pack, unpack, weigh=weigh, observe=_observe)
        self._seeds: Seeds

    def connect(self, seeds: Seeds) -> None:
        """Give it the store, which is made after the tail and the journal."""
        self._seeds = seeds

    # Recording

    async def append(self, application: ApplicationId, change: Change, *, once: Once | None = None) -> Receipt:
        """See `ports.Journal.append`."""
        if self._is_full:
            raise Unavailable("Redis has no memory left for writes: the workers are behind.")
        if isinstance(change, PostMessages):
            return await self._record(posting(application, change, once))
        if isinstance(change, OpenChat):
            content = facts.ChatContent(change.chat.title, encode_metadata(change.chat.metadata))
            return await self._open(Asked(facts.OPEN, application, 0, once, [], [facts.encode(content)]))
        # What it would be based on now is not what the first request with this key was based on.
        first = await self._first(application, once)
        if first is not None:
            return first
        for _ in range(ATTEMPTS):
            with contextlib.suppress(_Raced):
                return await self._change(application, change, once)
        raise Unavailable("Too many are changing the same thing at once.")

    async def receipt(self, application: ApplicationId, once: Once) -> Receipt | None:
        """See `ports.Journal.receipt`."""
        used = await self._used(application, once)
        return None if used is None else used[1]

    async def _first(self, application: ApplicationId, once: Once | None) -> Receipt | None:
        """What the first request with this key was allotted, if it had the same payload."""
        used = None if once is None else await self._used(application, once)
        if once is None or used is None:
            return None
        if used[0] != once.fingerprint:
            raise _mismatch()
        await self._tail.application(application)
        return used[1]

    async def _used(self, application: ApplicationId, once: Once) -> tuple[bytes, Receipt] | None:
        partition = self._redis.partition(application)
        kept = await self._redis.command("GET", self._redis.key(partition, f"o:{application}:{once.key.hex()}"))
        if kept is not None:
            number, revision, at, count = facts.KEPT.unpack_from(kept)
            fingerprint = bytes.fromhex(kept[facts.KEPT.size :].decode())
            return fingerprint, Receipt(number, revision, at, count, replayed=True)
        found = (await self._seeds.receipts([(application, once.key)])).get((application, once.key))
        return None if found is None else (found.once.fingerprint, found.receipt)

    async def _change(
        self, application: ApplicationId, change: ChangeChat | EditMessage | DeleteMessage, once: Once | None
    ) -> Receipt:
        try:
            if isinstance(change, ChangeChat):
                return await self._change_chat(application, change, once)
            return await self._change_message(application, change, once)
        except (_Unchanged, Stale, Conflict) as outcome:
            # The first request with this key may have come in between.
            first = await self._first(application, once)
            if first is not None:
                return first
            if isinstance(outcome, _Unchanged):
                return outcome.receipt
            raise

    async def _change_message(
        self, application: ApplicationId, change: EditMessage | DeleteMessage, once: Once | None
    ) -> Receipt:
        tail = await self._tail.message(application, change.chat, change.number)
        current = tail.messages.get(change.number)
        if current is None:
            current = await self._seeds.stored_message(application, change.chat, change.number)
        if current is None:
            raise NotFound
        is_deleted = current.deleted_at is not None
        if isinstance(change, DeleteMessage):
            if is_deleted:
                raise _Unchanged(Receipt(change.number, current.revision, current.deleted_at or 0))
            kind, content = facts.DELETE, facts.MessageContent(current.sender, None, None, current.created_at)
        else:
            if is_deleted:
                raise Conflict("A deleted message can't be edited.")
            if current.revision != change.based_on:
                raise Stale
            content = facts.MessageContent(current.sender, change.body, change.metadata, current.created_at)
            kind = facts.EDIT
        rest = [*_based_on(current.revision, tail), change.number, current.created_at]
        return await self._record(Asked(kind, application, change.chat, once, rest, [facts.encode(content)]))

    async def _change_chat(self, application: ApplicationId, change: ChangeChat, once: Once | None) -> Receipt:
        tail = await self._tail.chat(application, change.chat)
        current = tail.chat or await self._seeds.stored_chat(application, change.chat)
        if current is None:
            raise NotFound
        edit = change.edit
        title = edit.title if isinstance(edit.title, str | None) else current.title
        metadata = encode_metadata(edit.metadata) if isinstance(edit.metadata, dict | None) else current.metadata
        if title == current.title and same_metadata(metadata, current.metadata):
            raise _Unchanged(Receipt(change.chat, tail.revision, current.updated_at))
        content = facts.encode(facts.ChatContent(title, metadata, current.created_at))
        rest = [*_based_on(current.version, tail), current.updated_at]
        return await self._record(Asked(facts.CHANGE, application, change.chat, once, rest, [content]))

    async def _open(self, asked: Asked) -> Receipt:
        """Chats of an import are numbered in the order in which they were asked for, though their keys take a look.

        Keys that are kept for ever may be older than all that Redis knows.
        """
        application, once = asked.application, asked.once
        if once is None or once.kept_s is not None:
            return await self._record(asked)
        before = self._turns.get(application)
        turn = self._turns[application] = asyncio.get_running_loop().create_future()
        try:
            first = await self._first(application, once)
            await self._tail.application(application)
            asked.checked = self._tail.epoch_of(application)
            if before is not None:
                await asyncio.wait([before])
            if first is not None:
                return first
            # The first makes the application's counter warm, for which all others would have to ask again.
            receipt = await self._record(asked, turn if application in self._opened else None)
            self._opened.add(application)
            return receipt
        finally:
            if not turn.done():
                turn.set_result(None)
            if self._turns.get(application) is turn:
                del self._turns[application]

    async def _record(self, asked: Asked, turn: asyncio.Future[None] | None = None) -> Receipt:
        """Ask until it is recorded, seeding what is cold, and checking the keys that Redis can't know of.

        `turn` is over when it was asked for the first time.
        """
        application = asked.application
        for _ in range(ATTEMPTS):
            asking = self._changes.ask(self._redis.partition(application), asked)
            if turn is not None and not turn.done():
                turn.set_result(None)
            answer = await asking
            if type(answer) is Receipt:
                return answer
            if answer is None:
                await self._epochs.begin(self._redis.partition(application))
                continue
            code = answer[0]
            if code == COLD:
                asked.seed = await self._seed(application, asked.chat, answer[1])
            elif code == ASK:
                receipt = await self._first(application, asked.once)
                if receipt is not None:
                    return receipt
                asked.checked = answer[1]
            elif code == ERASED:
                raise NotFound
            elif code == MISMATCH:
                raise _mismatch()
            else:
                raise _Raced
        raise Unavailable("The journal is being set up by too many at once.")

    async def _seed(self, application: ApplicationId, chat: int, ticket: int) -> list[int]:
        """Counters from the store, under the ticket. Who asks under the same ticket shares the answer."""
        key = (application, chat, ticket)
        asking = self._seeding.get(key)
        if asking is None:
            asking = self._seeding[key] = asyncio.ensure_future(self._find_seed(application, chat))
            asking.add_done_callback(lambda _: self._seeding.pop(key, None))
        return [ticket, *await asyncio.shield(asking)]

    async def _find_seed(self, application: ApplicationId, chat: int) -> list[int]:
        if chat == 0:
            last = await self._seeds.last_chat(application)
            if last is None:
                raise NotFound
            return [last]
        seed = await self._seeds.chat_seed(application, chat)
        if seed is None:
            raise NotFound
        return [seed.last, seed.revision, seed.messages_count, seed.version]

    # Erased applications, forgotten counters

    async def erased(self, application: ApplicationId) -> None:
        """Close an application to all processes, at once. The store has marked it already."""
        partition = self._redis.partition(application)
        await self._redis.commands(
            [
                ("SET", self._redis.key(partition, f"gone:{application}"), 1, "PX", GONE_MS),
                ("PUBLISH", self._redis.key(partition, "feed"), f"{application}:0"),
            ]
        )

    async def forget(self, application: ApplicationId, chat: int) -> None:
        """Drop a chat's counters, if nothing of it is unapplied: they are seeded anew."""
        await self._redis.call(_FORGET, [(self._redis.partition(application), (application, chat))])

    # Projections

    async def read(self, projection: Projection, limit: int) -> Sequence[Entry]:
        """See `ports.Journal.read`."""
        return await self._lane(projection).read(projection, limit)

    async def acknowledge(self, projection: Projection, entries: Sequence[Entry]) -> None:
        """See `ports.Journal.acknowledge`."""
        await self._lane(projection).acknowledge(projection, entries)

    async def set_aside(self, projection: Projection, entry: Entry, error: str) -> None:
        """See `ports.Journal.set_aside`."""
        await self._lane(projection).set_aside(projection, entry, error)

    async def backlog(self, projection: Projection) -> Backlog:
        """See `ports.Journal.backlog`."""
        found = await self._redis.call(
            _BACKLOG, [(partition, (projection,)) for partition in range(self._redis.partitions)]
        )
        return Backlog(
            sum(max(0, recorded - applied) for recorded, applied, _, _ in found),
            max(age for _, _, _, age in found) / 1000,
            sum(aside for _, _, aside, _ in found),
        )

    async def wait(self, projection: Projection) -> None:
        """See `ports.Journal.wait`."""
        await self._lane(projection).wait(projection)

    def another_lane(self, projection: Projection) -> Lane:
        """A source of the projection's entries that helps while whole batches wait."""
        return self._new_lane(projection, None)

    def wake(self) -> None:
        """Something was recorded, by whomever."""
        for wake in self._wakes.values():
            wake.set()

    async def asides(self) -> Sequence[SetAside]:
        """See `ports.Journal.asides`."""
        return await asides.asides(self._redis)

    async def retry(self, projection: Projection) -> int:
        """See `ports.Journal.retry`."""
        return await asides.retry(self._redis, projection)

    async def ping(self) -> None:
        """See `ports.Journal.ping`."""
        await self._redis.ping()

    # The life of this process

    async def run(self) -> None:
        """Show that this process is alive and watch Redis' memory, until cancelled."""
        while True:
            try:
                await self._look_at_memory()
                for lane in self._lanes:
                    await lane.consumer.show_alive()
            except Unavailable:
                pass
            except Exception:  # noqa: BLE001 - whatever it was, a full Redis must be noticed afterwards
                log.exception("redis not watched", retry_in_s=TICK_S)
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        """Finish what is under way, and leave what was read and not acknowledged to others."""
        await self._changes.close()
        with contextlib.suppress(Unavailable):
            for lane in self._lanes:
                await lane.consumer.leave()

    async def _look_at_memory(self) -> None:
        used, limit = await self._redis.memory()
        mark = self._memory_mark_bytes or limit * MEMORY_MARK
        is_full = bool(mark) and used > mark
        if is_full != self._is_full:
            self._is_full = is_full
            if is_full:
                log.error("redis is full", used_bytes=used, mark_bytes=int(mark))
            else:
                log.info("redis has room again", used_bytes=used, mark_bytes=int(mark))

    def _lane(self, projection: Projection) -> Lane:
        found = self._first_lanes.get(projection)
        if found is None:
            found = self._first_lanes[projection] = self._new_lane(projection, self._wakes[projection])
        return found

    def _new_lane(self, projection: Projection, wake: asyncio.Event | None) -> Lane:
        lane = Lane(Consumer(self._redis, projection), wake, self._plenty[projection], self.backlog)
        self._lanes.append(lane)
        return lane


def _based_on(version: int, tail: ChatTail) -> list[int]:
    """What a change is based on, and when that was so."""
    return [version, tail.read_at, tail.epoch]


def _observe(changes: int, seconds: float) -> None:
    telemetry.FLUSH_UNITS.observe(changes)
    telemetry.FLUSH_SECONDS.observe(seconds)


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch("The idempotency key was used with another payload.")
