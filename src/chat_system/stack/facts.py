"""Facts as they stand in Redis: in the stream, and on the tails of their chats.

A fact is MessagePack, an array of two: its head, which append.lua writes (kind, application, chat, number,
revision, time), and its content, which the API encoded before a number was known. Messages come in runs: the head is
that of the first, and the content is an array of the contents of all, whose numbers and revisions follow. A stream
entry has a field for each kind of fact (`m` messages, `c` chat, `n` count, `o` idempotency key) with all of them in
one array, so that readers know what they decode, and decode it at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain, count
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


class Run(Struct, array_like=True, gc=False):
    """Messages of one chat as they stand in Redis: new ones, or one that was edited or deleted."""

    head: Head
    contents: list[MessageContent]

    def changed(self) -> list[MessageChanged]:
        """The states that it tells."""
        head = self.head
        if head.kind == POST:
            return [
                MessageChanged(
                    number,
                    revision,
                    content.sender,
                    content.body,
                    content.metadata,
                    head.at if content.created_at is None else content.created_at,
                )
                for number, revision, content in zip(count(head.number), count(head.revision), self.contents)
            ]
        deleted_at = head.at if head.kind == DELETE else None
        return [
            MessageChanged(
                head.number,
                head.revision,
                content.sender,
                content.body,
                content.metadata,
                head.at if content.created_at is None else content.created_at,
                head.at,
                deleted_at,
            )
            for content in self.contents
        ]


class RawRun(Struct, array_like=True, gc=False):
    """The same, of which not all is wanted."""

    head: Head
    contents: list[msgspec.Raw]

    def part(self, first: int, last: int) -> Run:
        """The messages from one index to another, exclusive."""
        return Run(self._head(first), [_decode_content(content) for content in self.contents[first:last]])

    def only(self, index: int) -> bytes:
        """One message as a run of its own, as it stands there."""
        return encode([self._head(index), [self.contents[index]]])

    def _head(self, index: int) -> Head:
        head = self.head
        return Head(head.kind, head.application, head.chat, head.number + index, head.revision + index, head.at)


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


_decode_runs = msgspec.msgpack.Decoder(list[Run]).decode
_decode_chats = msgspec.msgpack.Decoder(list[ChatFact]).decode
_decode_counts = msgspec.msgpack.Decoder(list[CountFact]).decode
_decode_keys = msgspec.msgpack.Decoder(list[KeyFact]).decode
_decode_states = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_content = msgspec.msgpack.Decoder(MessageContent).decode
decode_run = msgspec.msgpack.Decoder(Run).decode
decode_raw_run = msgspec.msgpack.Decoder(RawRun).decode


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


UNREADABLE = (ValueError, msgspec.MsgspecError)
"""What a decoder raises: bytes that are no UTF-8 are a ValueError."""


def read(kind: bytes, packed: bytes) -> Sequence[Place | Unreadable]:
    """The facts of one field of a stream entry."""
    reader = _READERS.get(kind)
    if reader is None:
        return [Unreadable(packed, ValueError(f"{kind!r} is no kind of fact"))]
    try:
        return reader(packed)
    except UNREADABLE:
        return _read_each(reader, packed)


def size(packed: bytes) -> int:
    """How many facts a field has, of a kind other than messages."""
    try:
        return len(_decode_states(packed))
    except UNREADABLE:
        return 1


def _read_each(reader: Reader, packed: bytes) -> Sequence[Place | Unreadable]:
    """One by one: what is wrong with a fact is wrong with no other."""
    places: list[Place | Unreadable] = []
    try:
        states = [bytes(state) for state in _decode_states(packed)]
    except UNREADABLE as error:
        return [Unreadable(packed, error)]
    for state in chain.from_iterable(map(_apart, states)) if reader is _read_messages else states:
        try:
            places += reader(ARRAY_OF_ONE + state)
        except UNREADABLE as error:
            places.append(Unreadable(state, error))
    return places


def _apart(state: bytes) -> list[bytes]:
    """The messages of a run, each as a run of its own; the state as it is when it is no run."""
    try:
        run = decode_raw_run(state)
        return [run.only(index) for index in range(len(run.contents))]
    except UNREADABLE:
        return [state]


def _read_messages(packed: bytes) -> list[Place]:
    return [(run.head.application, run.head.chat, changed) for run in _decode_runs(packed) for changed in run.changed()]


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
        return b"m", encode([head, [content]])
    if isinstance(fact, ChatChanged):
        head = [CHANGE, application, chat, 0, fact.version, fact.updated_at]
        return b"c", encode([head, ChatContent(fact.title, fact.metadata, fact.created_at)])
    if isinstance(fact, ChatCounted):
        return b"n", encode([[COUNT, application, chat, 0, fact.revision, fact.messages_count], None])
    assert isinstance(fact, KeyUsed)  # noqa: S101 - this house's entries carry the state, and none only names it
    head = [KEY, application, chat, fact.receipt.number, fact.receipt.revision, fact.receipt.at]
    content = KeyContent(fact.once.key, fact.once.fingerprint, fact.receipt.count, fact.once.kept_s)
    return b"o", encode([head, content])
