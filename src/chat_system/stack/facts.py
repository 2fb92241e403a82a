"""Facts as they stand in Redis: in the stream, and on the tails of their chats.

A fact is MessagePack, an array of two: its head, which append.lua writes (kind, application, chat, number,
revision, time), and its content, which the API encoded before a number was known. A stream entry has a field for
each kind of fact (`m` message, `c` chat, `n` count, `o` idempotency key) with all of them in one array, so that
readers know what they decode, and decode it at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
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


class Head(Struct, array_like=True, gc=False):
    """What append.lua adds to a content."""

    kind: int
    application: ApplicationId
    chat: int
    number: int
    revision: int
    at: int


class MessageContent(Struct, array_like=True, gc=False):
    """What a message says. `created_at` is None when it is the time at which it was recorded."""

    sender: str | None
    body: str | None
    metadata: bytes | None
    created_at: int | None = None


class ChatContent(Struct, array_like=True, gc=False):
    """A chat's own fields; `created_at` as above."""

    title: str | None
    metadata: bytes | None
    created_at: int | None = None


class KeyContent(Struct, array_like=True, gc=False):
    """An idempotency key with its payload's fingerprint, how many messages it posted, and how long it is kept."""

    key: bytes
    fingerprint: bytes
    count: int
    kept_s: int | None


class MessageFact(Struct, array_like=True, gc=False):
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


class ChatFact(Struct, array_like=True, gc=False):
    """A chat's own fields as they stand in Redis. The head's revision is the version."""

    head: Head
    content: ChatContent

    def changed(self) -> ChatChanged:
        """The state that it tells."""
        head, content = self.head, self.content
        created_at = head.at if content.created_at is None else content.created_at
        return ChatChanged(head.revision, content.title, content.metadata, created_at, head.at)


class CountFact(Struct, array_like=True, gc=False):
    """How many messages a chat has. The head's time is the count."""

    head: Head
    content: None


class KeyFact(Struct, array_like=True, gc=False):
    """An idempotency key as it stands in Redis."""

    head: Head
    content: KeyContent

    def used(self) -> KeyUsed:
        """What it tells."""
        head, content = self.head, self.content
        expires_at = None if content.kept_s is None else head.at + content.kept_s * 1000
        once = Once(content.key, content.fingerprint, content.kept_s)
        return KeyUsed(once, Receipt(head.number, head.revision, head.at, content.count, replayed=True), expires_at)


_decode_messages = msgspec.msgpack.Decoder(list[MessageFact]).decode
_decode_chats = msgspec.msgpack.Decoder(list[ChatFact]).decode
_decode_counts = msgspec.msgpack.Decoder(list[CountFact]).decode
_decode_keys = msgspec.msgpack.Decoder(list[KeyFact]).decode
_decode_states = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


KEPT = struct.Struct(">IQQI")
"""What Redis keeps of a receipt: number, revision, time, count. The payload's fingerprint follows."""

COUNTERS = struct.Struct(">IQIQ")
"""What Redis keeps of a chat in use, as append.lua packs it: last number, revision, count of messages, version."""

encode = msgspec.msgpack.Encoder().encode
"""Contents, and whatever else goes to the scripts."""

ARRAY_OF_ONE = b"\x91"
"""What makes a fact a field of its own."""


class Unreadable(Struct):
    """What stands where a fact should, as it stands there, and what is wrong with it."""

    state: bytes
    error: Exception


_UNREADABLE = (ValueError, msgspec.MsgspecError)


def read(kind: bytes, packed: bytes) -> Sequence[Place | Unreadable]:
    """The facts of one field of a stream entry."""
    reader = _READERS.get(kind)
    if reader is None:
        return [Unreadable(packed, ValueError(f"{kind!r} is no kind of fact"))]
    try:
        return reader(packed)
    except _UNREADABLE:
        return _read_each(reader, packed)


def size(packed: bytes) -> int:
    """How many facts a field has."""
    try:
        return len(_decode_states(packed))
    except _UNREADABLE:
        return 1


def _read_each(reader: Reader, packed: bytes) -> Sequence[Place | Unreadable]:
    """One by one: what is wrong with a fact is wrong with no other."""
    places: list[Place | Unreadable] = []
    try:
        states = [bytes(state) for state in _decode_states(packed)]
    except _UNREADABLE as error:
        return [Unreadable(packed, error)]
    for state in states:
        try:
            places += reader(ARRAY_OF_ONE + state)
        except _UNREADABLE as error:
            places.append(Unreadable(state, error))
    return places


def _read_messages(packed: bytes) -> list[Place]:
    return [(fact.head.application, fact.head.chat, fact.changed()) for fact in _decode_messages(packed)]


def _read_chats(packed: bytes) -> list[Place]:
    return [(fact.head.application, fact.head.chat, fact.changed()) for fact in _decode_chats(packed)]


def _read_counts(packed: bytes) -> list[Place]:
    heads = [fact.head for fact in _decode_counts(packed)]
    return [(head.application, head.chat, ChatCounted(head.revision, head.at)) for head in heads]


def _read_keys(packed: bytes) -> list[Place]:
    return [(fact.head.application, fact.head.chat, fact.used()) for fact in _decode_keys(packed)]


Reader = Callable[[bytes], list[Place]]

_READERS: dict[bytes, Reader] = {b"m": _read_messages, b"c": _read_chats, b"n": _read_counts, b"o": _read_keys}


def write(application: ApplicationId, chat: int, fact: Fact) -> tuple[bytes, bytes]:
    """The kind and the state of a fact: for what has to go back to Redis."""
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
