"""The journal in the SQLite file: numbering and recording are one transaction, and so is applying.

Counters live in memory and are seeded from the rows; a transaction that fails forgets them. Since a fact is
applied in the transaction that records it, the store projection never has a backlog; what the search projection has to
read is kept in `unindexed`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from chat_system import telemetry
from chat_system.embedded import unindexed
from chat_system.embedded.database import ABSENT, Database, Insert, Transaction
from chat_system.embedded.rows import NUMBER_MASK, message_id
from chat_system.errors import Conflict, IdempotencyMismatch, NotFound, Stale
from chat_system.model import (
    ApplicationId,
    Change,
    ChangeChat,
    DeleteMessage,
    EditMessage,
    MessageNamed,
    Once,
    OpenChat,
    PostMessages,
    Receipt,
    encode_metadata,
    fold,
    same_metadata,
)
from chat_system.ports import Backlog, Entry, Projection, SetAside

COUNTERS_MAX = 100_000
"""How many chats' counters are kept in memory; beyond it all are forgotten and seeded again as needed."""

QUEUE_MAX_MESSAGES = 100_000
"""How many messages may wait for the index while others are being posted. A search reads them in about 30 ms."""

QUIET_S = 0.25
"""How long no one must have posted for the index to be brought up to date."""

HELD_MAX_S = 5.0
"""How long the index is held back at most, however busy they are."""

READ_WHILE_BUSY = 200
"""How many messages are indexed at once while others post: for half a millisecond to two nobody else can write."""

NEXT_CHAT_EVERY = 8
"""How many reads for the index go by key to one that goes by chat."""

ROW_BYTES = 200
"""About what a message costs beside its text, for deciding where a transaction runs."""

_MESSAGES = Insert(
    "messages (id, application_id, revision, sender, body, folded, metadata, created_at)",
    nullable=("sender", "folded", "metadata"),
)
_RECEIPTS = Insert(
    "receipts (application_id, once, fingerprint, number, revision, count, created_at, expires_at)", or_else="REPLACE"
)
_UPDATE_CHAT = "UPDATE chats SET messages_count = ?, revision = ? WHERE id = ?"
_FIND_RECEIPT = """
    SELECT fingerprint, number, revision, created_at, count FROM receipts
    WHERE application_id = ? AND once = ? AND (expires_at IS NULL OR expires_at > ?)"""
_FIND_CHAT = """
    SELECT chats.id, messages_count FROM chats JOIN applications ON applications.id = application_id
    WHERE application_id = ? AND number = ? AND erased_at IS NULL"""
# The last message has the highest revision of all creations. The plus takes the column's type off the comparison; with
# it, SQLite would read the whole index instead of one chat of it.
_FIND_LAST = """
    SELECT id, max(coalesce(first_revision, revision), coalesce((
        SELECT max(revision) FROM messages WHERE id >> 32 = +last.id >> 32 AND first_revision IS NOT NULL), 0))
    FROM messages last WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"""
_FIND_MESSAGE = """
    SELECT revision, body, folded, created_at, deleted_at FROM messages WHERE id = ?"""


class ChatCounters:
    """What the next message of a chat needs to know."""

    __slots__ = ("application", "chat_id", "chat_number", "last", "messages_count", "revision")

    def __init__(
        self, application: ApplicationId, number: int, chat_id: int, last: int, revision: int, messages_count: int
    ) -> None:
        self.application = application
        self.chat_number = number
        self.chat_id = chat_id
        self.last = last
        self.revision = revision
        self.messages_count = messages_count


class EmbeddedJournal:
    """Records changes. The feed is told after each commit."""

    def __init__(self, database: Database, announce: Any) -> None:
        self._database = database
        self._announce = announce
        self._chats: dict[tuple[ApplicationId, int], ChatCounters] = {}
        self._last_chat: dict[ApplicationId, int] = {}
        self._queued = asyncio.Event()
        self._queued.set()
        self._posted = 0
        self._requeued = 0
        self._queued_messages = 0
        self._queued_at = 0.0
        self._read_at = time.monotonic()
        self._cursor = self._chat_cursor = 0
        self._reads = 0
        self._records: dict[type[Change], Callable[[ApplicationId, Any, Transaction], Receipt]] = {
            PostMessages: self._post,
            EditMessage: self._edit,
            DeleteMessage: self._delete,
            OpenChat: self._open,
            ChangeChat: self._change_chat,
        }
        database.on_rollback.append(self._rolled_back)

    def forget(self) -> None:
        """Drop all counters: the rows are the truth, and may differ after a failed transaction."""
        self._chats.clear()
        self._last_chat.clear()

    def _rolled_back(self) -> None:
        self._posted = self._requeued = 0
        self.forget()

    def append(self, application: ApplicationId, change: Change, *, once: Once | None = None) -> Awaitable[Receipt]:
        """See `ports.Journal.append`."""
        unit = partial(self._records[type(change)], application, change)
        if once is not None:
            unit = partial(_record_once, application, once, unit)
        return self._database.write(unit, size=_size(change))

    async def receipt(self, application: ApplicationId, once: Once) -> Receipt | None:
        """See `ports.Journal.receipt`."""
        found = self._database.read(_FIND_RECEIPT, (application, once.key, time.time_ns() // 1_000_000))
        if not found:
            return None
        _, number, revision, at, count = found[0]
        return Receipt(number, revision, at, count, replayed=True)

    def _post(self, application: ApplicationId, change: PostMessages, transaction: Transaction) -> Receipt:
        chat = self._chats.get((application, change.chat)) or self._counters(transaction, application, change.chat)
        at, key, revision = transaction.at, message_id(chat.chat_id, chat.last), chat.revision
        receipt = Receipt(chat.last + 1, revision + 1, at, len(change.messages))
        rows = []
        for index, new in enumerate(change.messages):
            key += 1
            revision += 1
            body = new.body
            folded = fold(body)
            rows.append(
                (
                    key,
                    application,
                    revision,
                    ABSENT if new.sender is None else new.sender,
                    body,
                    ABSENT if folded == body else folded,
                    ABSENT if new.metadata is None else encode_metadata(new.metadata),
                    at if change.sent_at is None else change.sent_at[index],
                )
            )
        transaction.rows_of(_MESSAGES).extend(rows)
        if chat not in transaction.posted_to:
            transaction.posted_to.add(chat)
            transaction.rows_of(unindexed.FALL_BEHIND).append((chat.chat_id, chat.last, at))
            self._touch(transaction, chat)
        chat.last += receipt.count
        chat.revision = revision
        chat.messages_count += receipt.count
        self._posted += receipt.count
        return receipt

    def _edit(self, application: ApplicationId, change: EditMessage, transaction: Transaction) -> Receipt:
        chat = self._counters(transaction, application, change.chat)
        key = _key(chat, change.number)
        revision, body, folded, created_at, deleted_at = _find_message(transaction, key)
        if deleted_at is not None:
            raise Conflict("A deleted message can't be edited.")
        if revision != change.based_on:
            raise Stale
        chat.revision += 1
        at = _later(transaction.at, created_at)
        indexed = folded or body
        now = fold(change.body)
        transaction.execute(
            "UPDATE messages SET first_revision = coalesce(first_revision, revision), revision = ?, body = ?,"
            " folded = ?, metadata = ?, updated_at = ? WHERE id = ?",
            (chat.revision, change.body, None if now == change.body else now, change.metadata, at, key),
        )
        if now != indexed:
            self._unindex(transaction, key, indexed)
        self._touch(transaction, chat)
        return Receipt(change.number, chat.revision, at)

    def _delete(self, application: ApplicationId, change: DeleteMessage, transaction: Transaction) -> Receipt:
        chat = self._counters(transaction, application, change.chat)
        key = _key(chat, change.number)
        revision, body, folded, created_at, deleted_at = _find_message(transaction, key)
        if deleted_at is not None:
            return Receipt(change.number, revision, deleted_at)
        chat.revision += 1
        chat.messages_count -= 1
        at = _later(transaction.at, created_at)
        transaction.execute(
            "UPDATE messages SET first_revision = coalesce(first_revision, revision), revision = ?, body = NULL,"
            " folded = NULL, metadata = NULL, updated_at = ?, deleted_at = ? WHERE id = ?",
            (chat.revision, at, at, key),
        )
        self._unindex(transaction, key, folded or body)
        self._touch(transaction, chat)
        return Receipt(change.number, chat.revision, at)

    def _open(self, application: ApplicationId, change: OpenChat, transaction: Transaction) -> Receipt:
        last = self._last_chat.get(application)
        if last is None:
            row = transaction.execute(
                "SELECT (SELECT max(number) FROM chats WHERE application_id = applications.id) FROM applications"
                " WHERE id = ? AND erased_at IS NULL",
                (application,),
            ).fetchone()
            if row is None:
                raise NotFound
            last = row[0] or 0
        number = last + 1
        at = transaction.at
        transaction.stage(
            "INSERT INTO chats (application_id, number, title, metadata, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(application, number, change.chat.title, encode_metadata(change.chat.metadata), at, at)],
        )
        self._last_chat[application] = number
        transaction.after_commit["opened"] = self._opened
        # The count is the last number: chats are numbered without gaps and are never removed one by one.
        transaction.before_commit["chats_count", application] = lambda transaction: transaction.stage(
            "UPDATE applications SET chats_count = ? WHERE id = ?", [(self._last_chat[application], application)]
        )
        return Receipt(number, 0, at)

    def _opened(self) -> None:
        if len(self._last_chat) > COUNTERS_MAX:
            self._last_chat.clear()

    def _change_chat(self, application: ApplicationId, change: ChangeChat, transaction: Transaction) -> Receipt:
        chat = self._counters(transaction, application, change.chat)
        title, metadata, updated_at = transaction.execute(
            "SELECT title, metadata, updated_at FROM chats WHERE id = ?", (chat.chat_id,)
        ).fetchone()
        new_title = change.edit.title if isinstance(change.edit.title, str | None) else title
        new_metadata = (
            encode_metadata(change.edit.metadata) if isinstance(change.edit.metadata, dict | None) else metadata
        )
        if new_title != title or not same_metadata(new_metadata, metadata):
            transaction.execute(
                "UPDATE chats SET title = ?, metadata = ?, updated_at = ? WHERE id = ?",
                # The clock may have been set back.
                (new_title, new_metadata, max(transaction.at, updated_at), chat.chat_id),
            )
        return Receipt(change.chat, chat.revision, transaction.at)

    def _counters(self, transaction: Transaction, application: ApplicationId, number: int) -> ChatCounters:
        chat = self._chats.get((application, number))
        if chat is None:
            row = transaction.execute(_FIND_CHAT, (application, number)).fetchone()
            if row is None:
                raise NotFound
            chat_id, messages_count = row
            found = transaction.execute(_FIND_LAST, (message_id(chat_id, 0), message_id(chat_id, NUMBER_MASK)))
            last_id, revision = found.fetchone() or (0, 0)
            chat = self._chats[application, number] = ChatCounters(
                application, number, chat_id, last_id & NUMBER_MASK, revision, messages_count
            )
        return chat

    def _touch(self, transaction: Transaction, chat: ChatCounters) -> None:
        if self not in transaction.before_commit:
            # Anew when counts were written in between: whoever did that has forgotten these counters.
            touched = transaction.touched = set()
            transaction.before_commit[self] = partial(_store_counts, touched)
            transaction.after_commit["touched", id(touched)] = partial(self._announce_each, touched)
            transaction.after_commit[self] = self._committed
        transaction.touched.add(chat)

    def _unindex(self, transaction: Transaction, key: int, indexed_as: str | None) -> None:
        unindexed.change(transaction, key, indexed_as)
        self._requeued += 1

    def _announce_each(self, chats: set[ChatCounters]) -> None:
        for chat in chats:
            self._announce(chat.application, chat.chat_number)

    def _committed(self) -> None:
        telemetry.ACCEPTED.inc(self._posted)
        self._queued_messages += self._posted + self._requeued
        self._posted = self._requeued = 0
        self._queued_at = time.monotonic()
        self._queued.set()
        # Only between transactions: one that is under way still needs its counters.
        if len(self._chats) > COUNTERS_MAX:
            self._chats.clear()

    # Projections

    async def read(self, projection: Projection, limit: int) -> Sequence[Entry]:
        """See `ports.Journal.read`."""
        if projection == "store":
            return []
        self._read_at = time.monotonic()
        if self._read_at - self._queued_at < QUIET_S:
            limit = min(limit, READ_WHILE_BUSY)
        rows = self._database.query(lambda connection: self._read_on(connection, limit))
        if rows:
            self._queued_messages = max(0, self._queued_messages - len(rows))
        else:
            self._queued.clear()
            self._queued_messages = 0
        return [Entry(str(key), application, chat, MessageNamed(key & NUMBER_MASK)) for key, application, chat in rows]

    def _read_on(self, connection: sqlite3.Connection, limit: int) -> list[Any]:
        """What comes after the last read, and then from the start again.

        Some reads go on with the next chat: one in which more is posted than reads take would starve the others.
        """
        self._reads += 1
        by_chat = self._reads % NEXT_CHAT_EVERY == 0
        after = self._chat_cursor if by_chat else self._cursor
        rows = last = unindexed.read(connection, after, limit)
        if len(rows) < limit and after:
            last = [row for row in unindexed.read(connection, 0, limit - len(rows)) if row[0] <= after]
            rows = last + rows
        end = last[-1][0] if last else 0
        if by_chat:
            self._chat_cursor = end | NUMBER_MASK if end else 0
        else:
            self._cursor = end
        return rows

    async def acknowledge(self, projection: Projection, entries: Sequence[Entry]) -> None:
        """Nothing is left to do: the search index took the entries out in the transaction that applied them."""

    async def set_aside(self, projection: Projection, entry: Entry, error: str) -> None:
        """It stays named, so that searches go on reading the message itself; `read` passes it over."""
        await self._database.write(lambda transaction: unindexed.set_aside(transaction, int(entry.position), error))

    async def asides(self) -> Sequence[SetAside]:
        """See `ports.Journal.asides`."""
        return [
            SetAside("search", str(key), f"application {application}, chat {chat}, message {key & NUMBER_MASK}", error)
            for key, application, chat, error in await self._database.scan(unindexed.asides)
        ]

    async def retry(self, projection: Projection) -> int:
        """See `ports.Journal.retry`."""
        if projection == "store":
            return 0
        count: int = await self._database.write(unindexed.retry)
        self._queued.set()
        return count

    async def ping(self) -> None:
        """Journal and store are one file: see the store's."""

    async def backlog(self, projection: Projection) -> Backlog:
        """See `ports.Journal.backlog`."""
        if projection == "store":
            return Backlog(0, 0.0, 0)
        return await self._database.scan(unindexed.backlog)

    async def wait(self, projection: Projection) -> None:
        """See `ports.Journal.wait`."""
        if projection == "store":
            await asyncio.Event().wait()
        await self._queued.wait()
        # Searches read what is queued, so the index is in no hurry: it leaves the disk to those who post, until they
        # pause, or for some seconds, or the queue costs a search more than the index would.
        while self._queued_messages < QUEUE_MAX_MESSAGES:
            now = time.monotonic()
            if now - self._queued_at >= QUIET_S or now - self._read_at >= HELD_MAX_S:
                return
            await asyncio.sleep(QUIET_S)


def _store_counts(chats: set[ChatCounters], transaction: Transaction) -> None:
    transaction.stage(_UPDATE_CHAT, [(chat.messages_count, chat.revision, chat.chat_id) for chat in chats])


def _record_once(
    application: ApplicationId, once: Once, record: Callable[[Transaction], Receipt], transaction: Transaction
) -> Receipt:
    """Record, unless it was recorded with this key before."""
    first = repeat(transaction, application, once)
    if first is not None:
        _require_application(transaction, application)
        return first
    receipt = record(transaction)
    remember(transaction, application, once, receipt)
    return receipt


def repeat(transaction: Transaction, application: int, once: Once) -> Receipt | None:
    """The receipt of the first request with this key, or None when this is the first.

    Raises:
        IdempotencyMismatch: it had another payload.
    """
    found = transaction.memory.get((application, once.key))
    if found is None:
        row = transaction.lookup(_FIND_RECEIPT, (application, once.key, transaction.at))
        if row is None:
            return None
        fingerprint, number, revision, at, count = row
        found = (fingerprint, Receipt(number, revision, at, count, replayed=True))
    fingerprint, receipt = found
    if fingerprint != once.fingerprint:
        raise IdempotencyMismatch("The idempotency key was used with another payload.")
    first: Receipt = receipt
    return first


def remember(transaction: Transaction, application: int, once: Once, receipt: Receipt) -> None:
    """Keep the receipt, in the transaction that it is for."""
    replayed = Receipt(receipt.number, receipt.revision, receipt.at, receipt.count, replayed=True)
    transaction.memory[application, once.key] = (once.fingerprint, replayed)
    expires_at = None if once.kept_s is None else transaction.at + once.kept_s * 1000
    transaction.rows_of(_RECEIPTS).append(
        (
            application,
            once.key,
            once.fingerprint,
            receipt.number,
            receipt.revision,
            receipt.count,
            receipt.at,
            expires_at,
        )
    )


def _key(chat: ChatCounters, number: int) -> int:
    """The key of a message that may exist. Beyond the last number, keys are those of another chat."""
    if not 1 <= number <= chat.last:
        raise NotFound
    return message_id(chat.chat_id, number)


def _find_message(transaction: Transaction, key: int) -> Any:
    row = transaction.execute(_FIND_MESSAGE, (key,)).fetchone()
    if row is None:
        raise NotFound
    return row


def _later(at: int, created_at: int) -> int:
    """The time of a change: never that of the creation, so that the two differ exactly when there was a change."""
    return max(at, created_at + 1)


def _require_application(transaction: Transaction, application: ApplicationId) -> None:
    if transaction.lookup("SELECT 1 FROM applications WHERE id = ? AND erased_at IS NULL", (application,)) is None:
        raise NotFound


def _size(change: Change) -> int:
    """About how many bytes the change writes."""
    if type(change) is not PostMessages:
        return 4 * ROW_BYTES
    size = 0
    for new in change.messages:
        size += ROW_BYTES + 2 * len(new.body)
    return size
