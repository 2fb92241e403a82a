"""Bulk requests: messages as documents of the search index, in pieces of one request each.

A document's version is the message's revision and, above it, the epoch of the journal that it comes from: when Redis
has lost its data, what was indexed and never stored is overwritten by whatever is given its number.

Whole stream entries are made into documents without an object for each fact in between (`batches`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct, json

from chat_system.model import ApplicationId, MessageChanged, fold
from chat_system.ports import Entry
from chat_system.stack.batches import Batch, Message
from chat_system.stack.facts import EDIT, POST

REQUEST_MAX_BYTES = 1_000_000
"""Of one request. aiohttp warns of bodies over 1 MiB, and larger ones were no faster."""

REQUEST_MAX_DOCUMENTS = 1_250

REVISION_BITS = 40
"""Room for the revisions of a chat in a document's version; the epoch stands above them."""

REVISION_MASK = (1 << REVISION_BITS) - 1

ROOMS_REMEMBERED = 4096

_encode_lines = json.Encoder().encode_lines


class Target(Struct, rename={"id": "_id"}, gc=False):
    """Where a document goes: `<application>:<chat>:<number>`. A later version that is there stays."""

    id: str
    routing: str
    version: int
    version_type: str = "external"


class _Index(Struct, gc=False):
    """What stands before a document."""

    index: Target


class _Shown(Struct, omit_defaults=True, gc=False):
    """The rest of what a reader gets to see; `body` where it is not the folded text."""

    revision: int
    sender: str | None
    metadata: str | None
    updated_at: int | None
    body: str | None = None


class _Document(Struct, omit_defaults=True, gc=False):
    """What is indexed of a message; a tombstone has no text and nothing to show."""

    room: str
    chat: int
    number: int
    created_at: int
    folded: str | None = None
    message: _Shown | None = None
    deleted: bool = False


def pieces(entries: Sequence[Entry]) -> Iterator[tuple[list[Target], bytes]]:
    """The entries in pieces: where the documents go, and the request's body."""
    targets: list[Target] = []
    lines: list[_Index | _Document] = []
    characters = 0
    for target, document in _documents(entries):
        targets.append(target)
        lines.append(_Index(target))
        lines.append(document)
        if document.folded is not None:
            characters += len(document.folded)
        if len(targets) == REQUEST_MAX_DOCUMENTS or characters > REQUEST_MAX_BYTES // 2:
            yield from _bodies(targets, lines)
            targets, lines, characters = [], [], 0
    if targets:
        yield from _bodies(targets, lines)


def expected(application: ApplicationId, chat: int, state: MessageChanged) -> Any:
    """What is to be indexed of a message, decoded."""
    ((_, document),) = _documents([Entry("", application, chat, state)])
    return json.decode(json.encode(document))


@lru_cache(maxsize=ROOMS_REMEMBERED)
def room(application: ApplicationId, chat: int) -> str:
    """What all documents of a chat are found by."""
    return f"{application}:{chat}"


def _bodies(targets: list[Target], lines: list[_Index | _Document]) -> Iterator[tuple[list[Target], bytes]]:
    """The same as one piece or, where that is too long, in halves."""
    body = _encode_lines(lines)
    if len(body) <= REQUEST_MAX_BYTES or len(targets) == 1:
        yield targets, body
    else:
        half = len(targets) // 2
        yield from _bodies(targets[:half], lines[: 2 * half])
        yield from _bodies(targets[half:], lines[2 * half :])


def _documents(entries: Sequence[Entry]) -> Iterator[tuple[Target, _Document]]:
    """Each with where it goes."""
    for first_version, messages in _messages(entries):
        for (kind, application, chat, number, revision, at), (sender, body, metadata, created_at) in messages:
            of = room(application, chat)
            if created_at is None:
                created_at = at  # noqa: PLW2901 - it was left out because it is the same
            if body is None:
                document = _Document(of, chat, number, created_at, deleted=True)
            else:
                folded = fold(body)
                shown = _Shown(
                    revision,
                    sender,
                    None if metadata is None else metadata.decode(),
                    None if kind == POST else at,
                    None if folded == body else body,
                )
                document = _Document(of, chat, number, created_at, folded, shown)
            yield Target(f"{of}:{number}", str(application), first_version + revision), document


def _messages(entries: Sequence[Entry]) -> Iterator[tuple[int, Sequence[Message]]]:
    """What they say of messages, together with what is to be added to the revisions of these."""
    singles = entries
    if isinstance(entries, Batch):
        singles = entries.singles
        for flush in entries.flushes:
            yield _first_version(flush.prefix), flush.messages
    for entry in singles:
        state = entry.message
        kind, at = (POST, state.created_at) if state.updated_at is None else (EDIT, state.updated_at)
        head = (kind, entry.application, entry.chat, state.number, state.revision, at)
        yield _first_version(entry.position), [(head, (state.sender, state.body, state.metadata, state.created_at))]


def _first_version(position: str) -> int:
    """Of the epoch of its partition that a position belongs to."""
    return _of_life(position.partition("-")[0])


@lru_cache(maxsize=1024)
def _of_life(life: str) -> int:
    """Of an epoch of a partition, which a position begins with: "0/12-5/3"."""
    return int(life.partition("/")[2] or 0) << REVISION_BITS
