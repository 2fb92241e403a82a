"""A client that keeps a copy of a chat from a snapshot and live events, however often it is cut off.

It does what API.md tells a client to do: upsert each event's message by number, remember the last id, come
back with it. It reads bytes, not lines of text: in a message, U+2028 or U+0085 end no line of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

Json = dict[str, Any]

SNAPSHOT_LIMIT = 200
FAR_AHEAD = 1_000_000
CATCH_UP_TIMEOUT_S = 20.0


class Return(StrEnum):
    """How a reader comes back."""

    BY_HEADER = "with Last-Event-ID"
    BY_PARAMETER = "with ?after="
    HEADER_WINS = "with both: the header counts"
    FURTHER_BACK = "with the id of an event from before"
    FROM_THE_START = "with ?after=0, its copy thrown away"
    NEW_SNAPSHOT = "with a new snapshot"
    WITHOUT_CURSOR = "without a cursor, and a snapshot taken once the stream is open"


@dataclass(frozen=True)
class Seen:
    """One event as it came, and the id that it has to be above."""

    name: str
    id: int
    message: Json
    above: int


class LiveReader:
    """A copy of one chat. `events` is everything that ever came."""

    def __init__(self, http: httpx.AsyncClient, chat: str) -> None:
        self._http = http
        self._chat = chat
        self.copy: dict[int, Json] = {}
        self.cursor = 0
        self.events: list[Seen] = []

    async def take_snapshot(self) -> None:
        """Replace the copy by the list as it is now; one page, so the cursor is its highest revision."""
        answer = await self._http.get(f"{self._chat}/messages", params={"limit": SNAPSHOT_LIMIT})
        assert answer.status_code == 200, answer.text
        self.copy = {message["number"]: message for message in answer.json()}
        self.cursor = max((message["revision"] for message in answer.json()), default=0)

    async def read(self, how: Return, *, events: int, patience_s: float) -> None:
        """Come back, take some events, and hang up; hang up too when nothing comes for a while."""
        params, headers = await self._prepare(how)
        path = f"{self._chat}/events"
        async with self._http.stream("GET", path, params=params, headers=headers, timeout=None) as response:
            assert response.status_code == 200
            above = self.cursor
            if how is Return.WITHOUT_CURSOR:
                # What changed between the two is in the snapshot, and may come as an event as well.
                await self.take_snapshot()
                above = 0
            stream = events_of(response)
            with contextlib.suppress(TimeoutError):
                for _ in range(events):
                    # Not wait_for: up to Python 3.11 it swallows a cancellation that meets an event.
                    async with asyncio.timeout(patience_s):
                        event = await anext(stream)
                    self._upsert(above, *event)
                    above = self.cursor
            await stream.aclose()

    async def catch_up(self, revision: int) -> None:
        """Stay until the copy has reached a revision."""
        headers = {"Last-Event-ID": str(self.cursor)}
        path = f"{self._chat}/events"
        async with (
            asyncio.timeout(CATCH_UP_TIMEOUT_S),
            self._http.stream("GET", path, headers=headers, timeout=None) as response,
        ):
            stream = events_of(response)
            while self.cursor < revision:
                self._upsert(self.cursor, *await anext(stream))
            await stream.aclose()

    async def _prepare(self, how: Return) -> tuple[dict[str, str], dict[str, str]]:
        if how is Return.WITHOUT_CURSOR:
            return {}, {}
        if how is Return.NEW_SNAPSHOT:
            await self.take_snapshot()
        if how is Return.FROM_THE_START:
            self.copy, self.cursor = {}, 0
        if how is Return.FURTHER_BACK and self.events:
            self.cursor = min(self.cursor, self.events[len(self.events) // 2].id)
        if how in (Return.BY_PARAMETER, Return.FROM_THE_START):
            return {"after": str(self.cursor)}, {}
        params = {"after": str(FAR_AHEAD)} if how is Return.HEADER_WINS else {}
        return params, {"Last-Event-ID": str(self.cursor)}

    def _upsert(self, above: int, name: str, event_id: int, message: Json) -> None:
        self.events.append(Seen(name, event_id, message, above))
        self.copy[message["number"]] = message
        self.cursor = event_id


async def events_of(response: httpx.Response) -> AsyncGenerator[tuple[str, int, Json], None]:
    """The events of a stream: name, id and message."""
    waiting = b""
    async for piece in response.aiter_bytes():
        waiting = (waiting + piece).replace(b"\r\n", b"\n")
        *blocks, waiting = waiting.split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and not line.startswith(b":"))
            if b"data" in fields:
                yield fields[b"event"].decode(), int(fields[b"id"]), json.loads(fields[b"data"])
    raise AssertionError("the server ended the stream")
