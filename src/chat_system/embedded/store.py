"""The store in the SQLite file: what was accepted, and the applications.

Pages and single rows are read on the event loop, in the transaction of their statement; whatever goes over
many rows is read in a thread. `sweep` removes in small pieces what was erased, so that erasing a large
application never holds back those who write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from chat_system.embedded import rows, unindexed
from chat_system.embedded.comparing import compare_index
from chat_system.embedded.database import INLINE_MAX_BYTES, Database, Transaction
from chat_system.embedded.journal import remember, repeat
from chat_system.embedded.rows import (
    APPLICATION_COLUMNS,
    CHAT_COLUMNS,
    MESSAGE_COLUMNS,
    NUMBER_MASK,
    message_id,
)
from chat_system.errors import NotFound
from chat_system.model import (
    NUMBER_MAX,
    PAGE_MAX_ITEMS,
    Application,
    ApplicationId,
    Chat,
    Message,
    Once,
    Receipt,
    Window,
    messages_of,
    rfc3339,
)
from chat_system.ports import ApplicationWindow, Discrepancy

TOKENS_MAX = 50_000
CHAT_IDS_MAX = 200_000
SWEEP_MESSAGES = 500
SWEEP_ROWS = 2_000
PASSED_OVER_MAX = 2_000
"""How many changed messages a reader may pass over on the event loop, which takes about half a millisecond."""
IN_THREAD = INLINE_MAX_BYTES + 1
"""The size of a write that must not run on the event loop."""

APPLICATIONS_SCOPE = 0
"""Idempotency keys of creating applications belong to no application."""


class EmbeddedStore:
    """Reads, and the lifecycle of applications. `forget` drops the journal's counters."""

    def __init__(
        self, database: Database, forget: Callable[[], None], announce_erased: Callable[[ApplicationId], None]
    ) -> None:
        self._database = database
        self._forget = forget
        self._announce_erased = announce_erased
        self._tokens: dict[str, ApplicationId] = {}
        self._chat_ids: dict[tuple[ApplicationId, int], int] = {}

    # Applications

    async def create_application(self, token: str, name: str, *, once: Once | None = None) -> tuple[Application, bool]:
        """See `ports.Store.create_application`."""

        def unit(transaction: Transaction) -> Receipt:
            first = repeat(transaction, APPLICATIONS_SCOPE, once) if once is not None else None
            if first is not None:
                return first
            at = transaction.at
            cursor = transaction.execute(
                "INSERT INTO applications (token, name, created_at, updated_at) VALUES (?, ?, ?, ?)",
                (token, name, at, at),
            )
            receipt = Receipt(cursor.lastrowid or 0, 0, at)
            if once is not None:
                remember(transaction, APPLICATIONS_SCOPE, once, receipt)
            return receipt

        receipt: Receipt = await self._database.write(unit)
        found = self._database.read("SELECT token FROM applications WHERE id = ?", (receipt.number,))
        at = rfc3339(receipt.at)
        return Application(found[0][0], name, 0, at, at), receipt.replayed

    async def resolve(self, token: str) -> ApplicationId | None:
        """See `ports.Store.resolve`."""
        application = self._tokens.get(token)
        if application is None:
            found = self._database.read("SELECT id FROM applications WHERE token = ? AND erased_at IS NULL", (token,))
            if not found:
                return None
            application = ApplicationId(found[0][0])
            _bound(self._tokens, TOKENS_MAX)
            self._tokens[token] = application
        return application

    def recall(self, token: str) -> ApplicationId | None:
        """See `ports.Store.recall`."""
        return self._tokens.get(token)

    async def application(self, application: ApplicationId) -> Application:
        """See `ports.Store.application`."""
        found = self._database.read(
            f"SELECT {APPLICATION_COLUMNS} FROM applications WHERE id = ? AND erased_at IS NULL", (application,)
        )
        if not found:
            raise NotFound
        return rows.application(found[0])

    async def applications(self, window: ApplicationWindow) -> Sequence[Application]:
        """See `ports.Store.applications`."""
        where, order, parameters = "", "", []
        if window.after is not None:
            # '~' comes after every character of a token: what begins like the place itself is passed over.
            where, parameters = "AND (created_at, token) > (?, ? || '~')", list(window.after)
        elif window.before is not None:
            where, order, parameters = "AND (created_at, token) < (?, ?)", "DESC", list(window.before)
        found = self._database.read(
            f"SELECT {APPLICATION_COLUMNS} FROM applications WHERE erased_at IS NULL {where}"
            f" ORDER BY created_at {order}, token {order} LIMIT ? OFFSET ?",
            (*parameters, window.limit, window.skip),
        )
        return [rows.application(row) for row in (reversed(found) if order else found)]

    async def rename_application(self, application: ApplicationId, name: str) -> Application:
        """See `ports.Store.rename_application`."""

        def unit(transaction: Transaction) -> None:
            row = transaction.execute(
                "SELECT name FROM applications WHERE id = ? AND erased_at IS NULL", (application,)
            ).fetchone()
            if row is None:
                raise NotFound
            if row[0] != name:
                transaction.execute(
                    "UPDATE applications SET name = ?, updated_at = ? WHERE id = ?", (name, transaction.at, application)
                )

        await self._database.write(unit)
        return await self.application(application)

    async def erase_application(self, application: ApplicationId) -> None:
        """See `ports.Store.erase_application`."""

        def unit(transaction: Transaction) -> None:
            row = transaction.execute(
                "SELECT token FROM applications WHERE id = ? AND erased_at IS NULL", (application,)
            ).fetchone()
            if row is None:
                raise NotFound
            transaction.execute("UPDATE applications SET erased_at = ? WHERE id = ?", (transaction.at, application))
            # A key that created it must not bring back a token that opens nothing.
            transaction.execute(
                "DELETE FROM receipts WHERE application_id = ? AND number = ?", (APPLICATIONS_SCOPE, application)
            )
            self._forget_within(transaction)

        await self._database.write(unit)
        self._tokens = {token: known for token, known in self._tokens.items() if known != application}
        self._chat_ids = {key: chat_id for key, chat_id in self._chat_ids.items() if key[0] != application}
        self._announce_erased(application)

    # Chats and messages

    async def chat(self, application: ApplicationId, chat: int) -> Chat:
        """See `ports.Store.chat`."""
        found = self._database.read(
            f"SELECT {CHAT_COLUMNS} FROM chats WHERE id = ?", (self.chat_id(application, chat),)
        )
        if not found:
            raise NotFound
        return rows.chat(found[0])

    async def chats(self, application: ApplicationId, window: Window) -> Sequence[Chat]:
        """See `ports.Store.chats`."""
        self.require(application)
        found = self._database.read(
            f"SELECT {CHAT_COLUMNS} FROM chats WHERE application_id = ? AND number > ? AND number < ?"
            f" ORDER BY number {_direction(window)} LIMIT ? OFFSET ?",
            (application, min(window.after, NUMBER_MAX), _upper(window), window.limit, window.skip),
        )
        return [rows.chat(row) for row in _arrange(found, window)]

    async def message(self, application: ApplicationId, chat: int, number: int) -> Message:
        """See `ports.Store.message`."""
        if number > NUMBER_MAX:
            raise NotFound
        found = self._database.read(
            f"SELECT {MESSAGE_COLUMNS} FROM messages m WHERE id = ?",
            (message_id(self.chat_id(application, chat), number),),
        )
        if not found:
            raise NotFound
        return messages_of(found)[0]

    async def messages(self, application: ApplicationId, chat: int, window: Window) -> Sequence[Message]:
        """See `ports.Store.messages`."""
        chat_id = self.chat_id(application, chat)
        found = self._database.read(
            f"SELECT {MESSAGE_COLUMNS} FROM messages m WHERE id > ? AND id < ?"
            f" ORDER BY id {_direction(window)} LIMIT ?",
            (
                message_id(chat_id, min(window.after, NUMBER_MAX)),
                message_id(chat_id, _upper(window)),
                window.limit,
            ),
        )
        return messages_of(_arrange(found, window))

    async def changes(self, application: ApplicationId, chat: int, after: int, limit: int) -> Sequence[Message]:
        """See `ports.Store.changes`."""
        chat_id = self.chat_id(application, chat)
        start, last = self._database.query(lambda connection: _place_of(connection, chat_id, after))
        # Up to the chat's end, not to what was its last message a moment ago: a commit may have come in between.
        end = message_id(chat_id, NUMBER_MASK)
        parameters = {"chat_id": chat_id, "start": start, "end": end, "after": after, "limit": limit}
        # Whoever looks for what was created passes over what was changed: a little of it here, more in a thread.
        if last - start <= PASSED_OVER_MAX or not self._database.read(_ANY_CHANGED, (chat_id,)):
            found = self._database.read(_CHANGES, parameters)
        else:
            found = await self._database.scan(lambda connection: connection.execute(_CHANGES, parameters).fetchall())
        return messages_of(found)

    async def revision(self, application: ApplicationId, chat: int) -> int:
        """See `ports.Store.revision`."""
        return (await self.chat(application, chat)).revision

    async def all_chats(self, application: ApplicationId) -> AsyncIterator[Chat]:
        """See `ports.Store.all_chats`."""
        after = 0
        while page := await self.chats(application, Window(PAGE_MAX_ITEMS, after)):
            for chat in page:
                yield chat
            after = page[-1].number

    def require(self, application: ApplicationId) -> None:
        """Raises NotFound when the application was erased."""
        if not self._database.read("SELECT 1 FROM applications WHERE id = ? AND erased_at IS NULL", (application,)):
            raise NotFound

    def chat_id(self, application: ApplicationId, chat: int) -> int:
        """The key of a chat. Raises NotFound. Chats never move, so it is remembered."""
        chat_id = self._chat_ids.get((application, chat))
        if chat_id is None:
            found = chat <= NUMBER_MAX and self._database.read(
                "SELECT chats.id FROM chats JOIN applications ON applications.id = application_id"
                " WHERE application_id = ? AND number = ? AND erased_at IS NULL",
                (application, chat),
            )
            if not found:
                raise NotFound
            chat_id = int(found[0][0])
            _bound(self._chat_ids, CHAT_IDS_MAX)
            self._chat_ids[application, chat] = chat_id
        return chat_id

    # Operations

    async def ping(self) -> None:
        """See `ports.Store.ping`."""
        self._database.read("SELECT id FROM applications LIMIT 1")

    async def sweep(self) -> bool:
        """See `ports.Store.sweep`."""
        erased = self._database.read("SELECT id FROM applications WHERE erased_at IS NOT NULL LIMIT 1")
        if erased:
            application = erased[0][0]
            await self._database.write(lambda transaction: _sweep_erased(transaction, application), size=IN_THREAD)
            return True
        expired = self._database.read(
            "SELECT 1 FROM receipts WHERE expires_at < CAST(unixepoch('subsec') * 1000 AS INTEGER) LIMIT 1"
            if sqlite3.sqlite_version_info >= (3, 42)
            else "SELECT 1 FROM receipts WHERE expires_at < unixepoch() * 1000 LIMIT 1"
        )
        if expired:
            await self._database.write(_sweep_receipts, size=IN_THREAD)
        return bool(expired)

    def _forget_within(self, transaction: Transaction) -> None:
        # First what others of this transaction have counted, then their counters: the next one reads the rows again.
        transaction.catch_up()
        self._forget()

    async def verify(self) -> Sequence[Discrepancy]:
        """See `ports.Store.verify`."""
        return await self._database.scan(_verify)

    async def compare_index(self) -> Sequence[Discrepancy]:
        """Where the search index does not hold what the messages say."""
        return await self._database.scan(compare_index)

    async def recount(self) -> Sequence[Discrepancy]:
        """See `ports.Store.recount`."""

        def unit(transaction: Transaction) -> list[Discrepancy]:
            self._forget_within(transaction)
            wrong = [
                found for query in (_WRONG_CHATS_COUNT, _WRONG_MESSAGES_COUNT) for found in _report(transaction, query)
            ]
            transaction.execute(
                "UPDATE applications SET chats_count ="
                " (SELECT count(*) FROM chats WHERE application_id = applications.id)"
            )
            transaction.execute(
                "UPDATE chats SET messages_count = (SELECT count(*) FROM messages"
                " WHERE id BETWEEN chats.id << 32 AND (chats.id << 32) + 4294967295 AND deleted_at IS NULL)"
            )
            return wrong

        found: list[Discrepancy] = await self._database.write(unit, size=IN_THREAD)
        return found


# What never changed stands in the order of revisions, from :start on; what did has an index. One statement: a message
# that changes between two would be in both or in neither.
_CHANGES = f"""
    SELECT * FROM (
        SELECT {MESSAGE_COLUMNS} FROM messages m
        WHERE id >= :start AND id <= :end AND first_revision IS NULL AND revision > :after ORDER BY id LIMIT :limit)
    UNION ALL SELECT * FROM (
        SELECT {MESSAGE_COLUMNS} FROM messages m
        WHERE id >> 32 = :chat_id AND revision > :after AND first_revision IS NOT NULL ORDER BY revision LIMIT :limit)
    ORDER BY revision LIMIT :limit"""
_ANY_CHANGED = "SELECT 1 FROM messages WHERE id >> 32 = ? AND first_revision IS NOT NULL LIMIT 1"
_LAST = "SELECT max(id) FROM messages WHERE id BETWEEN ? AND ?"
_CREATED_BY = "SELECT coalesce(first_revision, revision) FROM messages WHERE id >= ? ORDER BY id LIMIT 1"


def _place_of(connection: sqlite3.Connection, chat_id: int, revision: int) -> tuple[int, int]:
    """The key of the chat's first message that was created by a later revision, and of its last message."""
    none = message_id(chat_id, 0)
    last = connection.execute(_LAST, (none + 1, message_id(chat_id, NUMBER_MASK))).fetchone()[0] or none
    # A creation's revision is at least its number. From there down in growing steps, then by halving: as many looks
    # as the number of changes has digits, one if there are none.
    after = min(none + revision, last) + 1
    before, step = after - 1, 1
    while before > none and connection.execute(_CREATED_BY, (before,)).fetchone()[0] > revision:
        after, before, step = before, max(none, before - step), step * 2
    while after - before > 1:
        middle = (before + after) // 2
        if connection.execute(_CREATED_BY, (middle,)).fetchone()[0] > revision:
            after = middle
        else:
            before = middle
    return after, last


# Each query of `verify` answers (application, chat or NULL, what is wrong).
_WRONG_CHATS_COUNT = """
    SELECT a.id, NULL, 'chats_count is ' || a.chats_count || ', there are ' || count(c.id)
    FROM applications a LEFT JOIN chats c ON c.application_id = a.id
    WHERE a.erased_at IS NULL GROUP BY a.id HAVING a.chats_count <> count(c.id)"""
_WRONG_MESSAGES_COUNT = """
    SELECT c.application_id, c.number, 'messages_count is ' || c.messages_count || ', there are ' || count(m.id)
    FROM chats c JOIN applications a ON a.id = c.application_id AND a.erased_at IS NULL
    LEFT JOIN messages m
        ON m.id BETWEEN c.id << 32 AND (c.id << 32) + 4294967295 AND m.deleted_at IS NULL
    GROUP BY c.id HAVING c.messages_count <> count(m.id)"""
_CHAT_GAPS = """
    SELECT c.application_id, NULL, 'chats are numbered to ' || max(c.number) || ', there are ' || count(*)
    FROM chats c JOIN applications a ON a.id = c.application_id AND a.erased_at IS NULL
    GROUP BY c.application_id HAVING max(c.number) <> count(*) OR min(c.number) <> 1"""
_MESSAGE_GAPS = """
    SELECT c.application_id, c.number,
        'messages are numbered from ' || (min(m.id) & 4294967295) || ' to ' || (max(m.id) & 4294967295)
        || ', there are ' || count(*)
    FROM chats c JOIN applications a ON a.id = c.application_id AND a.erased_at IS NULL
    JOIN messages m ON m.id BETWEEN c.id << 32 AND (c.id << 32) + 4294967295
    GROUP BY c.id HAVING max(m.id) & 4294967295 <> count(*) OR min(m.id) & 4294967295 <> 1"""
_WRONG_REVISION = """
    SELECT c.application_id, c.number,
        'revision is ' || c.revision || ', the latest message has ' || coalesce(max(m.revision), 0)
    FROM chats c JOIN applications a ON a.id = c.application_id AND a.erased_at IS NULL
    LEFT JOIN messages m ON m.id BETWEEN c.id << 32 AND (c.id << 32) + 4294967295
    GROUP BY c.id HAVING c.revision <> coalesce(max(m.revision), 0)"""
# Of the revisions of creations there is no index that would refuse one that was given before.
_SHARED_REVISIONS = """
    SELECT c.application_id, c.number, count(*) - count(DISTINCT m.revision) || ' messages have a revision of another'
    FROM chats c JOIN applications a ON a.id = c.application_id AND a.erased_at IS NULL
    JOIN messages m ON m.id BETWEEN c.id << 32 AND (c.id << 32) + 4294967295
    GROUP BY c.id HAVING count(*) <> count(DISTINCT m.revision)"""
_ORPHANS = """
    SELECT m.application_id, NULL, count(*) || ' messages stand in no chat'
    FROM messages m LEFT JOIN chats c ON c.id = m.id >> 32 WHERE c.id IS NULL GROUP BY m.application_id"""


def _verify(connection: sqlite3.Connection) -> list[Discrepancy]:
    damage = [
        Discrepancy("file", str(line)) for (line,) in connection.execute("PRAGMA quick_check(20)") if line != "ok"
    ]
    queries = (
        *(_CHAT_GAPS, _MESSAGE_GAPS, _WRONG_CHATS_COUNT, _WRONG_MESSAGES_COUNT),
        *(_WRONG_REVISION, _SHARED_REVISIONS, _ORPHANS),
    )
    return damage + [found for query in queries for found in _report(connection, query)]


def _report(connection: sqlite3.Connection | Transaction, query: str) -> list[Discrepancy]:
    return [
        Discrepancy(f"application {application}" + ("" if chat is None else f", chat {chat}"), what)
        for application, chat, what in connection.execute(query)
    ]


def _sweep_erased(transaction: Transaction, application: ApplicationId) -> None:
    """Remove a piece: messages first, then what is behind, chats and receipts, at last the application itself."""
    keys = [
        key
        for (key,) in transaction.execute(
            "SELECT id FROM messages WHERE application_id = ? LIMIT ?", (application, SWEEP_MESSAGES)
        )
    ]
    if keys:
        unindexed.remove(transaction, keys)
        transaction.execute(f"DELETE FROM messages WHERE id IN ({','.join(map(str, keys))})")
        return
    for delete in (
        (
            "DELETE FROM search_behind WHERE chat_id IN"
            " (SELECT chat_id FROM search_behind JOIN chats ON chats.id = chat_id WHERE application_id = ? LIMIT ?)"
        ),
        "DELETE FROM chats WHERE id IN (SELECT id FROM chats WHERE application_id = ? LIMIT ?)",
        (
            "DELETE FROM receipts WHERE (application_id, once) IN"
            " (SELECT application_id, once FROM receipts WHERE application_id = ? LIMIT ?)"
        ),
    ):
        if transaction.execute(delete, (application, SWEEP_ROWS)).rowcount > 0:
            return
    transaction.execute("DELETE FROM applications WHERE id = ?", (application,))


def _sweep_receipts(transaction: Transaction) -> None:
    transaction.execute(
        "DELETE FROM receipts WHERE (application_id, once) IN"
        " (SELECT application_id, once FROM receipts WHERE expires_at < ? LIMIT ?)",
        (transaction.at, SWEEP_ROWS),
    )


def _upper(window: Window) -> int:
    return NUMBER_MASK if window.before is None else min(window.before, NUMBER_MASK)


def _direction(window: Window) -> str:
    return "DESC" if window.from_end else "ASC"


def _arrange(found: list[Any], window: Window) -> list[Any]:
    """Rows came from one end of the window; answers go up unless asked otherwise."""
    return found[::-1] if window.from_end != window.descending else found


def _bound(cache: dict[Any, Any], size: int) -> None:
    # Emptying all is rare and cheap; the entries come back as they are asked for.
    if len(cache) >= size:
        cache.clear()
