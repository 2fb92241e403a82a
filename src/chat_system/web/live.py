"""Live changes of a chat as server-sent events that resume without loss.

One channel for each chat that has readers: woken by the feed, it reads what changed from the store once and writes
the same bytes to all of them. A reader first catches up by itself, at its own pace, from the revision that it names;
when it has come to where the channel stands it joins. Both read the store by revision, so nothing is missed and
nothing comes twice; of what changed several times meanwhile, the latest state comes.

Events go straight to the connection: its buffer tells how far a reader is behind. Who has more than 1 MiB
waiting is cut off, and catches up when it reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from chat_system.errors import ChatSystemError, Invalid, NotFound
from chat_system.model import BOUND_MAX, ApplicationId, Message
from chat_system.ports import Feed
from chat_system.system import ChatSystem
from chat_system.telemetry import LIVE_CUT, LIVE_READERS, log
from chat_system.web.pages import integer
from chat_system.web.request import Request

UNSENT_MAX_BYTES = 1024 * 1024
KEEP_ALIVE_S = 15.0
RECONNECT_MS = 1000
CHANGES_PER_READ = 100
RETRY_S = 0.5
CATCH_UP_S = 120.0
"""How long a reader that catches up may take nothing."""

KEEP_ALIVE = b": keep-alive\n\n"
LAST_CHUNK = b"0\r\n\r\n"


class Reader:
    """One open stream: its connection, and the revision up to which it was sent everything."""

    __slots__ = ("_is_chunked", "connection", "revision")

    def __init__(self, request: Request, revision: int) -> None:
        self.connection = request.connection
        self.revision = revision
        self._is_chunked = request.is_http_1_1

    def write(self, frames: bytes, chunk: bytes) -> None:
        """Send frames, given plain and as an HTTP chunk; cut the reader off when too much waits for it."""
        if self.connection.unsent_bytes() > UNSENT_MAX_BYTES:
            LIVE_CUT.inc()
            self.connection.cut()
        else:
            self.send(frames, chunk)

    def send(self, frames: bytes, chunk: bytes) -> None:
        """Send frames, however much waits."""
        self.connection.write_stream(chunk if self._is_chunked else frames)

    def end(self) -> None:
        """End the stream: the client knows that it is complete."""
        if self._is_chunked:
            self.connection.write_stream(LAST_CHUNK)
        self.connection.close()


class Channel:
    """The readers of one chat who have caught up."""

    def __init__(self, live: Live, application: ApplicationId, chat: int) -> None:
        self._live = live
        self._application = application
        self._chat = chat
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self.readers: set[Reader] = set()
        self.users = 0
        self.revision = 0

    async def start(self, feed: Feed, system: ChatSystem) -> None:
        """Listen first, then ask where the chat stands: what comes between is read by the pump."""
        listening = contextlib.ExitStack()
        listening.enter_context(feed.listen(self._application, self._chat, self._wake.set))
        try:
            self.revision = await system.revision(self._application, self._chat)
        except BaseException:
            listening.close()
            raise
        self._pump = asyncio.create_task(self._run(listening, system))

    def stop(self) -> None:
        """The last reader has gone."""
        if self._pump is not None:
            self._pump.cancel()

    async def _run(self, listening: contextlib.ExitStack, system: ChatSystem) -> None:
        with listening:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    while changes := await system.changes(
                        self._application, self._chat, self.revision, CHANGES_PER_READ
                    ):
                        self._publish(changes)
                        await asyncio.sleep(0)
                    # An erased application's chats may be in the store for a moment longer.
                    await system.application(self._application)
                except NotFound:
                    self._live.close_channel(self._application, self._chat)
                    return
                except ChatSystemError as error:
                    log.warning("live channel waits", reason=error.detail, retry_in_s=RETRY_S)
                    await asyncio.sleep(RETRY_S)
                    self._wake.set()

    def _publish(self, changes: Sequence[Message]) -> None:
        before, self.revision = self.revision, changes[-1].revision
        frames = encode_events(changes)
        chunk = as_chunk(frames)
        for reader in tuple(self.readers):
            if reader.revision <= before:
                reader.write(frames, chunk)
            elif reader.revision < self.revision:
                # It has named a revision that the chat had not reached, or read ahead of the channel.
                rest = encode_events([change for change in changes if change.revision > reader.revision])
                reader.write(rest, as_chunk(rest))
            else:
                continue
            reader.revision = self.revision


class Live:
    """All open streams of this process."""

    def __init__(self, system: ChatSystem, feed: Feed) -> None:
        self._system = system
        self._feed = feed
        self._channels: dict[tuple[ApplicationId, int], Channel] = {}
        self._closing = False

    async def stream(self, request: Request, headers: bytes) -> None:
        """Answer with a chat's changes until the reader leaves, is cut off, or the application is erased.

        Raises (before anything was sent):
            Invalid: the revision to go on from is ill-formed.
            NotFound: the chat is unknown to this application.
        """
        after = starting_point(request)
        application, chat = request.application, request.chat
        channel = await self._join(application, chat)
        reader = Reader(request, channel.revision if after is None else after)
        try:
            with LIVE_READERS.track_inprogress():
                await self._serve(request, headers, reader, channel)
        finally:
            channel.readers.discard(reader)
            channel.users -= 1
            if channel.users == 0 and self._channels.get((application, chat)) is channel:
                del self._channels[application, chat]
                channel.stop()

    async def keep_alive(self) -> None:
        """Send a comment to every reader now and then, until cancelled: proxies close what is silent."""
        chunk = as_chunk(KEEP_ALIVE)
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            for channel in tuple(self._channels.values()):
                for reader in tuple(channel.readers):
                    reader.write(KEEP_ALIVE, chunk)

    def close(self) -> None:
        """End all streams: their clients reconnect elsewhere, or when the server is back."""
        self._closing = True
        for application, chat in tuple(self._channels):
            self.close_channel(application, chat)

    def close_channel(self, application: ApplicationId, chat: int) -> None:
        """End the streams of one chat."""
        channel = self._channels.pop((application, chat), None)
        if channel is not None:
            channel.stop()
            for reader in tuple(channel.readers):
                reader.end()

    async def _join(self, application: ApplicationId, chat: int) -> Channel:
        key = (application, chat)
        channel = self._channels.get(key)
        if channel is None:
            channel = Channel(self, application, chat)
            await channel.start(self._feed, self._system)
            other = self._channels.get(key)
            if other is not None:
                channel.stop()
                channel = other
            self._channels[key] = channel
        channel.users += 1
        return channel

    async def _serve(self, request: Request, headers: bytes, reader: Reader, channel: Channel) -> None:
        connection = request.connection
        connection.begin_stream(request, headers)
        hello = b"retry: %d\n\n" % RECONNECT_MS
        reader.send(hello, as_chunk(hello))
        try:
            await self._catch_up(request, reader, channel)
        except ChatSystemError:
            # The head is out, so there is no other answer than to cut: the client comes again and is told.
            connection.cut()
        # Nothing is awaited between the last look at the channel and joining it.
        channel.readers.add(reader)
        if self._closing or self._channels.get((request.application, request.chat)) is not channel:
            reader.end()
        await connection.until_closed()

    async def _catch_up(self, request: Request, reader: Reader, channel: Channel) -> None:
        while reader.revision < channel.revision and not reader.connection.is_gone():
            changes = await self._system.changes(request.application, request.chat, reader.revision, CHANGES_PER_READ)
            if not changes:
                return
            _send_some(reader, changes)
            # What was not sent is read again: a client that takes nothing holds no more than it was sent.
            del changes
            try:
                async with asyncio.timeout(CATCH_UP_S):
                    await reader.connection.drain()
            except TimeoutError:
                LIVE_CUT.inc()
                reader.connection.cut()
                return


def _send_some(reader: Reader, changes: Sequence[Message]) -> None:
    """Send changes until the reader takes them more slowly than they come."""
    for change in changes:
        frames = encode_events([change])
        reader.send(frames, as_chunk(frames))
        reader.revision = change.revision
        if reader.connection.is_congested:
            return


def starting_point(request: Request) -> int | None:
    """The revision to go on after: `Last-Event-ID`, else `?after`, else None. Raises Invalid."""
    header = request.headers.get(b"last-event-id")
    if header is not None:
        text = header.decode("latin-1")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise Invalid("Last-Event-ID must be the id of an event.")
        return int(text)
    return integer(request.query, "after", 0, BOUND_MAX)


def event_name(message: Message) -> str:
    """What has happened to a message, as far as its latest state tells."""
    if message.deleted_at is not None:
        return "message.deleted"
    # Revisions only grow: a message that was never edited carries the one that it was created with.
    return "message.created" if message.updated_at == message.created_at else "message.updated"


def encode_events(changes: Sequence[Message]) -> bytes:
    """Server-sent events. JSON has no line breaks, so each event's data is one line."""
    return b"".join(
        b"id: %d\nevent: %s\ndata: %s\n\n" % (change.revision, event_name(change).encode(), msgspec.json.encode(change))
        for change in changes
    )


def as_chunk(frames: bytes) -> bytes:
    """Frames as one chunk of HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(frames), frames)
