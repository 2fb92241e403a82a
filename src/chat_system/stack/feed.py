"""The feed over Redis: announcements of every API process reach the streams of all the others.

append.lua announces by itself what it has recorded, on one channel for each partition; every process listens to
all of them, and wakes those of its streams that are meant. Workers have channels of their own, which tell them only
that something waits after all was applied: hearing costs more than recording a message.

Not promised: delivery. Redis forgets what it tells to those who are away; whoever was cut off wakes all its
streams when it is back, and they read the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chat_system.model import ApplicationId
from chat_system.ports import Wake
from chat_system.stack.connection import Connection
from chat_system.stack.redis import TIMEOUT_S, Redis
from chat_system.telemetry import log

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
STREAMS, WORKERS = "feed", "work"
"""The channels of a partition."""

ALL_CHATS = 0
"""Announces an application as a whole: chats are numbered from 1."""


class StackFeed:
    """Wakes the streams of a chat. Used on the event loop only; `run` must be running."""

    def __init__(self, redis: Redis, channel: str = STREAMS) -> None:
        self._redis = redis
        self._channel = channel
        self._listeners: dict[int, dict[int, list[Wake]]] = {}
        self._announcing: set[asyncio.Task[None]] = set()
        self._onlookers: list[Callable[[], None]] = []
        self._delay_s = RETRY_FIRST_S
        self._confirmed, self._is_silent = 0, False
        self.listening = asyncio.Event()
        """Set while this process hears what is announced."""

    def announce(self, application: ApplicationId, chat: int) -> None:
        """Tell all processes. What append.lua recorded is announced already."""
        task = asyncio.get_running_loop().create_task(self._publish(application, chat))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    def announce_erased(self, application: ApplicationId) -> None:
        """Tell all processes to wake every stream of the application."""
        self.announce(application, ALL_CHATS)

    @contextmanager
    def listen(self, application: ApplicationId, chat: int, wake: Wake) -> Iterator[None]:
        """Call `wake` at each announcement of the chat while the context is open."""
        chats = self._listeners.setdefault(application, {})
        chats.setdefault(chat, []).append(wake)
        try:
            yield
        finally:
            chats[chat].remove(wake)
            if not chats[chat]:
                del chats[chat]
            if not chats and self._listeners.get(application) is chats:
                del self._listeners[application]

    def on_any(self, wake: Callable[[], None]) -> None:
        """Call `wake` at every announcement: something was recorded."""
        self._onlookers.append(wake)

    async def run(self) -> None:
        """Listen until cancelled, and again after every failure."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, streams must be woken again
                log.warning("feed is cut off", reason=repr(error), retry_in_s=self._delay_s)
            finally:
                self.listening.clear()
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(self._delay_s * 2, RETRY_MAX_S)

    async def _listen(self) -> None:
        """Listen until the connection is lost. In a cluster every node hears what is announced on any."""
        lost = asyncio.Event()
        refusals: list[Exception] = []
        self._confirmed, self._is_silent = 0, False

        def hear(said: Any) -> None:
            if isinstance(said, Exception):
                # Redis is not ready yet, or not for us.
                refusals.append(said)
                lost.set()
            else:
                self._hear(said)

        connection = Connection(await self._redis.open(""), hear, lost.set)
        try:
            connection.say(
                "SUBSCRIBE", *(self._redis.key(index, self._channel) for index in range(self._redis.partitions))
            )
            while True:
                # Not `wait_for`: in Python 3.11 it takes a cancellation for the event if both come at once.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TIMEOUT_S):
                        await lost.wait()
                # Silence may be a connection that no one has told us is gone.
                if refusals:
                    raise refusals[0]
                if lost.is_set() or self._is_silent:
                    raise ConnectionResetError("lost" if lost.is_set() else "no answer")
                self._is_silent = True
                connection.say("PING")
        finally:
            connection.cut()

    def _hear(self, said: Any) -> None:
        self._is_silent = False
        if said[0] == b"message":
            self._wake(said[2])
        elif said[0] == b"subscribe":
            self._confirmed += 1
            if self._confirmed == self._redis.partitions:
                self._delay_s = RETRY_FIRST_S
                self.listening.set()
                self._wake_all()

    def _wake(self, data: bytes) -> None:
        for wake in self._onlookers:
            wake()
        for name in data.split():
            application, _, chat = name.partition(b":")
            chats = self._listeners.get(int(application))
            if chats is None:
                continue
            wanted = tuple(chats.values()) if int(chat) == ALL_CHATS else (chats.get(int(chat), ()),)
            for wakes in wanted:
                for wake in tuple(wakes):
                    wake()

    def _wake_all(self) -> None:
        """Whatever was announced in the meantime was missed."""
        for wake in self._onlookers:
            wake()
        for chats in tuple(self._listeners.values()):
            for wakes in tuple(chats.values()):
                for wake in tuple(wakes):
                    wake()

    async def _publish(self, application: ApplicationId, chat: int) -> None:
        partition = self._redis.partition(application)
        with contextlib.suppress(Exception):
            # A hint: who misses it looks again by itself.
            await self._redis.command("PUBLISH", self._redis.key(partition, STREAMS), f"{application}:{chat}")
