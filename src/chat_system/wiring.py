"""The only place that picks a house."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chat_system.errors import ConfigurationError
from chat_system.model import ApplicationId
from chat_system.ports import Feed
from chat_system.projector import Projector
from chat_system.settings import Settings
from chat_system.system import ChatSystem
from chat_system.telemetry import BACKLOG, LAG, SET_ASIDE, log

SWEEP_EVERY_S = 60.0
SWEEP_PAUSE_S = 0.02
"""Between two pieces of a sweep, so that others' writes come first."""


@dataclass
class House:
    """A wired system: the use cases, its feed and the projections that this process runs.

    `where` names what it stands on, for people.
    """

    system: ChatSystem
    feed: Feed
    where: str
    projectors: Sequence[Projector] = ()
    sweep_now: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something was erased, so that the sweep does not wait for its next round."""

    async def run(self) -> None:
        """Run the projections and the sweep until cancelled."""
        async with asyncio.TaskGroup() as group:
            for projector in self.projectors:
                group.create_task(projector.run())
            group.create_task(self._keep_sweeping())

    async def measure(self) -> None:
        """Bring the backlog's metrics up to date."""
        for projector in self.projectors:
            backlog = await projector.backlog()
            BACKLOG.labels(projector.projection).set(backlog.entries)
            LAG.labels(projector.projection).set(backlog.lag_s)
            SET_ASIDE.labels(projector.projection).set(backlog.set_aside)

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                self.sweep_now.clear()
                while await self.system.sweep():  # noqa: ASYNC110 - a pause between pieces, not a wait
                    await asyncio.sleep(SWEEP_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - the next round may fare better
                log.warning("sweep failed", error=repr(error), retry_in_s=SWEEP_EVERY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.sweep_now.wait(), SWEEP_EVERY_S)


@contextlib.asynccontextmanager
async def open_house(settings: Settings, *, shared: bool = False) -> AsyncIterator[House]:
    """The house that the settings name, open until the context ends.

    `shared` opens it for reading beside a running server.

    Raises:
        ConfigurationError: it can't be opened, and why.
    """
    if settings.mode != "embedded":
        raise ConfigurationError("CHAT_MODE=stack is not part of this version yet: use CHAT_MODE=embedded.")
    async with _embedded(settings, shared=shared) as house:
        yield house


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
        projector = Projector("search", journal, search.apply, batch=400)
        yield House(ChatSystem(journal, store, search), feed, str(database.path), (projector,), sweep_now)
    finally:
        await database.close()


def migrate(settings: Settings) -> bool:
    """Bring the database to the newest schema; True when there was something to do.

    Raises:
        ConfigurationError: it can't be migrated, and why.
    """
    if settings.mode != "embedded":
        raise ConfigurationError("CHAT_MODE=stack is not part of this version yet: use CHAT_MODE=embedded.")
    from chat_system.embedded.database import migrate_file  # noqa: PLC0415

    return migrate_file(Path(settings.sqlite_path))
