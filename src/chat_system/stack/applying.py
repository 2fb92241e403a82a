"""Applying facts to MySQL: a batch is one transaction of a few multi-row upserts.

Whatever the order in which facts come, and however often, the tables end up the same: of a message the highest
revision wins, of a chat's own fields the highest version, of its count the latest revision, of an idempotency key
the first. A chat's count may come before the chat itself; its row then waits with version 0, which readers pass over.

Refused are facts of an epoch of the journal that is over, whose numbers may have been given again, and facts of
applications that were erased. The primary keys are the back-stop: two facts that were given one number are never
made into one message; the batch fails, and the projector sets the fact aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from chat_system.model import ApplicationId, ChatChanged, ChatCounted, Fact, KeyUsed, MessageChanged
from chat_system.ports import Entry
from chat_system.stack import rows
from chat_system.stack.mysql import Database, Transaction
from chat_system.stack.rows import MESSAGE_COLUMNS, RECEIPT_COLUMNS
from chat_system.telemetry import APPLIED, BACKSTOP_HITS, DROPPED, log

COMPARED_AT_ONCE = 500
"""How many rows are read back in one query to be compared with what was to be stored."""

_MESSAGES = f"INSERT INTO messages (application_id, chat_number, {MESSAGE_COLUMNS}) VALUES "
# A message that was never changed is its number's first state: what has the number already is the same, or later.
_KEEP = " ON DUPLICATE KEY UPDATE number = messages.number"
# Assignments are made from left to right, so what decides comes last. VALUES() is deprecated in MySQL, but what
# replaces it does not exist in MariaDB. Sender and creation never change; a difference there is found afterwards.
_LATEST_MESSAGE = """ ON DUPLICATE KEY UPDATE
    body = IF(VALUES(revision) > revision, VALUES(body), body),
    metadata = IF(VALUES(revision) > revision, VALUES(metadata), metadata),
    updated_at = IF(VALUES(revision) > revision, VALUES(updated_at), updated_at),
    deleted_at = IF(VALUES(revision) > revision, VALUES(deleted_at), deleted_at),
    revision = GREATEST(VALUES(revision), revision)"""
_CHATS = "INSERT INTO chats (application_id, number, version, title, metadata, created_at, updated_at) VALUES "
_LATEST_CHAT = """ ON DUPLICATE KEY UPDATE
    title = IF(VALUES(version) > version, VALUES(title), title),
    metadata = IF(VALUES(version) > version, VALUES(metadata), metadata),
    created_at = IF(version = 0, VALUES(created_at), created_at),
    updated_at = IF(VALUES(version) > version, VALUES(updated_at), updated_at),
    version = GREATEST(VALUES(version), version)"""
_COUNTS = "INSERT INTO chats (application_id, number, revision, messages_count) VALUES "
_LATEST_COUNT = """ ON DUPLICATE KEY UPDATE
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


class NumberTakenTwice(Exception):
    """Two different facts carry one number. It must never happen: see the metric `chat_backstop_hits`."""

    def __init__(self, where: str) -> None:
        super().__init__(f"two facts carry the same number: {where}")
        BACKSTOP_HITS.inc()


class Facts:
    """The facts of a batch by what they are about: of each the one that counts."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.messages: dict[MessageKey, MessageChanged] = {}
        self.chats: dict[ChatKey, ChatChanged] = {}
        self.counts: dict[ChatKey, ChatCounted] = {}
        self.keys: dict[tuple[ApplicationId, bytes], KeyUsed] = {}
        for entry in entries:
            fact = entry.fact
            if type(fact) is MessageChanged:
                self._add_message((entry.application, entry.chat, fact.number), fact)
            else:
                self._add_other(entry.application, entry.chat, fact)

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
    lives = {life: tuple(map(int, life.split("/"))) for life in {entry.position.split("-", 1)[0] for entry in entries}}
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
    applications = {entry.application for entry in entries}
    found = await transaction.fetch(
        f"SELECT id FROM applications WHERE id IN ({_listed(applications)}) AND erased_at IS NULL"
    )
    if len(found) == len(applications):
        return entries
    present = {row[0] for row in found}
    return [entry for entry in entries if entry.application in present]


async def _store_messages(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    # In the order of the primary key: the server writes page after page, and two workers wait rather than deadlock.
    in_order = sorted(facts.messages.items())
    new = [item for item in in_order if item[1].updated_at is None]
    inserted = await _insert(transaction, max_bytes, _MESSAGES, _message_values(new), _KEEP)
    if inserted < len(new):
        await _compare_messages(transaction, new)
    changed = [item for item in in_order if item[1].updated_at is not None]
    if changed:
        await _insert(transaction, max_bytes, _MESSAGES, _message_values(changed), _LATEST_MESSAGE)
        await _compare_messages(transaction, changed)


def _message_values(items: Iterable[tuple[MessageKey, MessageChanged]]) -> Iterator[str]:
    # By hand: the driver's own formatting of a row takes several times as long.
    for (application, chat, number), fact in items:
        sender, body, metadata, updated_at, deleted_at = (
            fact.sender,
            fact.body,
            fact.metadata,
            fact.updated_at,
            fact.deleted_at,
        )
        yield (
            f"({application},{chat},{number},{fact.revision},"
            f"{_NULL if sender is None else _quoted(sender)},"
            f"{_NULL if body is None else _quoted(body)},"
            f"{_NULL if metadata is None else _quoted(metadata.decode())},"
            f"{fact.created_at},"
            f"{_NULL if updated_at is None else updated_at},"
            f"{_NULL if deleted_at is None else deleted_at})"
        )


async def _compare_messages(transaction: Transaction, items: Sequence[tuple[MessageKey, MessageChanged]]) -> None:
    """What is stored now must be what was to be stored, or a later state of the same message."""
    for start in range(0, len(items), COMPARED_AT_ONCE):
        part = dict(items[start : start + COMPARED_AT_ONCE])
        numbers: dict[ChatKey, list[int]] = {}
        for application, chat, number in part:
            numbers.setdefault((application, chat), []).append(number)
        where = " OR ".join(
            f"(application_id = {application} AND chat_number = {chat} AND number IN ({_listed(listed)}))"
            for (application, chat), listed in numbers.items()
        )
        found = await transaction.fetch(
            f"SELECT application_id, chat_number, {MESSAGE_COLUMNS} FROM messages WHERE {where}"
        )
        for application, chat, *row in found:
            stored = rows.changed(tuple(row))
            key = application, chat, stored.number
            _require_agreement(key, stored, part[key])


async def _store_chats(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    if not facts.chats:
        return
    in_order = sorted(facts.chats.items())
    inserted = await _insert(transaction, max_bytes, _CHATS, map(_chat_values, in_order), _LATEST_CHAT)
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


def _chat_values(item: tuple[ChatKey, ChatChanged]) -> str:
    (application, chat), fact = item
    title, metadata = fact.title, fact.metadata
    return (
        f"({application},{chat},{fact.version},"
        f"{_NULL if title is None else _quoted(title)},"
        f"{_NULL if metadata is None else _quoted(metadata.decode())},"
        f"{fact.created_at},{fact.updated_at})"
    )


async def _compare_chats(transaction: Transaction, items: Sequence[tuple[ChatKey, ChatChanged]]) -> None:
    for start in range(0, len(items), COMPARED_AT_ONCE):
        part = dict(items[start : start + COMPARED_AT_ONCE])
        where = " OR ".join(f"(application_id = {application} AND number = {chat})" for application, chat in part)
        found = await transaction.fetch(f"SELECT application_id, number, created_at FROM chats WHERE {where}")
        for application, chat, created_at in found:
            if created_at != part[application, chat].created_at:
                raise NumberTakenTwice(f"application {application}, chat {chat}")


async def _store_counts(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    values = (
        f"({application},{chat},{fact.revision},{fact.messages_count})"
        for (application, chat), fact in sorted(facts.counts.items())
    )
    await _insert(transaction, max_bytes, _COUNTS, values, _LATEST_COUNT)


async def _store_keys(transaction: Transaction, max_bytes: int, facts: Facts) -> None:
    await _insert(transaction, max_bytes, _RECEIPTS, map(receipt_values, sorted(facts.keys.items())), _FIRST_RECEIPT)


def receipt_values(item: tuple[tuple[ApplicationId, bytes], KeyUsed]) -> str:
    """A row of RECEIPT_COLUMNS."""
    (application, key), fact = item
    receipt = fact.receipt
    return (
        f"({application},0x{key.hex()},0x{fact.once.fingerprint.hex()},{receipt.number},{receipt.revision},"
        f"{receipt.count},{receipt.at},{_number(fact.expires_at)})"
    )


async def _insert(transaction: Transaction, max_bytes: int, head: str, values: Iterable[str], tail: str) -> int:
    """Insert rows, in as few statements as their length allows; the number of rows that the server says it changed."""
    return sum(
        [await transaction.execute(f"{head}{part}{tail}") for part in _parts(values, max_bytes - len(head) - len(tail))]
    )


def _parts(values: Iterable[str], max_bytes: int) -> Iterator[str]:
    """The rows, joined into pieces that are short enough; a row that is not comes alone."""
    waiting: list[str] = []
    size = 0
    for value in values:
        # In UTF-8 a character takes up to 4 bytes.
        length = len(value) + 1 if value.isascii() else 4 * len(value) + 1
        if waiting and size + length > max_bytes:
            yield ",".join(waiting)
            waiting, size = [], 0
        waiting.append(value)
        size += length
    if waiting:
        yield ",".join(waiting)


_NULL = "NULL"


def _quoted(text: str) -> str:
    # A quote and a backslash are all that means something inside a literal: the session's sql_mode and character set
    # are our own (`mysql`). The driver's function takes ten times as long for a text that has one.
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


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
