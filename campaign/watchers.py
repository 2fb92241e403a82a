"""Those who watch during a round: live readers that come back after every cut, and searches at the end.

    watchers = Watchers(client.http, load)
    async with watchers.following():        # readers of a few chats, through every fault
        ...
    reading = await watchers.complete(reading, chance)

`complete` lets each reader catch up and adds what it holds, and what searches found, to the reading that the checker
judges. A search may lag: it is asked again until it agrees or SETTLE_TIMEOUT_S has passed, and judged as it is then.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from tests.client import Client
from tests.faults.history import ApplicationReading, Copy, Json, Searched, Told
from tests.faults.load import Load
from tests.faults.watching import oracle
from tests.properties.live_reader import LiveReader, Return

PATIENCE_S = 5.0
PAUSE_S = 0.05
EVENTS_PER_READ = 1_000_000
READERS_PER_CHAT = 2
SEARCHES_IN_CHATS = 40
SEARCHES_IN_ALL = 10
SETTLE_TIMEOUT_S = 30.0
SEARCH_PAUSE_S = 0.2
CATCH_UP_ATTEMPTS = 5
QUERY_MAX_CHARACTERS = 40
PAGE = 200

RETURNS = (Return.BY_HEADER, Return.BY_PARAMETER)


class Watchers:
    """The live readers of a load's first chats, and the searches in all of its chats."""

    def __init__(self, client: Client, load: Load, chance: random.Random) -> None:
        self._client = client
        self._chance = chance
        self.readers: dict[str, list[LiveReader]] = {
            known.token: [
                LiveReader(client.http, f"/applications/{known.token}/chats/{known.chats[0]}")
                for _ in range(READERS_PER_CHAT)
            ]
            for known in load.applications
        }
        self._first = {known.token: known.chats[0] for known in load.applications}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Read inside the block."""
        readers = [reader for of_one in self.readers.values() for reader in of_one]
        tasks = [asyncio.create_task(self._follow(reader)) for reader in readers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _follow(self, reader: LiveReader) -> None:
        """Come back whenever the stream ended or was refused; what was missed or came twice shows at the end."""
        while True:
            # Refused and ended streams are assertions of the reader.
            with contextlib.suppress(httpx.TransportError, AssertionError):
                await reader.read(self._chance.choice(RETURNS), events=EVENTS_PER_READ, patience_s=PATIENCE_S)
            await asyncio.sleep(PAUSE_S)

    async def complete(
        self, reading: dict[str, ApplicationReading], settle_s: float = SETTLE_TIMEOUT_S
    ) -> dict[str, ApplicationReading]:
        """The reading with what the readers hold and what searches found."""
        return {token: await self._complete(token, one, settle_s) for token, one in reading.items()}

    async def _complete(self, token: str, reading: ApplicationReading, settle_s: float) -> ApplicationReading:
        latest = {
            one.chat["number"]: max((row["revision"] for row in one.messages), default=0) for one in reading.chats
        }
        copies = [await self._caught_up(reader, self._first[token], latest) for reader in self.readers.get(token, [])]
        deadline = asyncio.get_running_loop().time() + settle_s
        searches = [await self._search(token, asked, reading, deadline) for asked in self._queries(reading)]
        return replace(reading, copies=copies, searches=searches)

    async def _caught_up(self, reader: LiveReader, chat: int, latest: dict[int, int]) -> Copy:
        for _ in range(CATCH_UP_ATTEMPTS):
            with contextlib.suppress(httpx.TransportError, AssertionError):
                with contextlib.suppress(TimeoutError):
                    await reader.catch_up(latest.get(chat, 0))
                break
        held = [reader.copy[number] for number in sorted(reader.copy)]
        told = [
            Told(
                *(seen.name, seen.id, seen.above, seen.message["number"], seen.message["revision"]),
                deleted=seen.message["deleted_at"] is not None,
            )
            for seen in reader.events
        ]
        return Copy(chat, held, told)

    def _queries(self, reading: ApplicationReading) -> list[Searched]:
        """Pieces of bodies that are there, in another case; of deleted ones nothing is known, so they are not asked."""
        bodies = [row["body"] for one in reading.chats for row in one.messages if row["body"]]
        if not bodies:
            return []
        chats = {one.chat["number"]: [row["body"] for row in one.messages if row["body"]] for one in reading.chats}
        filled = [number for number, held in chats.items() if held]
        # The first chat is the busiest by far.
        asked = [*filled[:1] * (SEARCHES_IN_CHATS // 2), *self._chance.choices(filled, k=SEARCHES_IN_CHATS // 2)]
        narrow = [Searched(self._piece(self._chance.choice(chats[number])), [], chat=number) for number in asked]
        wide = [Searched(self._piece(self._chance.choice(bodies)), [], limit=PAGE) for _ in range(SEARCHES_IN_ALL)]
        return narrow + wide

    def _piece(self, body: str) -> str:
        length = self._chance.randint(1, min(QUERY_MAX_CHARACTERS, len(body)))
        at = self._chance.randrange(len(body) - length + 1)
        piece = body[at : at + length]
        return self._chance.choice([piece, piece.swapcase()])

    async def _search(self, token: str, asked: Searched, reading: ApplicationReading, deadline: float) -> Searched:
        wanted = oracle(reading, asked)
        while True:
            done = replace(asked, found=await self._found(token, asked))
            if done.found == wanted or asyncio.get_running_loop().time() > deadline:
                return done
            await asyncio.sleep(SEARCH_PAUSE_S)

    async def _found(self, token: str, asked: Searched) -> list[Json]:
        if asked.chat is None:
            path = f"/applications/{token}/messages/search"
            return list(await self._client.get_json(path, q=asked.q, limit=asked.limit))
        found: list[Json] = []
        path = f"/applications/{token}/chats/{asked.chat}/messages/search"
        while True:
            before = {"before": found[-1]["number"]} if found else {}
            page = await self._client.get_json(path, q=asked.q, limit=PAGE, **before)
            found += page
            if len(page) < PAGE:
                return found
