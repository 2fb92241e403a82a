"""A reader of server-sent events (WHATWG HTML, section 9.2) over httpx, for tests only.

It reads lines as they come and yields events and comments. Every wait has a deadline, so a silent server
fails a test instead of hanging it. Not promised: reconnecting; tests do that by hand, it is what they test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

EVENT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Event:
    """One dispatched event: its `event` field, its `id` field and its data as JSON."""

    name: str
    id: str
    message: dict[str, Any]

    @property
    def revision(self) -> int:
        """The id, which is the revision of the change."""
        return int(self.id)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Lines as the format defines them; str.splitlines would also cut at U+2028, inside a message."""
    rest = b""
    async for data in chunks:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()


class StreamEnded(Exception):
    """The server closed the stream."""


class LiveStream:
    """An open stream. `response` is the httpx response; `comments` what arrived as comment lines.

    `retry_ms` is how long the server asks clients to wait before they reconnect; None until it has said so.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments: list[str] = []
        self.retry_ms: int | None = None
        self._lines = _lines(response.aiter_bytes())
        self._pending: asyncio.Task[str] | None = None

    async def _line(self, timeout_s: float) -> str:
        # The task outlives a timed-out wait: cancelling a half-done read would break the stream.
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self._lines))
        done, _ = await asyncio.wait({self._pending}, timeout=timeout_s)
        if not done:
            raise TimeoutError(f"the stream was silent for {timeout_s:.1f} s")
        task, self._pending = self._pending, None
        try:
            return task.result()
        except (StopAsyncIteration, httpx.RemoteProtocolError, httpx.ReadError) as ended:
            raise StreamEnded from ended

    async def next_event(self, timeout_s: float = EVENT_TIMEOUT_S) -> Event:
        """The next event; comments on the way are collected.

        Raises:
            TimeoutError: none came in time. The stream stays usable.
            StreamEnded: the server closed it first.
        """
        fields: dict[str, str] = {}
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            line = await self._line(max(0.0, deadline - asyncio.get_running_loop().time()))
            if not line:
                if "data" in fields:
                    return Event(fields["event"], fields["id"], json.loads(fields["data"]))
            elif line.startswith(":"):
                self.comments.append(line[1:])
            else:
                name, _, value = line.partition(":")
                assert name in ("event", "id", "data", "retry"), f"not a field of server-sent events: {line!r}"
                value = value.removeprefix(" ")
                if name == "retry":
                    self.retry_ms = int(value)
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value

    async def events(self, count: int, timeout_s: float = EVENT_TIMEOUT_S) -> list[Event]:
        """The next `count` events."""
        return [await self.next_event(timeout_s) for _ in range(count)]

    async def events_until(self, revision: int, timeout_s: float = EVENT_TIMEOUT_S) -> list[Event]:
        """The next events up to and including the one whose id is `revision` or above."""
        seen: list[Event] = []
        while not seen or seen[-1].revision < revision:
            seen.append(await self.next_event(timeout_s))
        return seen

    async def is_silent(self, for_s: float = 0.3) -> bool:
        """Whether no event arrives for a while. Comments are not events."""
        try:
            await self.next_event(for_s)
        except TimeoutError:
            return True
        return False

    async def ends(self, timeout_s: float = EVENT_TIMEOUT_S) -> bool:
        """Whether the server closes the stream in time; events on the way are dropped."""
        try:
            while True:
                await self.next_event(timeout_s)
        except StreamEnded:
            return True
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Stop reading."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait({self._pending})


@asynccontextmanager
async def open_stream(
    http: httpx.AsyncClient, path: str, params: Mapping[str, str], headers: Mapping[str, str]
) -> AsyncIterator[LiveStream]:
    """Open a stream and insist on 200 and the right content type."""
    async with http.stream("GET", path, params=dict(params), headers=dict(headers), timeout=None) as response:
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, f"GET {path}: {response.status_code} {response.text}"
        assert response.headers["content-type"].split(";")[0] == "text/event-stream"
        stream = LiveStream(response)
        try:
            yield stream
        finally:
            await stream.close()
