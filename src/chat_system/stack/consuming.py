"""A consumer of the journal: one process's share of what one consumer group reads.

What was read and not acknowledged is held, here and in Redis' list of what is pending, and read again; what a
consumer held that has died goes to the others. A stream entry holds the facts of one flush, so it is acknowledged
in Redis when the last of them was.

The projections get whole stream entries where they can (`batches`); whatever has to be dealt with fact by fact is taken
apart.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any

from chat_system.errors import Unavailable
from chat_system.model import ApplicationId, ChatChanged, MessageChanged
from chat_system.ports import Entry
from chat_system.stack import facts
from chat_system.stack.batches import MESSAGES, Batch, Flush, in_order
from chat_system.stack.redis import Redis, Script
from chat_system.telemetry import SET_ASIDE_TOTAL, log

PROJECTIONS = STORE, SEARCH = "store", "search"

NOTHING = facts.encode([])

ALIVE_S = 5.0
"""How long a consumer counts as alive after it has shown itself."""

SHOW_EVERY_S = 1.0
"""How often it shows itself while it reads."""

FOLLOWER_S = 300
"""How long a group that is neither projection's is kept when nobody reads."""

LOOK_FOR_DEAD_S = 1.0
ENTRIES_PER_READ = 64
"""Stream entries asked of a partition at once: of about 64 KiB each at most, and mostly a few facts."""

HELD_MAX_BYTES = 32 * 1024 * 1024
"""When this much is held, nothing further is read."""

SETTLE_CHUNK = 1000
"""Messages of one chat that one call settles."""

_Left = tuple[str, int, list[int]]
_Done = dict[int, list[_Left]]
"""By partition: stream entries, how many of their facts count (or IN_PART), and which were let go."""

IN_PART = -1
"""Instead of a count: others of the entry's facts are still held."""

_Settled = tuple[int, int, list[int], int, int]
"""What is stored of a chat: application, chat, runs of revisions (first, last, …), version (0: none), epoch."""

_READ = Script("read")
_ACKNOWLEDGE = Script("acknowledge")
_ASIDE = Script("aside")
_FOLLOW = Script("follow")


class Consumer:
    """Reads one group's entries of all partitions under one name."""

    held_max_bytes = HELD_MAX_BYTES

    def __init__(self, redis: Redis, group: str) -> None:
        self.group = group
        self._redis = redis
        self._name = secrets.token_hex(8)
        self._held: dict[str, tuple[Entry, Flush]] = {}
        self._whole: dict[str, Flush] = {}
        self._whole_facts = 0
        self._whole_first = False
        self._held_bytes = 0
        self._open: set[str] = set()
        self._first_partition = 0
        self._shown_at = self._looked_at = -math.inf

    @property
    def holds_any(self) -> bool:
        """Whether anything was read that was not acknowledged yet."""
        return bool(self._held or self._whole)

    def holds(self, count: int) -> bool:
        """Whether so many entries were read that are not acknowledged yet."""
        return len(self._held) + self._whole_facts >= count

    async def read(self, limit: int) -> Sequence[Entry]:
        """See `ports.Journal.read`. A projection gets fewer than there are rather than a stream entry in parts."""
        while not self.holds(limit) and self._held_bytes < self.held_max_bytes and await self._fetch():
            pass
        first = next(iter(self._whole.values()), None)
        if first is not None and first.left > limit:
            self._take_apart(first.prefix)
        # Each comes first in its turn: what can't be applied now must not hide the rest.
        self._whole_first = not self._whole_first
        if self._whole_first:
            flushes = self._next_whole(limit)
            singles = self._next_singles(limit - sum(flush.left for flush in flushes))
        else:
            singles = self._next_singles(limit)
            flushes = self._next_whole(limit - len(singles))
        return Batch(flushes, singles) if flushes else singles

    def _next_singles(self, limit: int) -> list[Entry]:
        entries = [entry for entry, _ in islice(self._held.values(), limit)]
        if len(entries) < len(self._held):
            # To the end of the line.
            for entry in entries:
                self._held[entry.position] = self._held.pop(entry.position)
        entries.sort(key=in_order)
        return entries

    def _next_whole(self, limit: int) -> list[Flush]:
        flushes: list[Flush] = []
        for flush in self._whole.values():
            limit -= flush.left
            if limit < 0:
                break
            flushes.append(flush)
        if len(flushes) < len(self._whole):
            for flush in flushes:
                self._whole[flush.prefix] = self._whole.pop(flush.prefix)
        return flushes

    def _take_apart(self, prefix: str) -> None:
        flush = self._whole.pop(prefix)
        self._whole_facts -= flush.left
        self._held.update((entry.position, (entry, flush)) for entry in flush.entries())

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """See `ports.Journal.acknowledge`."""
        done = self._leave(entries)
        settled = _settled(self._redis, entries) if self.group == STORE else {}
        # Tails first, the pending list last: a crash in between applies again, and settles again.
        calls = [
            (partition, (self.group, NOTHING, chats)) for partition, pieces in settled.items() for chats in pieces[:-1]
        ]
        if calls:
            await self._call(_ACKNOWLEDGE, calls)
        await self._finish(done, {partition: pieces[-1] for partition, pieces in settled.items()})

    async def set_aside(self, entry: Entry, error: str) -> None:
        """See `ports.Journal.set_aside`. On the tail of its chat the fact stays, so reads still find it."""
        partition = self._redis.partition(entry.application)
        kind, state = facts.write(entry.application, entry.chat, entry.fact)
        await self._put_aside(partition, entry.position, error, kind, state)
        await self._finish(self._leave([entry]))

    async def show_alive(self) -> None:
        """Keep what is held from being taken over, while it is being applied."""
        if not self.holds_any:
            return
        await self._redis.commands(
            [
                ("SET", self._redis.key(partition, f"alive:{self._name}"), 1, "PX", int(ALIVE_S * 1000))
                for partition in range(self._redis.partitions)
            ]
        )

    async def leave(self) -> None:
        """Let others take over what is held, now."""
        await self._redis.commands(
            [("DEL", self._redis.key(partition, f"alive:{self._name}")) for partition in range(self._redis.partitions)]
        )

    async def _fetch(self) -> bool:
        """Ask every partition once; whether there may be more."""
        now = time.monotonic()
        look, show = now - self._looked_at >= LOOK_FOR_DEAD_S, now - self._shown_at >= SHOW_EVERY_S
        if look:
            self._looked_at = now
        if show:
            self._shown_at = now
        arguments = (self.group, self._name, int(ALIVE_S * 1000) if show else 0, ENTRIES_PER_READ, int(look))
        count = self._redis.partitions
        order = [(self._first_partition + index) % count for index in range(count)]
        self._first_partition = (self._first_partition + 1) % count
        answers = await self._call(_READ, [(partition, arguments) for partition in order])
        more = False
        done: _Done = {}
        for partition, found in zip(order, answers, strict=True):
            more = more or len(found) >= ENTRIES_PER_READ
            for identifier, fields, *applied in found:
                await self._hold(
                    partition, identifier.decode(), fields, set(map(int, (applied or [b""])[0].split())), done
                )
        await self._finish(done)
        return more

    async def _hold(self, partition: int, identifier: str, fields: list[bytes], applied: set[int], done: _Done) -> None:
        flush = Flush(partition, identifier, fields, only_messages=self.group != STORE)
        if flush.prefix in self._open:
            return
        if self.group in PROJECTIONS and not applied and flush.unpack():
            if flush.left:
                self._whole[flush.prefix] = flush
                self._whole_facts += flush.left
        else:
            flush = Flush(partition, identifier, fields)
            entries = await self._read_each(flush, applied)
            flush.left = len(entries)
            self._held.update((entry.position, (entry, flush)) for entry in entries)
        if not flush.left:
            done.setdefault(partition, []).append((identifier, flush.facts, []))
            return
        self._open.add(flush.prefix)
        self._held_bytes += flush.size

    async def _read_each(self, flush: Flush, applied: set[int]) -> list[Entry]:
        """The facts of a stream entry one by one. What can't be read is set aside.

        All at once: if Redis goes away before, nothing of it is held, and another name inherits it whole.
        """
        entries: list[Entry] = []
        first = 1
        for kind, packed in flush.kinds():
            if self.group != STORE and kind != MESSAGES:
                first += facts.size(packed)
                continue
            places = facts.read(kind, packed)
            for index, place in enumerate(places, first):
                if index in applied:
                    continue
                position = f"{flush.prefix}{index}"
                if isinstance(place, facts.Unreadable):
                    await self._refuse(flush.partition, position, kind, place)
                    continue
                entries.append(Entry(position, *place))
            first += len(places)
            flush.facts += len(places)
            flush.size += len(packed)
        return entries

    async def _refuse(self, partition: int, position: str, kind: bytes, found: facts.Unreadable) -> None:
        error = repr(found.error)
        log.error("entry set aside", projection=self.group, position=position, error=error)
        await self._put_aside(partition, position, error, kind, found.state)
        SET_ASIDE_TOTAL.labels(self.group).inc()

    async def _finish(self, done: _Done, settled: Mapping[int, bytes] | None = None) -> None:
        """Take whole stream entries off the pending list, and what is settled off the tails."""
        settled = settled or {}
        calls = [
            (partition, (self.group, facts.encode(done.get(partition, ())), settled.get(partition, b"")))
            for partition in dict.fromkeys((*done, *settled))
        ]
        if calls:
            await self._call(_ACKNOWLEDGE, calls)

    async def _call(self, script: Script, calls: Sequence[tuple[int, Sequence[Any]]]) -> list[Any]:
        """Run a script for this consumer.

        Redis may have handed out entries in an answer that was lost, or have lost what we told it of entries that
        we hold no more. Under another name we inherit them all, when the old one counts as dead.
        """
        try:
            return await self._redis.call(script, calls)
        except Unavailable:
            self._name = secrets.token_hex(8)
            self._shown_at = -math.inf
            raise

    def _leave(self, entries: Sequence[Entry]) -> _Done:
        """Let go of facts; what to tell Redis of their stream entries."""
        done: _Done = {}
        singles = entries
        if isinstance(entries, Batch):
            singles = entries.singles
            for flush in entries.flushes:
                if self._whole.pop(flush.prefix, None) is not None:
                    self._whole_facts -= flush.left
                    self._close(flush, done)
        left: dict[Flush, list[str]] = {}
        for entry in singles:
            if entry.position not in self._held and (prefix := _prefix(entry.position)) in self._whole:
                self._take_apart(prefix)
            held = self._held.pop(entry.position, None)
            if held is not None:
                held[1].left -= 1
                left.setdefault(held[1], []).append(entry.position)
        for flush, positions in left.items():
            if flush.left == 0:
                self._close(flush, done)
            else:
                indices = [int(position.rpartition("/")[2]) for position in positions]
                done.setdefault(flush.partition, []).append((flush.identifier, IN_PART, indices))
        return done

    def _close(self, flush: Flush, done: _Done) -> None:
        """Nothing of a stream entry is held any more."""
        self._open.discard(flush.prefix)
        self._held_bytes -= flush.size
        done.setdefault(flush.partition, []).append((flush.identifier, flush.facts, []))

    async def _put_aside(self, partition: int, position: str, error: str, kind: bytes, state: bytes) -> None:
        await self._call(_ASIDE, [(partition, (self.group, position, error, kind, state))])


class Following(Consumer):
    """A consumer in a group of its own, which begins with the oldest entry that is still there.

    What is not there any more was applied by both projections. The journal is not trimmed beyond it until it is
    closed, or until nobody has read for it for FOLLOWER_S: then the group is removed, and reading fails. A read that
    returns fewer entries than it was asked for has come to the end.
    """

    held_max_bytes = 8 * HELD_MAX_BYTES

    @classmethod
    async def begin(cls, redis: Redis, group: str) -> Following:
        """Make the group where it is missing."""
        following = cls(redis, group)
        await redis.call(_FOLLOW, [(partition, (group, FOLLOWER_S)) for partition in range(redis.partitions)])
        return following

    async def beginning(self, application: ApplicationId) -> str:
        """See `reindex.Tailing.beginning`."""
        partition = self._redis.partition(application)
        [epoch] = await self._redis.commands([("HGET", self._redis.meta(partition), "epoch")])
        return f"{partition}/{int(epoch or 0)}-0/0"

    async def close(self) -> None:
        """Remove the group, so that the journal is trimmed again."""
        await self._redis.call(_FOLLOW, [(partition, (self.group, 0)) for partition in range(self._redis.partitions)])


def _prefix(position: str) -> str:
    return position[: position.rindex("/") + 1]


def _settled(redis: Redis, entries: Sequence[Entry]) -> dict[int, list[bytes]]:
    """What the store has applied, by partition, in calls of bounded size, as acknowledge.lua takes it."""
    revisions: dict[tuple[ApplicationId, int], list[int]] = defaultdict(list)
    versions: dict[tuple[ApplicationId, int], int] = {}
    entries, epochs = _of_the_latest(entries)
    singles = entries
    if isinstance(entries, Batch):
        singles = entries.others
        for application, chat, revision in map(itemgetter(1, 2, 4), entries.heads):
            revisions[application, chat].append(revision)
        # Chats of which nothing but a count was read are settled, too.
        revisions.update((chat, []) for chat in {(head[1], head[2]) for head, _ in entries.counts} - revisions.keys())
    for entry in singles:
        of_chat = revisions[entry.application, entry.chat]
        fact = entry.fact
        if type(fact) is MessageChanged:
            of_chat.append(fact.revision)
        elif type(fact) is ChatChanged:
            place = entry.application, entry.chat
            versions[place] = max(versions.get(place, 0), fact.version)
    calls: dict[int, list[_Settled]] = {}
    for (application, chat), of_chat in sorted(revisions.items()):
        partition = redis.partition(application)
        into = calls.setdefault(partition, [])
        in_order_of_change = sorted(set(of_chat))
        for start in range(0, max(1, len(in_order_of_change)), SETTLE_CHUNK):
            runs = _runs(in_order_of_change[start : start + SETTLE_CHUNK])
            into.append((application, chat, runs, versions.get((application, chat), 0), epochs[partition]))
    return {partition: _joined(chats) for partition, chats in calls.items()}


def _of_the_latest(entries: Sequence[Entry]) -> tuple[Sequence[Entry], dict[int, int]]:
    """Those of the latest epoch of their partition, and that epoch: what is older was not applied."""
    positions = entries.positions() if isinstance(entries, Batch) else (entry.position for entry in entries)
    lives = {position.partition("-")[0] for position in positions}
    epochs: dict[int, int] = {}
    for partition, epoch in (map(int, life.split("/")) for life in lives):
        epochs[partition] = max(epoch, epochs.get(partition, 0))
    if len(epochs) == len(lives):
        return entries, epochs

    def is_latest(position: str) -> bool:
        partition, epoch = map(int, position.partition("-")[0].split("/"))
        return epoch == epochs[partition]

    if isinstance(entries, Batch):
        flushes = [flush for flush in entries.flushes if is_latest(flush.prefix)]
        return Batch(flushes, [entry for entry in entries.singles if is_latest(entry.position)]), epochs
    return [entry for entry in entries if is_latest(entry.position)], epochs


def _runs(numbers: Sequence[int]) -> list[int]:
    """The first and the last of each run of ascending numbers that has no gap."""
    if not numbers:
        return []
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return [numbers[0], numbers[-1]]
    ends = (number for pair in pairwise(numbers) if pair[1] > pair[0] + 1 for number in pair)
    return [numbers[0], *ends, numbers[-1]]


def _joined(chats: list[_Settled]) -> list[bytes]:
    """A few chats to a call: Redis does nothing else meanwhile."""
    calls: list[bytes] = []
    current: list[_Settled] = []
    weight = 0
    for chat in chats:
        runs = chat[2]
        current.append(chat)
        weight += 1 + sum(runs[1::2]) - sum(runs[::2]) + len(runs) // 2
        if weight >= SETTLE_CHUNK:
            calls.append(facts.encode(current))
            current, weight = [], 0
    if current:
        calls.append(facts.encode(current))
    return calls
