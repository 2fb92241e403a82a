"""Facts to apply, and what the tables hold afterwards."""

from __future__ import annotations

import time
from typing import Any

from chat_system.model import (
    ApplicationId,
    ChatChanged,
    Fact,
    KeyUsed,
    MessageChanged,
    Once,
    Receipt,
)
from chat_system.ports import Entry
from chat_system.stack.mysql import Database
from chat_system.stack.store import StackStore
from chat_system.telemetry import REGISTRY

CREATED = 1_700_000_000_000
TOKEN_CHARACTERS = 43
UNKNOWN = ApplicationId(987_654_321)


async def create(store: StackStore, text: str, once: Once | None = None) -> ApplicationId:
    """An application whose token begins like this."""
    token = text.ljust(TOKEN_CHARACTERS, "x")
    await store.create_application(token, text, once=once)
    application = await store.resolve(token)
    assert application is not None
    return application


def entries(application: ApplicationId, *facts: Fact, chat: int = 1, epoch: int = 0) -> list[Entry]:
    """The facts as a journal hands them over."""
    return [Entry(f"0/{epoch}-{index}/0", application, chat, fact) for index, fact in enumerate(facts)]


def posted(number: int, body: str = "body", revision: int = 0, created_at: int = CREATED) -> MessageChanged:
    """A new message; its revision is its number unless said otherwise."""
    return MessageChanged(number, revision or number, "sender", body, None, created_at)


def edited(number: int, revision: int, body: str) -> MessageChanged:
    """A message that was edited."""
    return MessageChanged(number, revision, "sender", body, b'{"edited":true}', CREATED, CREATED + revision)


def deleted(number: int, revision: int) -> MessageChanged:
    """A tombstone."""
    at = CREATED + revision
    return MessageChanged(number, revision, "sender", None, None, CREATED, at, at)


def opened(version: int = 1, title: str | None = "Title") -> ChatChanged:
    """A chat's own fields."""
    return ChatChanged(version, title, b'{"a":1}', CREATED, CREATED + version - 1)


def used(key: str, number: int, at: int, kept_s: int | None = 3600) -> KeyUsed:
    """An idempotency key with what it was allotted."""
    once = Once.of("path", key, str(number).encode(), kept_s)
    return KeyUsed(once, Receipt(number, number, at, replayed=True), None if kept_s is None else at + kept_s * 1000)


async def contents(database: Database) -> list[Any]:
    """All that the tables of chats and messages hold."""
    return [
        await database.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in ("chats", "messages", "receipts")
    ] + [await database.fetch("SELECT id, chats_count FROM applications ORDER BY id")]


def now_ms() -> int:
    """The time as the tables hold it."""
    return time.time_ns() // 1_000_000


def backstop_hits() -> float:
    """The metric that must stay 0."""
    return REGISTRY.get_sample_value("chat_backstop_hits_total") or 0.0
