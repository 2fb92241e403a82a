"""Facts as they stand in Redis: in the stream, and on the tails of their chats.

A fact is MessagePack, an array of two: its head, which append.lua writes (kind, application, chat, number,
revision, time), and its content, which the API encoded before a number was known. A stream entry names the kind
of each of its facts again (`m` message, `c` chat, `n` count, `o` idempotency key), so that readers know what they
decode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from chat_system.model import (
    ApplicationId,
    ChatChanged,
    ChatCounted,
    Fact,
    KeyUsed,
    MessageChanged,
    Once,
    Receipt,
)

POST, OPEN, CHANGE, EDIT, DELETE, KEY, COUNT = range(1, 8)
"""Kinds of facts, as append.lua numbers them."""

Place = tuple[ApplicationId, int, Fact]
"""A fact with the application and the chat that it is about."""


class Head(Struct, array_like=True):
    """What append.lua adds to a content."""

    kind: int
    application: int
    chat: int
    number: int
    revision: int
    at: int


class MessageContent(Struct, array_like=True):
    """What a message says. `created_at` is None when it is the time at which it was recorded."""

    sender: str | None
    body: str | None
    metadata: bytes | None
    created_at: int | None = None


class ChatContent(Struct, array_like=True):
    """A chat's own fields; `created_at` as above."""

    title: str | None
    metadata: bytes | None
    created_at: int | None = None


class KeyContent(Struct, array_like=True):
    """An idempotency key with its payload's fingerprint, how many messages it posted, and how long it is kept."""

    key: bytes
    fingerprint: bytes
    count: int
    kept_s: int | None


class MessageFact(Struct, array_like=True):
    """A message as it stands in Redis."""

    head: Head
    content: MessageContent

    def changed(self) -> MessageChanged:
        """The state that it tells."""
        head, content = self.head, self.content
        if head.kind == POST:
            created_at = head.at if content.created_at is None else content.created_at
            return MessageChanged(
                head.number, head.revision, content.sender, content.body, content.metadata, created_at
            )
        return MessageChanged(
            head.number,
            head.revision,
            content.sender,
            content.body,
            content.metadata,
            head.at if content.created_at is None else content.created_at,
            head.at,
            head.at if head.kind == DELETE else None,
        )


class ChatFact(Struct, array_like=True):
    """A chat's own fields as they stand in Redis. The head's revision is the version."""

    head: Head
    content: ChatContent

    def changed(self) -> ChatChanged:
        """The state that it tells."""
        head, content = self.head, self.content
        created_at = head.at if content.created_at is None else content.created_at
        return ChatChanged(head.revision, content.title, content.metadata, created_at, head.at)


class CountFact(Struct, array_like=True):
    """How many messages a chat has. The head's time is the count."""

    head: Head
    content: None


class KeyFact(Struct, array_like=True):
    """An idempotency key as it stands in Redis."""

    head: Head
    content: KeyContent


KEPT = struct.Struct(">IQQI")
"""What Redis keeps of a receipt: number, revision, time, count. The payload's fingerprint follows."""

_message = msgspec.msgpack.Decoder(MessageFact).decode
_chat = msgspec.msgpack.Decoder(ChatFact).decode
_count = msgspec.msgpack.Decoder(CountFact).decode
_key = msgspec.msgpack.Decoder(KeyFact).decode

encode = msgspec.msgpack.Encoder().encode
"""Contents, and whatever else goes to the scripts."""


def _read_message(state: bytes) -> Place:
    fact = _message(state)
    return ApplicationId(fact.head.application), fact.head.chat, fact.changed()


def _read_chat(state: bytes) -> Place:
    fact = _chat(state)
    return ApplicationId(fact.head.application), fact.head.chat, fact.changed()


def _read_count(state: bytes) -> Place:
    head = _count(state).head
    return ApplicationId(head.application), head.chat, ChatCounted(head.revision, head.at)


def _read_key(state: bytes) -> Place:
    fact = _key(state)
    head, content = fact.head, fact.content
    expires_at = None if content.kept_s is None else head.at + content.kept_s * 1000
    return (
        ApplicationId(head.application),
        head.chat,
        KeyUsed(
            Once(content.key, content.fingerprint, content.kept_s),
            Receipt(head.number, head.revision, head.at, content.count, replayed=True),
            expires_at,
        ),
    )


_READERS: dict[bytes, Callable[[bytes], Place]] = {
    b"m": _read_message,
    b"c": _read_chat,
    b"n": _read_count,
    b"o": _read_key,
}


def read(kind: bytes, state: bytes) -> Place:
    """A fact of a stream entry.

    Raises:
        ValueError: it is none of ours.
    """
    reader = _READERS.get(kind)
    if reader is None:
        raise ValueError(f"{kind!r} is no kind of fact")
    return reader(state)


def write(application: ApplicationId, chat: int, fact: Fact) -> tuple[bytes, bytes]:
    """The opposite of `read`: for what has to go back to Redis."""
    head: list[Any]
    content: Any
    if isinstance(fact, MessageChanged):
        kind = POST if fact.updated_at is None else EDIT if fact.deleted_at is None else DELETE
        at = fact.created_at if fact.updated_at is None else fact.updated_at
        head = [kind, application, chat, fact.number, fact.revision, at]
        content = MessageContent(fact.sender, fact.body, fact.metadata, fact.created_at)
        return b"m", encode([head, content])
    if isinstance(fact, ChatChanged):
        head = [CHANGE, application, chat, 0, fact.version, fact.updated_at]
        return b"c", encode([head, ChatContent(fact.title, fact.metadata, fact.created_at)])
    if isinstance(fact, ChatCounted):
        return b"n", encode([[COUNT, application, chat, 0, fact.revision, fact.messages_count], None])
    head = [KEY, application, chat, fact.receipt.number, fact.receipt.revision, fact.receipt.at]
    content = KeyContent(fact.once.key, fact.once.fingerprint, fact.receipt.count, fact.once.kept_s)
    return b"o", encode([head, content])
