"""Applying facts to MySQL: a batch is one transaction of a few multi-row upserts.

While MySQL is at one statement the next is made. What was posted comes and goes by columns (`batches`, `values`).

Whatever the order in which facts come, and however often, the tables end up the same: of a message the highest
revision wins, of a chat's own fields the highest version, of its count the latest revision, of an idempotency key
the first. A chat's count may come before the chat itself; its row then waits with version 0, which readers pass over.

Refused are facts of an epoch of the journal that is over, whose numbers may have been given again, and facts of
applications that were erased. The primary keys are the back-stop: two facts that were given one number are never
made into one message; the batch fails, and the projector sets the fact aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import itemgetter

from chat_system.model import ApplicationId, ChatChanged, ChatCounted, Fact, KeyUsed, MessageChanged
from chat_system.ports import Entry
from chat_system.stack import facts, rows, values
from chat_system.stack.batches import Batch, Message
from chat_system.stack.mysql import Database, Transaction
from chat_system.stack.rows import MESSAGE_COLUMNS, RECEIPT_COLUMNS
from chat_system.stack.values import MARK, ROWS_AT_ONCE, Row
from chat_system.telemetry import APPLIED, BACKSTOP_HITS, DROPPED, log

COMPARED_AT_ONCE = 500
"""How many rows are read back in one query to be compared with what was to be stored."""

_POSTED_COLUMNS = "application_id, chat_number, number, revision, sender, body, created_at"
# Most have no metadata; what is not named costs the server nothing.
_POSTED = f"INSERT INTO messages ({_POSTED_COLUMNS}) VALUES ".encode()
_POSTED_METADATA = f"INSERT INTO messages ({_POSTED_COLUMNS}, metadata) VALUES ".encode()
_MESSAGES = f"INSERT INTO messages (application_id, chat_number, {MESSAGE_COLUMNS}) VALUES ".encode()
# A message that was never changed is its number's first state: what has the number already is the same, or later.
_KEEP = b" ON DUPLICATE KEY UPDATE number = messages.number"
# Assignments are made from left to right, so what decides comes last. VALUES() is deprecated in MySQL, but what
# replaces it does not exist in MariaDB. Sender and creation never change; a difference there is found afterwards.
_LATEST_MESSAGE = b""" ON DUPLICATE KEY UPDATE
    body = IF(VALUES(revision) > revision, VALUES(body), body),
    metadata = IF(VALUES(revision) > revision, VALUES(metadata), metadata),
    updated_at = IF(VALUES(revision) > revision, VALUES(updated_at), updated_at),
    deleted_at = IF(VALUES(revision) > revision, VALUES(deleted_at), deleted_at),
    revision = GREATEST(VALUES(revision), revision)"""
_CHATS = b"INSERT INTO chats (application_id, number, version, title, metadata, created_at, updated_at) VALUES "
_LATEST_CHAT = b""" ON DUPLICATE KEY UPDATE
    title = IF(VALUES(version) > version, VALUES(title), title),
    metadata = IF(VALUES(version) > version, VALUES(metadata), metadata),
    created_at = IF(version = 0, VALUES(created_at), created_at),
    updated_at = IF(VALUES(version) > version, VALUES(updated_at), updated_at),
    version = GREATEST(VALUES(version), version)"""
_COUNTS = b"INSERT INTO chats (application_id, number, revision, messages_count) VALUES "
_LATEST_COUNT = b""" ON DUPLICATE KEY UPDATE
    messages_count = IF(VALUES(revision) > revision, VALUES(messages_count), messages_count),
    revision = GREATEST(VALUES(revision), revision)"""
_RECEIPTS = f"INSERT INTO receipts ({RECEIPT_COLUMNS}) VALUES "
# The first wins, unless it had expired when the key was used again; the sweep may not have come by yet.
_FIRST_RECEIPT = """ ON DUPLICATE KEY UPDATE
    fingerprint = IF(expires_at <= VALUES(created_at), VALUES(fingerprint), fingerprint),
    number = IF(expires_at <= VALUES(created_at), VALUES(number), number),
    revision = IF(expires_at <= VALUES(created_at), VALUES(revision), revision),
    count = IF(expires_at <= VALUES(created_at), VALUES(count), count),
    created_at = IF(expires_at <= VALUES(created_at), VALUES(created_at), created_at),
    expires_at = IF(expires_at <= VALUES(created_at), VALUES(expires_at), expires_at)"""

MessageKey = tuple[ApplicationId, int, int]
ChatKey = tuple[ApplicationId, int]


APPLICATION, CHAT, NUMBER = 1, 2, 3
"""Where a row has its primary key, behind the mark."""

METADATA = 8
"""Where a row of what was posted has its metadata."""


class NumberTakenTwice(Exception):
    """Two different facts carry one number. It must never happen: see the metric `chat_backstop_hits`."""

    def __init__(self, where: str) -> None:
        super().__init__(f"two facts carry the same number: {where}")
        BACKSTOP_HITS.inc()


class Facts:
    """The facts of a batch by what they are about: of each the one that counts.

    Of what was posted and has not changed since there may be two facts: MySQL then says that one was not inserted.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._columns: Sequence[Message] = ()
        self.messages: dict[MessageKey, MessageChanged] = {}
        self.chats: dict[ChatKey, ChatChanged] = {}
        self.counts: dict[ChatKey, ChatCounted] = {}
        self.keys: dict[tuple[ApplicationId, bytes], KeyUsed] = {}
        if isinstance(entries, Batch):
            self._add_columns(entries)
            entries = entries.others
        for entry in entries:
            fact = entry.fact
            if type(fact) is MessageChanged:
                self._add_message((entry.application, entry.chat, fact.number), fact)
            else:
                self._add_other(entry.application, entry.chat, fact)

    def posted(self) -> Iterator[tuple[bytes, list[Row]]]:
        """What was posted and has not changed since, as heads of statements with their rows.

        A piece is made when it is asked for: the server is at the one before meanwhile. Within it rows are in the order
        of the primary key: the server writes page after page, and two workers wait rather than deadlock.
        """
        for start in range(0, len(self._columns), ROWS_AT_ONCE):
            yield from _pieces(_posted_rows(self._columns[start : start + ROWS_AT_ONCE]))
        yield from _pieces(
            (MARK, *key, fact.revision, fact.sender, fact.body, fact.created_at, _text(fact.metadata))
            for key, fact in self.messages.items()
            if fact.updated_at is None
        )

    @property
    def changed(self) -> list[tuple[MessageKey, MessageChanged]]:
        """The messages that were edited or deleted, in the order of the primary key."""
        return sorted(item for item in self.messages.items() if item[1].updated_at is not None)

    def _add_columns(self, batch: Batch) -> None:
        messages = batch.messages
        if any(kind != facts.POST for kind in set(map(itemgetter(0), batch.heads))):
            for head, said in messages:
                if head[0] != facts.POST:
                    [fact] = facts.Run(facts.Head(*head), [facts.MessageContent(*said)]).changed()
                    self._add_message((head[1], head[2], head[3]), fact)
            messages = [message for message in messages if message[0][0] == facts.POST]
        self._columns = messages
        for (_, application, chat, _, revision, count), _ in batch.counts:
            known = self.counts.get((application, chat))
            if known is None or revision >= known.revision:
                self.counts[application, chat] = ChatCounted(revision, count)

    def _add_message(self, key: MessageKey, fact: MessageChanged) -> None:
        known = self.messages.setdefault(key, fact)
        if known is not fact:
            _require_agreement(key, known, fact)
            if fact.revision > known.revision:
                self.messages[key] = fact

    def _add_other(self, application: ApplicationId, chat: int, fact: Fact) -> None:
        place = application, chat
        if isinstance(fact, ChatChanged):
            known = self.chats.setdefault(place, fact)
            if known.created_at != fact.created_at:
                raise NumberTakenTwice(f"application {application}, chat {chat}")
            if fact.version > known.version:
                self.chats[place] = fact
        elif isinstance(fact, ChatCounted):
            if fact.revision >= self.counts.setdefault(place, fact).revision:
                self.counts[place] = fact
        elif isinstance(fact, KeyUsed):
            self.keys.setdefault((application, fact.once.key), fact)


async def apply(database: Database, entries: Sequence[Entry]) -> None:
    """Apply a batch, durably, or nothing of it.

    Raises:
        Unavailable: MySQL is away or busy; nothing is lost by trying again.
        NumberTakenTwice: see there.
        asyncmy.errors.MySQLError: it can't store one of the facts.
    """

    async def unit(transaction: Transaction) -> tuple[int, int]:
        current = await _of_this_epoch(transaction, entries)
        wanted = await _without_the_erased(transaction, current) if current else current
        facts = Facts(wanted)
        for statement in (_store_messages, _store_chats, _store_counts, _store_keys):
            await statement(transaction, database.statement_max_bytes, facts)
        return len(current), len(wanted)

    # Counted when it is committed: a deadlock runs the unit again.
    current, applied = await database.commit(unit)
    APPLIED.inc(applied)
    DROPPED.labels("epoch").inc(len(entries) - current)
    DROPPED.labels("erased").inc(current - applied)


async def _of_this_epoch(transaction: Transaction, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Without what an earlier life of the journal recorded. Holds the epochs still until the commit."""
    # A position is "<partition>/<epoch>-<sequence>/<index>".
    positions = entries.positions() if isinstance(entries, Batch) else (entry.position for entry in entries)
    lives = {life: tuple(map(int, life.split("/"))) for life in {position.split("-", 1)[0] for position in positions}}
    partitions = sorted({partition for partition, _ in lives.values()})
    current = await _lock_epochs(transaction, partitions)
    if len(current) < len(partitions):
        # A row that is missing could not be held still.
        values = ", ".join(f"({partition}, 0)" for partition in partitions)
        await transaction.execute(f"INSERT INTO journal_epochs VALUES {values} ON DUPLICATE KEY UPDATE epoch = epoch")
        current = await _lock_epochs(transaction, partitions)
    over = {life for life, (partition, epoch) in lives.items() if epoch < current[partition]}
    if not over:
        return entries
    kept = [entry for entry in entries if entry.position.split("-", 1)[0] not in over]
    log.error("facts of a lost journal dropped", entries=len(entries) - len(kept), positions=sorted(over))
    return kept


async def _lock_epochs(transaction: Transaction, partitions: Sequence[int]) -> dict[int, int]:
    found = await transaction.fetch(
        "SELECT partition_id, epoch FROM journal_epochs"
        f" WHERE partition_id IN ({_listed(partitions)}) LOCK IN SHARE MODE"
    )
    return dict(found)


async def _without_the_erased(transaction: Transaction, entries: Sequence[Entry]) -> Sequence[Entry]:
    applications = entries.applications() if isinstance(entries, Batch) else {entry.application for entry in entries}
    found = await transaction.fetch(
        f"SELECT id FROM applications WHERE id IN ({_listed(applications)}) AND erased_at IS NULL"
    )
    if len(found) == len(applications):
        return entries
    present = {row[0] for row in found}
    return [entry for entry in entries if entry.application in present]


async def _store_messages(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    posted = 0

    def statements() -> Iterator[bytes]:
        nonlocal posted
        for head, piece in facts.posted():
            posted += len(piece)
            yield from values.statements(head, piece, _KEEP, max_bytes)

    inserted = await transaction.execute_each(statements())
    if inserted < posted:
        await _compare_messages(transaction, [_unposted(row) for _, piece in facts.posted() for row in piece])
    changed = facts.changed
    if changed:
        await _insert(transaction, max_bytes, _MESSAGES, [_changed(*item) for item in changed], _LATEST_MESSAGE)
        await _compare_messages(transaction, changed)


def _posted_rows(messages: Sequence[Message]) -> Iterator[Row]:
    """Rows of _POSTED_METADATA, by columns."""
    heads, said = zip(*messages, strict=True)
    _, applications, chats, numbers, revisions, times = zip(*heads, strict=True)
    senders, bodies, metadata, created = zip(*said, strict=True)
    if created.count(None) < len(created):
        times = tuple(at if own is None else own for at, own in zip(times, created, strict=True))
    columns = [repeat(MARK), applications, chats, numbers, revisions, senders, bodies, times]
    if metadata.count(None) < len(metadata):
        columns.append(map(_text, metadata))
    return zip(*columns, strict=False)


def _pieces(rows: Iterable[Row]) -> Iterator[tuple[bytes, list[Row]]]:
    """The rows of _POSTED, which may end with a metadata of None, and those of _POSTED_METADATA."""
    in_order = sorted(rows, key=itemgetter(NUMBER))
    # By one column after the other, which is faster than by all at once.
    in_order.sort(key=itemgetter(CHAT))
    in_order.sort(key=itemgetter(APPLICATION))
    if in_order and len(in_order[0]) > METADATA:
        plain = [row[:METADATA] for row in in_order if row[METADATA] is None]
        described = [row for row in in_order if row[METADATA] is not None]
    else:
        plain, described = in_order, []
    if plain:
        yield _POSTED, plain
    if described:
        yield _POSTED_METADATA, described


def _unposted(row: Row) -> tuple[MessageKey, MessageChanged]:
    """What a row of _POSTED or _POSTED_METADATA was made of."""
    _, application, chat, number, revision, sender, body, created_at, *metadata = row
    encoded = metadata[0].encode() if metadata else None
    return (application, chat, number), MessageChanged(number, revision, sender, body, encoded, created_at)


def _changed(key: MessageKey, fact: MessageChanged) -> Row:
    """A row of _MESSAGES."""
    return (
        *(MARK, *key, fact.revision, fact.sender, fact.body, _text(fact.metadata)),
        *(fact.created_at, fact.updated_at, fact.deleted_at),
    )


async def _compare_messages(transaction: Transaction, items: Sequence[tuple[MessageKey, MessageChanged]]) -> None:
    """What is stored now must be what was to be stored, or a later state of the same message."""
    for start in range(0, len(items), COMPARED_AT_ONCE):
        part = items[start : start + COMPARED_AT_ONCE]
        numbers: dict[ChatKey, list[int]] = {}
        for (application, chat, number), _ in part:
            numbers.setdefault((application, chat), []).append(number)
        where = " OR ".join(
            f"(application_id = {application} AND chat_number = {chat} AND number IN ({_listed(listed)}))"
            for (application, chat), listed in numbers.items()
        )
        found = await transaction.fetch(
            f"SELECT application_id, chat_number, {MESSAGE_COLUMNS} FROM messages WHERE {where}"
        )
        stored = {row[:3]: rows.changed(row[2:]) for row in found}
        for key, fact in part:
            _require_agreement(key, stored[key], fact)


async def _store_chats(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    if not facts.chats:
        return
    in_order = sorted(facts.chats.items())
    inserted = await _insert(transaction, max_bytes, _CHATS, [_chat(*item) for item in in_order], _LATEST_CHAT)
    if inserted != len(in_order):
        await _compare_chats(transaction, in_order)
    # Chats are numbered without gaps and never removed one by one: the count is the last number.
    last: dict[ApplicationId, int] = {}
    for (application, chat), _ in in_order:
        last[application] = max(last.get(application, 0), chat)
    cases = " ".join(f"WHEN {application} THEN {chat}" for application, chat in last.items())
    await transaction.execute(
        f"UPDATE applications SET chats_count = GREATEST(chats_count, CASE id {cases} END)"
        f" WHERE id IN ({_listed(last)})"
    )


def _chat(key: ChatKey, fact: ChatChanged) -> Row:
    """A row of _CHATS."""
    return MARK, *key, fact.version, fact.title, _text(fact.metadata), fact.created_at, fact.updated_at


async def _compare_chats(transaction: Transaction, items: Sequence[tuple[ChatKey, ChatChanged]]) -> None:
    for start in range(0, len(items), COMPARED_AT_ONCE):
        part = dict(items[start : start + COMPARED_AT_ONCE])
        where = " OR ".join(f"(application_id = {application} AND number = {chat})" for application, chat in part)
        found = await transaction.fetch(f"SELECT application_id, number, created_at FROM chats WHERE {where}")
        for application, chat, created_at in found:
            if created_at != part[application, chat].created_at:
                raise NumberTakenTwice(f"application {application}, chat {chat}")


async def _store_counts(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    counted = [(MARK, *key, fact.revision, fact.messages_count) for key, fact in sorted(facts.counts.items())]
    await _insert(transaction, max_bytes, _COUNTS, counted, _LATEST_COUNT)


async def _store_keys(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    used = map(receipt_values, sorted(facts.keys.items()))
    parts = _parts(used, max_bytes - len(_RECEIPTS) - len(_FIRST_RECEIPT))
    await transaction.execute_each(f"{_RECEIPTS}{part}{_FIRST_RECEIPT}".encode() for part in parts)


def receipt_values(item: tuple[tuple[ApplicationId, bytes], KeyUsed]) -> str:
    """A row of RECEIPT_COLUMNS."""
    (application, key), fact = item
    receipt = fact.receipt
    return (
        f"({application},0x{key.hex()},0x{fact.once.fingerprint.hex()},{receipt.number},{receipt.revision},"
        f"{receipt.count},{receipt.at},{_number(fact.expires_at)})"
    )


async def _insert(transaction: Transaction, max_bytes: int, head: bytes, rows: Sequence[Row], tail: bytes) -> int:
    """Insert rows, in as few statements as is good; the number of rows that the server says it changed."""
    return await transaction.execute_each(values.statements(head, rows, tail, max_bytes))


def _parts(written: Iterable[str], max_bytes: int) -> Iterator[str]:
    """Rows of ASCII, joined into pieces that are short enough; a row that is not comes alone."""
    waiting: list[str] = []
    size = 0
    for row in written:
        if waiting and size + len(row) + 1 > max_bytes:
            yield ",".join(waiting)
            waiting, size = [], 0
        waiting.append(row)
        size += len(row) + 1
    if waiting:
        yield ",".join(waiting)


_NULL = "NULL"


def _text(metadata: bytes | None) -> str | None:
    return None if metadata is None else metadata.decode()


def _number(value: int | None) -> str | int:
    return _NULL if value is None else value


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _require_agreement(key: MessageKey, one: MessageChanged, other: MessageChanged) -> None:
    """Raise NumberTakenTwice unless both are states of one message."""
    earlier, later = (one, other) if one.revision <= other.revision else (other, one)
    if earlier.revision == later.revision:
        agree = earlier == later
    else:
        # What no change changes; and the later one must be a change.
        agree = later.updated_at is not None and (earlier.sender, earlier.created_at) == (
            later.sender,
            later.created_at,
        )
    if not agree:
        raise NumberTakenTwice(f"application {key[0]}, chat {key[1]}, message {key[2]}")
