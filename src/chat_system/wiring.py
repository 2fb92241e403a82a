"""The only place that picks a house."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chat_system.errors import ConfigurationError, Unavailable
from chat_system.model import ApplicationId
from chat_system.ports import Discrepancy, Feed, Journal, Projection, Rates, SearchIndex, SetAside, Store
from chat_system.projector import Projector
from chat_system.settings import Settings
from chat_system.system import ChatSystem
from chat_system.telemetry import BACKLOG, LAG, SET_ASIDE, log

STORE_BATCH = 5_000
SEARCH_BATCH = 5_000
"""Facts that a worker applies at once: large batches cost each message least."""

INDEXED_AT_ONCE = 1000
"""Messages that embedded mode indexes in one transaction when nobody posts: whoever does then waits some 10 ms, once.
While they go on the journal hands out fewer (`READ_WHILE_BUSY`)."""

LANES = 2
"""Batches of a projection that a worker has under way: while a server takes one, the next is read and prepared."""

MIGRATION_WAIT_S = 60.0
"""How long a process that starts waits for MySQL, which may be starting, too."""

SWEEP_EVERY_S = 60.0
SWEEP_PAUSE_S = 0.02
"""Between two pieces of a sweep, so that others' writes come first."""


class Reindexing(Protocol):
    """Makes a new search index while messages go on being written."""

    async def __call__(
        self, progress: Callable[[int, int], None], *, shards: int | None, discard: bool
    ) -> tuple[str, int]:
        """The name of the new index and how many messages it has; `progress` is told rows copied, and of how many.

        Raises:
            ConfigurationError: it failed, and why; the old index is still in place.
            Unavailable: a server is away; nothing has changed.
        """


@dataclass
class House:
    """A wired system: the use cases, the ports below them, and the projections that this process runs.

    `where` names what it stands on, for people.
    """

    system: ChatSystem
    journal: Journal
    store: Store
    search: SearchIndex
    feed: Feed
    where: str
    projections: Sequence[Projection]
    projectors: Sequence[Projector] = ()
    sweeps: bool = True
    rates: Rates | None = None
    """Counts requests over all processes; None where there is only one."""
    comparisons: Sequence[Callable[[], Awaitable[Sequence[Discrepancy]]]] = ()
    """What is worth comparing beyond the store itself, the search index last."""
    discard: Callable[[str], Awaitable[Sequence[SetAside]]] | None = None
    """Forgets what was set aside at a position; None where nothing is ever in the way."""
    reindex: Reindexing | None = None
    """Fills a new search index and swaps it in; None where the index is part of the store."""
    sweep_now: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something was erased, so that the sweep does not wait for its next round."""

    async def run(self) -> None:
        """Run the projections and the sweep until cancelled."""
        async with asyncio.TaskGroup() as group:
            for projector in self.projectors:
                group.create_task(projector.run())
            if self.sweeps:
                group.create_task(self._keep_sweeping())

    async def finish(self) -> None:
        """Let the projections end what they have begun, and begin nothing more; then `run` may be cancelled."""
        await asyncio.gather(*(projector.finish() for projector in self.projectors))

    async def verify(self, *, index: bool = True) -> Sequence[Discrepancy]:
        """What is wrong with numbers, revisions and counts, and where the servers differ. Empty when all is well.

        To compare the search index, too, takes longer than all else.
        """
        wrong = list(await self.system.verify())
        for compare in self.comparisons if index else self.comparisons[:-1]:
            try:
                wrong += await compare()
            except Unavailable as error:
                wrong.append(Discrepancy("servers", error.detail))
        return wrong

    async def measure(self) -> None:
        """Bring the backlog's metrics up to date. What is away is not known, and keeps its last figure."""
        for projection in self.projections:
            with contextlib.suppress(Unavailable):
                backlog = await self.journal.backlog(projection)
                BACKLOG.labels(projection).set(backlog.entries)
                LAG.labels(projection).set(backlog.lag_s)
                SET_ASIDE.labels(projection).set(backlog.set_aside)

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                self.sweep_now.clear()
                while await self.system.sweep():  # noqa: ASYNC110 - a pause between pieces, not a wait
                    await asyncio.sleep(SWEEP_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - the next round may fare better
                log.warning("sweep failed", error=repr(error), retry_in_s=SWEEP_EVERY_S)
            # Not `wait_for`: in Python 3.11 it takes a cancellation for the event if both come at once.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_EVERY_S):
                    await self.sweep_now.wait()


@contextlib.asynccontextmanager
async def open_house(
    settings: Settings, *, shared: bool = False, working: bool = False, must_exist: bool = False
) -> AsyncIterator[House]:
    """The house that the settings name, open until the context ends.

    `shared` opens it for reading beside a running server. `must_exist` refuses to make an embedded one. `working` makes
    it run the projections: embedded mode always does, in stack mode the workers do.

    Raises:
        ConfigurationError: it can't be opened, and why.
    """
    if settings.mode == "embedded":
        if must_exist and not Path(settings.sqlite_path).exists():  # noqa: ASYNC240 - at the start nothing else waits
            raise ConfigurationError(f"There is no database at {settings.sqlite_path}.")
        house = _embedded(settings, shared=shared)
    else:
        house = _stack(settings, shared=shared, working=working)
    async with house as opened:
        yield opened


@contextlib.asynccontextmanager
async def _embedded(settings: Settings, *, shared: bool) -> AsyncIterator[House]:
    from chat_system.embedded.database import Database  # noqa: PLC0415 - one house at a time
    from chat_system.embedded.feed import EmbeddedFeed  # noqa: PLC0415
    from chat_system.embedded.journal import EmbeddedJournal  # noqa: PLC0415
    from chat_system.embedded.search import EmbeddedSearch  # noqa: PLC0415
    from chat_system.embedded.store import EmbeddedStore  # noqa: PLC0415

    database = await Database.open(Path(settings.sqlite_path), shared=shared)
    try:
        feed = EmbeddedFeed()
        sweep_now = asyncio.Event()

        def erased(application: ApplicationId) -> None:
            feed.announce_erased(application)
            sweep_now.set()

        journal = EmbeddedJournal(database, feed.announce)
        store = EmbeddedStore(database, journal.forget, erased)
        search = EmbeddedSearch(database, store.require, store.chat_id)
        projector = Projector("search", journal, search.apply, batch=INDEXED_AT_ONCE)
        yield House(
            ChatSystem(journal, store, search),
            *(journal, store, search, feed),
            where=str(database.path),
            projections=("search",),
            projectors=(projector,),
            comparisons=(store.compare_index,),
            sweep_now=sweep_now,
        )
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _stack(settings: Settings, *, shared: bool, working: bool) -> AsyncIterator[House]:
    from chat_system.stack.rooms import open_rooms  # noqa: PLC0415 - one house at a time

    if not shared:
        await _migrate_stack(settings)
    async with open_rooms(settings, working=working) as rooms:
        lanes = LANES if working else 0
        projectors = (
            *(Projector("store", lane, rooms.store.apply, batch=STORE_BATCH) for lane in rooms.lanes("store", lanes)),
            *(
                Projector("search", lane, rooms.search.apply, batch=SEARCH_BATCH)
                for lane in rooms.lanes("search", lanes)
            ),
        )
        yield House(
            ChatSystem(rooms.journal, rooms.store, rooms.search),
            *(rooms.journal, rooms.store, rooms.search, rooms.feed),
            where=rooms.where,
            projections=("store", "search"),
            projectors=projectors,
            sweeps=working,
            rates=rooms.rates,
            discard=rooms.discard,
            reindex=rooms.reindex,
            comparisons=(rooms.compare_counters, rooms.compare_index),
        )


async def _migrate_stack(settings: Settings, wait_s: float = MIGRATION_WAIT_S) -> bool:
    from chat_system.stack.schema import migrate as bring_up_to_date  # noqa: PLC0415 - one house at a time

    try:
        return await bring_up_to_date(settings.mysql_url, wait_s=wait_s)
    except Unavailable as error:
        raise ConfigurationError(f"The database can't be reached or migrated: {error.detail}") from error


def migrate(settings: Settings) -> bool:
    """Bring the database to the newest schema; True when there was something to do.

    Raises:
        ConfigurationError: it can't be migrated, and why.
    """
    if settings.mode == "embedded":
        from chat_system.embedded.database import migrate_file  # noqa: PLC0415

        return migrate_file(Path(settings.sqlite_path))
    return asyncio.run(_migrate_stack(settings))
