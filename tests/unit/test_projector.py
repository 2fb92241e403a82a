"""The projector: waits for what is away, finds what is at fault, lets the others pass, loses nothing.

It works against a small journal in memory that keeps the contract of `ports.Journal` for one projection, and
against an index that fails as it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from chat_system import projector as module
from chat_system.errors import NotFound, Unavailable
from chat_system.model import ApplicationId, Change, MessageChanged, NewMessage, Once, PostMessages, Receipt
from chat_system.ports import Backlog, Entry, Projection, SetAside
from chat_system.projector import ATTEMPTS, Projector

APPLICATION = ApplicationId(1)
PATIENCE_S = 10.0


def refuse(*poison: str) -> Callable[[list[str | None]], None]:
    """Fail with whatever contains one of these."""

    def fail(bodies: list[str | None]) -> None:
        found = [body for body in bodies if body in poison]
        if found:
            raise ValueError(f"can't take {found[0]}")

    return fail


class MemoryJournal:
    """A journal of one chat that lives as long as the test: it numbers, records, and remembers who has read what."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._more = asyncio.Event()
        self.read_sizes: list[int] = []
        self.errors: dict[str, str] = {}
        self.away = False

    async def append(self, application: ApplicationId, change: Change, *, once: Once | None = None) -> Receipt:
        if not isinstance(change, PostMessages) or application != APPLICATION or once is not None:
            raise NotFound
        first = len(self._entries) + 1
        for number, new in enumerate(change.messages, first):
            message = MessageChanged(number, number, new.sender, new.body, None, number)
            self._entries[str(number)] = Entry(str(number), application, change.chat, message)
        self._more.set()
        return Receipt(first, first, 0, len(change.messages))

    async def receipt(self, application: ApplicationId, once: Once) -> Receipt | None:
        return None

    async def read(self, projection: Projection, limit: int) -> Sequence[Entry]:
        if self.away:
            raise Unavailable("The journal is away.")
        self.read_sizes.append(limit)
        waiting = [entry for position, entry in self._entries.items() if position not in self.errors]
        if not waiting:
            self._more.clear()
        return waiting[:limit]

    async def acknowledge(self, projection: Projection, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if self._entries.get(entry.position) is entry:
                del self._entries[entry.position]

    async def set_aside(self, projection: Projection, entry: Entry, error: str) -> None:
        self.errors[entry.position] = error

    async def asides(self) -> Sequence[SetAside]:
        return [SetAside("search", position, "", error) for position, error in self.errors.items()]

    async def retry(self, projection: Projection) -> int:
        count = len(self.errors)
        self.errors.clear()
        return count

    async def ping(self) -> None:
        if self.away:
            raise Unavailable("The journal is away.")

    async def backlog(self, projection: Projection) -> Backlog:
        return Backlog(len(self._entries) - len(self.errors), 0.0, len(self.errors))

    async def wait(self, projection: Projection) -> None:
        await self._more.wait()

    async def post(self, *bodies: str) -> None:
        """Record messages."""
        await self.append(APPLICATION, PostMessages(1, [NewMessage(body) for body in bodies]))


class Index:
    """What entries are applied to: it remembers their bodies, and fails as `fail` says."""

    def __init__(self) -> None:
        self.applied: list[str | None] = []
        self.calls: list[list[str | None]] = []
        self.fail: Callable[[list[str | None]], None] = refuse()
        self.called = asyncio.Event()

    async def apply(self, entries: Sequence[Entry]) -> None:
        """Apply all or fail with all."""
        bodies = [entry.message.body for entry in entries]
        self.calls.append(bodies)
        self.called.set()
        await asyncio.sleep(0)
        self.fail(bodies)
        self.applied += bodies


@pytest.fixture
async def journal() -> MemoryJournal:
    """An empty journal."""
    return MemoryJournal()


@pytest.fixture
async def index() -> Index:
    """An empty index that takes everything."""
    return Index()


@pytest.fixture
async def projector(journal: MemoryJournal, index: Index, monkeypatch: pytest.MonkeyPatch) -> Projector:
    """A projector between the two, which does not wait as long as it would in earnest."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.004)
    return Projector("search", journal, index.apply, batch=8)


@asynccontextmanager
async def running(projector: Projector) -> AsyncIterator[asyncio.Task[None]]:
    """The projector at work; it must still be so at the end."""
    task = asyncio.create_task(projector.run())
    try:
        yield task
        assert not task.done(), "it works until it is cancelled"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came"
        await asyncio.sleep(0.001)


async def test_a_step_applies_a_batch_and_acknowledges_it(
    projector: Projector, journal: MemoryJournal, index: Index
) -> None:
    """As many as a batch holds, or as it is told; it says how many it read, and 0 when there is nothing."""
    await journal.post(*map(str, range(20)))
    assert [await projector.step() for _ in range(2)] == [8, 8]
    assert await projector.step(3) == 3
    assert await projector.step() == 1
    assert await projector.step() == 0
    assert index.applied == list(map(str, range(20)))
    assert journal.read_sizes == [8, 8, 3, 8, 8]
    assert (await projector.backlog()).entries == 0


async def test_draining_applies_everything(projector: Projector, journal: MemoryJournal, index: Index) -> None:
    """In batches, to the end."""
    await journal.post(*map(str, range(50)))
    await projector.drain()
    assert index.applied == list(map(str, range(50)))
    assert max(map(len, index.calls)) == 8
    assert await projector.backlog() == Backlog(0, 0.0, 0)


async def test_a_running_projector_takes_what_comes(projector: Projector, journal: MemoryJournal, index: Index) -> None:
    """What is there when it starts, and what is recorded later."""
    await journal.post("before")
    async with running(projector):
        await until(lambda: index.applied == ["before"])
        for body in ("one", "two"):
            await journal.post(body)
            await until(lambda body=body: index.applied[-1] == body)  # type: ignore[misc]


async def test_an_index_that_is_away_is_waited_for(projector: Projector, journal: MemoryJournal, index: Index) -> None:
    """However often it is tried, nothing is set aside; when it is back, everything is applied once."""

    def away(bodies: list[str | None]) -> None:
        raise Unavailable("The index is away.")

    index.fail = away
    await journal.post("one", "two", "three")
    async with running(projector):
        await until(lambda: len(index.calls) > 3 * ATTEMPTS)
        assert (index.applied, journal.errors) == ([], {})
        index.fail = refuse()
        await until(lambda: index.applied == ["one", "two", "three"])
    assert all(len(call) == 3 for call in index.calls), "a batch is not taken apart for an index that is away"


async def test_a_journal_that_is_away_is_waited_for(projector: Projector, journal: MemoryJournal, index: Index) -> None:
    """The projector survives it."""
    await journal.post("one")
    journal.away = True
    async with running(projector):
        await asyncio.sleep(0.02)
        assert index.calls == []
        journal.away = False
        await until(lambda: index.applied == ["one"])


async def test_waiting_grows_up_to_a_bound_and_begins_anew(
    projector: Projector, journal: MemoryJournal, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try waits twice as long as the one before, never longer than the most; after a success, the first again."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def remember(delay: float) -> None:
        waited.append(delay)
        await sleep(0)

    failures = iter([True] * 6 + [False] + [True] * 2 + [False])

    def fail_sometimes(bodies: list[str | None]) -> None:
        if next(failures):
            raise Unavailable("Away.")

    index.fail = fail_sometimes
    await journal.post("one")
    async with running(projector):
        monkeypatch.setattr(asyncio, "sleep", remember)
        while not index.applied:
            await sleep(0)
        await journal.post("two")
        while len(index.applied) < 2:
            await sleep(0)
        monkeypatch.undo()
    delays = [delay for delay in waited if delay > 0]
    assert delays == [0.001, 0.002, 0.004, 0.004, 0.004, 0.004, 0.001, 0.002]


@pytest.mark.parametrize("poison", [["0"], ["7"], ["3"], ["2", "3"], ["0", "4", "7"], [str(i) for i in range(8)]])
async def test_entries_at_fault_are_found_and_set_aside_and_all_others_pass(
    projector: Projector, journal: MemoryJournal, index: Index, poison: list[str]
) -> None:
    """Wherever they stand in a batch: each is tried alone a few times, and kept with its error."""
    index.fail = refuse(*poison)
    await journal.post(*map(str, range(8)))
    await projector.drain()
    assert sorted(filter(None, index.applied)) == [body for body in map(str, range(8)) if body not in poison]
    assert journal.errors == {str(int(body) + 1): f'ValueError("can\'t take {body}")' for body in poison}
    for body in poison:
        assert index.calls.count([body]) == ATTEMPTS
    assert await projector.backlog() == Backlog(0, 0.0, len(poison))


async def test_halving_costs_little(projector: Projector, journal: MemoryJournal, index: Index) -> None:
    """One entry at fault among eight is found with as many calls as a search by halves needs."""
    index.fail = refuse("5")
    await journal.post(*map(str, range(8)))
    await projector.drain()
    assert len(index.calls) == 1 + 2 * 3 + (ATTEMPTS - 1)


async def test_an_entry_that_fails_once_is_not_set_aside(
    projector: Projector, journal: MemoryJournal, index: Index
) -> None:
    """When it is taken at a later try, it is acknowledged like any other."""
    failures = iter([True] * 3 + [False] * 100)

    def fail_at_first(bodies: list[str | None]) -> None:
        if "bad" in bodies and next(failures):
            raise ValueError("not now")

    index.fail = fail_at_first
    await journal.post("one", "bad", "two")
    await projector.drain()
    assert sorted(filter(None, index.applied)) == ["bad", "one", "two"]
    assert (journal.errors, (await projector.backlog()).entries) == ({}, 0)


async def test_an_index_that_goes_away_while_the_fault_is_looked_for_sets_nothing_aside(
    projector: Projector, journal: MemoryJournal, index: Index
) -> None:
    """What had passed stays acknowledged, the rest is tried again later, and only the guilty one is set aside."""
    calls = 0

    def fail(bodies: list[str | None]) -> None:
        nonlocal calls
        calls += 1
        if calls in {4, 6}:
            raise Unavailable("Away.")
        refuse("2")(bodies)

    index.fail = fail
    await journal.post(*map(str, range(8)))
    outcomes = []
    while (await journal.backlog("search")).entries:
        try:
            outcomes.append(await projector.step())
        except Unavailable:
            outcomes.append(-1)
    assert outcomes.count(-1) == 2
    assert sorted(filter(None, index.applied)) == ["0", "1", "3", "4", "5", "6", "7"], "nothing twice, nothing lost"
    assert list(journal.errors) == ["3"]


async def test_an_index_that_goes_away_while_one_entry_is_tried_alone_is_waited_for(
    projector: Projector, journal: MemoryJournal, index: Index
) -> None:
    """The entry that failed before is not set aside for it: its tries begin anew when the index is back."""
    outcomes: list[Exception | None] = [ValueError("no"), Unavailable("Away."), ValueError("no"), None]

    def fail(bodies: list[str | None]) -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    index.fail = fail
    await journal.post("one")
    with pytest.raises(Unavailable):
        await projector.step()
    assert await projector.step() == 1
    assert (index.applied, journal.errors, outcomes) == (["one"], {}, [])


async def test_a_defect_at_every_try_never_stops_the_projector(
    projector: Projector, journal: MemoryJournal, index: Index
) -> None:
    """Entries that come after those set aside are applied."""
    index.fail = refuse("bad")
    async with running(projector):
        for round_ in range(3):
            await journal.post("bad", f"good {round_}")
            await until(lambda round_=round_: index.applied[-1:] == [f"good {round_}"])  # type: ignore[misc]
        await until(lambda: len(journal.errors) == 3)


async def test_cancelling_loses_nothing(projector: Projector, journal: MemoryJournal, index: Index) -> None:
    """At whatever moment it is cancelled: what was not acknowledged is applied by the next run."""
    await journal.post(*map(str, range(40)))
    for turns in range(30):
        index.called.clear()
        task = asyncio.create_task(projector.run())
        for _ in range(turns % 5 + 1):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await projector.drain()
    assert set(index.applied) == set(map(str, range(40)))
    assert journal.errors == {}, "to be cancelled is no fault of an entry"


async def test_cancelling_while_it_applies_sets_nothing_aside(
    projector: Projector, journal: MemoryJournal, index: Index
) -> None:
    """The batch that was under way is read again."""
    release = asyncio.Event()

    async def apply(entries: Sequence[Entry]) -> None:
        index.called.set()
        await release.wait()

    slow = Projector("search", journal, apply, batch=8)
    await journal.post("one", "two")
    task = asyncio.create_task(slow.run())
    await asyncio.wait_for(index.called.wait(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await projector.drain()
    assert index.applied == ["one", "two"]
    assert journal.errors == {}
