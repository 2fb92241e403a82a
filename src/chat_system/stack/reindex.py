"""Fills a new search index from the store and puts it behind the alias, while messages go on being written.

The new index gets every row, and every fact that the journal takes meanwhile: a consumer group of its own begins
before the first row is read. Only when it holds as many documents of each application as the store has rows does
the alias move, in one step; searches are answered all along, from the old index until then. A reindex that lost
something fails loudly, removes the new index and leaves the alias where it was.

Not promised: that a reindex which was killed can go on. It is begun anew, with `discard`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from chat_system.errors import ConfigurationError, NotFound, Unavailable
from chat_system.model import ApplicationId, MessageChanged
from chat_system.ports import Entry
from chat_system.stack.elasticsearch import Missing
from chat_system.stack.search import Rejected, StackSearch
from chat_system.telemetry import log

FOLLOW_ENTRIES = 1_000
FOLLOW_READS = 10
"""Reads of the journal between two pieces of rows: it must not fill up while a long copy is under way."""

PATIENCE_S = 60.0
"""How long Elasticsearch may be away before a reindex gives up."""

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
SETTLE_S = 30.0
"""How long counts that differ are looked at again: applications are erased, and the store may be behind."""

SETTLE_EVERY_S = 0.5

_KEPT = ("number_of_shards", "number_of_replicas", "auto_expand_replicas", "refresh_interval")
"""What an operator may have set on the old index."""

_T = TypeVar("_T")


class ReindexFailed(ConfigurationError):
    """The reindex ended without effect, or as the sentence says."""


class Rows(Protocol):
    """What a reindex reads of the store."""

    def application_ids(self) -> AsyncIterator[ApplicationId]:
        """All applications that are not erased."""

    def rows(self, application: ApplicationId) -> AsyncIterator[Sequence[tuple[int, MessageChanged]]]:
        """Every message of an application with its chat, tombstones included, in pieces of a few thousand."""

    async def count_messages(self, application: ApplicationId) -> int:
        """How many rows an application has, tombstones included."""


class Tailing(Protocol):
    """The journal as one reindex reads it: all that was not in the store when it began, and all that came since."""

    async def read(self, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries that are messages; fewer mean that there were no more when it was called."""

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """These are in the new index."""

    async def beginning(self, application: ApplicationId) -> str:
        """A position before all that the journal has of an application, in the epoch in force."""

    async def close(self) -> None:
        """Forget the group, so that the journal is trimmed again."""


Follow = Callable[[str], Awaitable[Tailing]]
"""Begins to follow the journal under a name, or goes on where that name stood."""

Progress = Callable[[int, int], None]
"""Told how many rows were copied, and of how many."""


class Reindexed(Struct, frozen=True):
    """What a reindex did: the new index, the rows copied, and the journal's entries that were added to them."""

    index: str
    copied: int
    followed: int


class Reindex:
    """One reindex. `run` is called once."""

    def __init__(
        self,
        search: StackSearch,
        store: Rows,
        follow: Follow,
        progress: Progress | None = None,
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._search = search
        self._ask = search.elasticsearch.ask
        self._store = store
        self._follow_as = follow
        self._progress = progress
        self._settle_s = settle_s
        self._copied = 0
        self._followed = 0
        self._tailing: Tailing
        self._target: str

    async def run(self, *, shards: int | None = None, discard: bool = False) -> Reindexed:
        """Do it. `shards` divides the new index anew; `discard` removes what a reindex that was killed left behind.

        Raises:
            ReindexFailed: why, in a sentence; the alias stands where it stood unless that says otherwise.
            Unavailable: MySQL, Redis or Elasticsearch is away; nothing has changed.
        """
        old, new = await self._prepare(discard=discard)
        kept = await self._settings_of(old)
        if shards is not None:
            kept["number_of_shards"] = shards
        self._target = f"{new}-filling"
        if not await self._search.indices.make(new, alias=self._target, settings={**kept, "refresh_interval": "-1"}):
            raise ReindexFailed(f"Another reindex has just made {new}.")
        try:
            self._tailing = await self._follow_as(new)
            try:
                await self._fill()
                await self._ask("PUT", f"/{new}/_settings", {"refresh_interval": kept["refresh_interval"]})
                await self._prove()
                await self._swap(old, new)
            finally:
                await self._stop_following()
        except BaseException as error:
            await self._undo(new)
            if isinstance(error, Rejected):
                raise ReindexFailed(f"Elasticsearch refuses a message: {error}") from error
            if isinstance(error, Missing):
                raise ReindexFailed(f"{new} was deleted while it was being filled.") from error
            raise
        await self._remove(old)
        return Reindexed(new, self._copied, self._followed)

    async def _prepare(self, *, discard: bool) -> tuple[str, str]:
        """The index that the alias stands for, and the name of the next."""
        await self._search.create()
        found = await self._search.indices.all()
        current = [name for name, chosen in found.items() if chosen]
        if len(current) != 1:
            raise ReindexFailed(f"The alias {self._search.alias} stands for several indices: {', '.join(current)}.")
        for name in found:
            if name in current:
                continue
            if not discard:
                raise ReindexFailed(
                    f"There is {name} beside {current[0]}: another reindex is running, or one was killed. "
                    "If none is running, start it again with --discard."
                )
            await (await self._follow_as(name)).close()
            await self._remove(name)
        return current[0], self._search.indices.after(found)

    async def _settings_of(self, name: str) -> dict[str, Any]:
        found = await self._ask("GET", f"/{name}/_settings")
        settings = found[name]["settings"]["index"]
        return {"refresh_interval": "1s"} | {key: settings[key] for key in _KEPT if key in settings}

    async def _fill(self) -> None:
        applications = [application async for application in self._store.application_ids()]
        total = 0
        for application in applications:
            with suppress(NotFound):
                total += await self._store.count_messages(application)
        self._tell(total)
        # Applications that are created from now on have all of their messages in the journal.
        for application in applications:
            # A row is a state of this epoch: what is applied afterwards is compared with it by revision.
            position = await self._tailing.beginning(application)
            with suppress(NotFound):
                async for piece in self._store.rows(application):
                    await self._write([Entry(position, application, chat, state) for chat, state in piece])
                    self._copied += len(piece)
                    self._tell(total)
                    await self._catch_up(FOLLOW_READS)

    def _tell(self, total: int) -> None:
        if self._progress is not None:
            self._progress(self._copied, max(total, self._copied))

    async def _catch_up(self, reads: int | None = None) -> int:
        """Index what the journal has, in as many reads at most; how many entries that were."""
        entries = 0
        while reads is None or reads > 0:
            found = await self._tailing.read(FOLLOW_ENTRIES)
            if found:
                await self._write(found)
                await self._tailing.acknowledge(found)
            entries += len(found)
            if len(found) < FOLLOW_ENTRIES:
                break
            if reads is not None:
                reads -= 1
        self._followed += entries
        return entries

    async def _write(self, entries: Sequence[Entry]) -> None:
        await _patiently(lambda: self._search.write(self._target, entries))

    async def _prove(self) -> None:
        """Compare the new index with the store, until they agree or it is certain that they do not.

        An application may have more documents than rows while messages are being written: the journal runs ahead of
        the store. With nothing being written both must be equal.
        """
        deadline = time.monotonic() + self._settle_s
        rows: dict[ApplicationId, int] = {}
        suspects: set[ApplicationId] | None = None
        while True:
            before, rows = rows, {}
            async for application in self._store.application_ids():
                if suspects is None or application in suspects:
                    with suppress(NotFound):
                        rows[application] = await self._store.count_messages(application)
            # After the rows: each of them is in the journal's part, or was copied.
            writing = bool(await self._catch_up())
            await _patiently(lambda: self._search.refresh(alias=self._target))
            held = {application: await self._held(application) for application in rows}
            writing = writing or any(before.get(application, count) != count for application, count in rows.items())
            wrong = {application for application, count in rows.items() if held[application] != count}
            if not wrong or (writing and all(held[application] > rows[application] for application in wrong)):
                return
            if time.monotonic() > deadline:
                found = "; ".join(
                    f"application {application}: {rows[application]} rows, {held[application]} documents"
                    for application in sorted(wrong)[:5]
                )
                raise ReindexFailed(f"The new index differs from the store in {len(wrong)} applications ({found}).")
            suspects = wrong
            await asyncio.sleep(SETTLE_EVERY_S)

    async def _held(self, application: ApplicationId) -> int:
        return await _patiently(lambda: self._search.count(application, alias=self._target))

    async def _swap(self, old: str, new: str) -> None:
        alias = self._search.alias
        swap = [
            {"remove": {"index": old, "alias": alias, "must_exist": True}},
            {"add": {"index": new, "alias": alias}},
            {"remove": {"index": new, "alias": self._target, "must_exist": True}},
        ]
        try:
            await self._ask("POST", "/_aliases", {"actions": swap})
        except Missing as error:
            raise ReindexFailed(f"Somebody has moved the alias {alias} meanwhile.") from error
        self._target = alias
        try:
            # Workers have applied to the old index what was accepted until now. It is in the journal's part.
            await self._catch_up()
        except (Unavailable, Rejected, Missing) as error:
            raise ReindexFailed(
                f"The alias stands for {new}, but its latest changes may be missing ({error}): reindex once more."
            ) from error

    async def _stop_following(self) -> None:
        try:
            await self._tailing.close()
        except Unavailable as error:
            log.warning("reindex left its group in the journal", reason=error.detail)

    async def _undo(self, new: str) -> None:
        if self._target == self._search.alias:
            return
        try:
            # An answer may have been lost: what searches are answered from is never removed.
            if not (await self._search.indices.all()).get(new):
                await self._remove(new)
                return
        except Unavailable as error:
            log.warning("reindex left its index behind", index=new, reason=error.detail)
            return
        raise ReindexFailed(f"The alias stands for {new}, but its latest changes may be missing: reindex once more.")

    async def _remove(self, name: str) -> None:
        await self._ask("DELETE", f"/{name}", ignore_unavailable=True)


async def _patiently(call: Callable[[], Awaitable[_T]]) -> _T:
    deadline = time.monotonic() + PATIENCE_S
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return await call()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)
