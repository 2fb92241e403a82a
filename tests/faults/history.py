"""The words that a load and the checker share: what was asked, what came of it, what is readable at the end.

Every thing that a load creates carries a mark of its own: a message's `sender`, a chat's `title`. Both never
change afterwards, tombstones keep the sender, so a row that is read back names the request that made it.
Every edit sets a body or a metadata value that no other request of the history sets, so no edit is without
effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class Ask(StrEnum):
    """What a request asked for."""

    CHAT = "create a chat"
    POST = "post a message"
    BATCH = "post a batch"
    EDIT = "edit a message"
    DELETE = "delete a message"
    READ = "read messages"


CREATIONS = frozenset({Ask.CHAT, Ask.POST, Ask.BATCH})

PAGE = 20
"""How many messages a read without a target asks for: the newest ones, newest first."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it. Times are seconds of one monotonic clock.

    `payload` is the JSON body that was sent. `target` is a message number (edits, deletes, reads of one
    message; a read without a target is of the newest PAGE messages). `status` is None when no answer arrived:
    nobody knows what became of the request. `answer` is the decoded body; of a read it is always the list of
    messages seen.
    """

    ask: Ask
    application: str
    sent_at: float
    chat: int | None = None
    target: int | None = None
    payload: Any = None
    key: str | None = None
    answered_at: float = math.inf
    status: int | None = None
    answer: Any = None
    replayed: bool = False

    @property
    def acknowledged(self) -> bool:
        """The server said that it is done."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """The server said that nothing was done. A 5xx says no such thing."""
        return self.status is not None and 400 <= self.status < 500

    @property
    def unknown(self) -> bool:
        """It may have been done or not."""
        return not self.acknowledged and not self.refused

    @property
    def failed(self) -> bool:
        """The server said that it has a defect: of 500 and above, only 503 is an answer of one that works."""
        return self.status is not None and self.status >= 500 and self.status != 503

    @property
    def marks(self) -> tuple[str, ...]:
        """The marks of what a creation creates, in order."""
        if self.ask is Ask.BATCH:
            return tuple(item["sender"] for item in self.payload["messages"])
        return (self.payload["title" if self.ask is Ask.CHAT else "sender"],)

    @property
    def items(self) -> list[Json]:
        """The fields of what a creation creates, in order."""
        return list(self.payload["messages"]) if self.ask is Ask.BATCH else [self.payload]

    @property
    def answers(self) -> list[Json]:
        """The resources of an acknowledged answer, in order."""
        return list(self.answer) if isinstance(self.answer, list) else [self.answer]

    def without_answer(self) -> Exchange:
        """The same request while its answer is still to come."""
        return replace(self, answered_at=math.inf, status=None, answer=None, replayed=False)

    def __str__(self) -> str:
        where = "" if self.chat is None else f" in chat {self.chat}"
        which = "" if self.target is None else f" number {self.target}"
        key = "" if self.key is None else f" with key {self.key}"
        return f"{self.ask}{which}{where}{key} at {self.sent_at:.3f}-{self.answered_at:.3f}: {self.status}"


@dataclass(frozen=True, slots=True)
class ChatReading:
    """One chat as it is readable at the end: itself, its messages by number, and all of `changed_after=0`."""

    chat: Json
    messages: list[Json]
    changes: list[Json]


@dataclass(frozen=True, slots=True)
class Told:
    """One event as a live reader got it: name, id, the message in it, and the id that it had to be above."""

    name: str
    id: int
    above: int
    number: int
    revision: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """What a live reader of one chat holds at the end, by number, and every event that it was told."""

    chat: int
    messages: list[Json]
    events: list[Told]


@dataclass(frozen=True, slots=True)
class Searched:
    """A search and what it found: of a chat everything; of an application (no chat) the first page of `limit`."""

    q: str
    found: list[Json]
    chat: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class ApplicationReading:
    """One application as it is readable at the end: itself and its chats by number.

    Live readers and searches are judged if there were any.
    """

    application: Json
    chats: list[ChatReading]
    copies: list[Copy] = field(default_factory=list)
    searches: list[Searched] = field(default_factory=list)


Reading = Mapping[str, ApplicationReading]
