"""What stands around a store under test: it hears what the store tells others."""

from __future__ import annotations

from typing import Any

from chat_system.model import ApplicationId


class Surroundings:
    """What the store tells others, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    async def erased(self, application: ApplicationId) -> None:
        self.told.append(("erased", application))

    async def erase_index(self, application: ApplicationId) -> None:
        self.told.append(("index", application))

    async def forget(self, application: ApplicationId, chat: int) -> None:
        self.told.append(("forget", (application, chat)))
