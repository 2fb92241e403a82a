"""The feed inside one process: who listens to which chat.

Not promised: anything across processes. One SQLite file has one server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chat_system.model import ApplicationId
from chat_system.ports import Wake


class EmbeddedFeed:
    """Wakes the streams of a chat. Used on the event loop only."""

    def __init__(self) -> None:
        self._listeners: dict[ApplicationId, dict[int, list[Wake]]] = {}

    def announce(self, application: ApplicationId, chat: int) -> None:
        """Wake the listeners of one chat."""
        chats = self._listeners.get(application)
        if chats is not None:
            for wake in tuple(chats.get(chat, ())):
                wake()

    def announce_erased(self, application: ApplicationId) -> None:
        """Wake the listeners of every chat: they find that it is gone."""
        for wakes in tuple(self._listeners.get(application, {}).values()):
            for wake in tuple(wakes):
                wake()

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
