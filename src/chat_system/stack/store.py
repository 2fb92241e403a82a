"""The store in MySQL: what was accepted and applied, and the applications.

Chats and messages are read by `pages`, which lays what is not applied yet over the tables, and written by
`applying`. Applications live here alone: creating, renaming and erasing one is a transaction of its own.

What a request asks of every application, which token opens which, is remembered for some minutes. An erased
application is nevertheless gone at once: MySQL is marked first, then Redis, which every read and write of a chat asks.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from asyncmy.errors import IntegrityError

from chat_system.errors import ConfigurationError, IdempotencyMismatch, NotFound, Unavailable
from chat_system.model import (
    PAGE_MAX_ITEMS,
    Application,
    ApplicationId,
    Chat,
    ChatChanged,
    KeyUsed,
    MessageChanged,
    Once,
    Receipt,
    Window,
    rfc3339,
)
from chat_system.ports import ApplicationWindow, Discrepancy, Entry
from chat_system.stack import applying, rows, sweeping, verifying
from chat_system.stack.mysql import READ_TIMEOUT_S, Database, Transaction
from chat_system.stack.pages import Pages
from chat_system.stack.rows import APPLICATION_COLUMNS, CHAT_COLUMNS, MESSAGE_COLUMNS, RECEIPT_COLUMNS
from chat_system.stack.tail import ChatSeed, Tail

TOKENS_MAX = 50_000
TOKEN_KEPT_S = 600.0
"""How long a token's application is remembered; longer only while MySQL is away."""

APPLICATIONS_SCOPE = ApplicationId(0)
"""Idempotency keys of creating applications belong to no application."""

CREATE_ATTEMPTS = 5
BEGIN_WAIT_S = 20
"""How long to wait for another process that sets the journal up."""

RECEIPTS_AT_ONCE = 500
SCAN_TIMEOUT_S = 60.0
"""How long a statement over many rows may take."""

ROWS_MAX = 1_000
ROWS_BYTES = 4 * 1024 * 1024
"""About how large a chunk of `rows` may be, in characters; of long messages it holds fewer."""

REVISIONS_AT_ONCE = 5_000

# Of keys, but for those that created applications.
_HAS_RECEIPTS = "SELECT 1 FROM receipts WHERE application_id > 0 LIMIT 1"
_APPLICATION = f"SELECT {APPLICATION_COLUMNS} FROM applications WHERE id = %s AND erased_at IS NULL"
_RESOLVE = "SELECT id FROM applications WHERE token = %s AND erased_at IS NULL"
# Not one comparison of two pairs: MySQL would not use the index for it.
_APPLICATIONS = f"""
    SELECT {APPLICATION_COLUMNS} FROM applications
    WHERE erased_at IS NULL AND created_at {{0}}= %s AND (created_at {{0}} %s OR token {{0}} %s)
    ORDER BY created_at {{1}}, token {{1}} LIMIT %s OFFSET %s"""
# A count is that of a revision, and every revision is some message's. If one came further than the other, the rest was
# lost with Redis, and they are counted.
_SEED = """
    SELECT last, GREATEST(revision, latest), version, IF(latest = revision, messages_count, (
        SELECT COUNT(*) FROM messages WHERE application_id = %s AND chat_number = %s AND deleted_at IS NULL))
    FROM (
        SELECT c.revision, c.version, c.messages_count,
            COALESCE((SELECT MAX(number) FROM messages WHERE application_id = %s AND chat_number = %s), 0) AS last,
            COALESCE((SELECT MAX(revision) FROM messages WHERE application_id = %s AND chat_number = %s), 0) AS latest
        FROM chats c JOIN applications a ON a.id = c.application_id AND a.erased_at IS NULL
        WHERE c.application_id = %s AND c.number = %s AND c.version > 0) AS seed"""
# Whatever was stored under a chat's number shows that the number was given.
_LAST_CHAT = """
    SELECT GREATEST(chats_count,
        COALESCE((SELECT MAX(number) FROM chats WHERE application_id = %s), 0),
        COALESCE((SELECT MAX(chat_number) FROM messages WHERE application_id = %s), 0))
    FROM applications WHERE id = %s AND erased_at IS NULL"""
_ROWS = f"""
    SELECT chat_number, {MESSAGE_COLUMNS} FROM messages FORCE INDEX (PRIMARY)
    WHERE application_id = %s AND (chat_number > %s OR (chat_number = %s AND number > %s))
    ORDER BY chat_number, number LIMIT %s"""


_REVISIONS = """
    SELECT chat_number, number, revision FROM messages FORCE INDEX (PRIMARY)
    WHERE application_id = %s AND (chat_number > %s OR (chat_number = %s AND number > %s))
    ORDER BY chat_number, number LIMIT %s"""

Held = tuple[int, int, int]
"""A chat, the number of a message in it, and the message's revision."""


class StackStore(Pages):
    """Reads (of chats and messages: see `Pages`), applying, and the lifecycle of applications.

    `erased` closes an application to all processes. `forget` makes the journal drop its counters of a chat, and
    `erase_index` removes an application from the search index; wiring sets both once it has them.
    """

    def __init__(self, database: Database, tail: Tail, erased: Callable[[ApplicationId], Awaitable[None]]) -> None:
        super().__init__(database, tail)
        self._erased = erased
        self._tokens: dict[str, tuple[ApplicationId, float]] = {}
        self._unindexed: set[ApplicationId] = set()
        self.forget: Callable[[ApplicationId, int], Awaitable[None]] | None = None
        self.erase_index: Callable[[ApplicationId], Awaitable[None]] | None = None

    # Applications

    async def create_application(self, token: str, name: str, *, once: Once | None = None) -> tuple[Application, bool]:
        """See `ports.Store.create_application`."""

        async def unit(transaction: Transaction) -> tuple[str, int, bool]:
            at = _now()
            if once is not None:
                first = await _repeat(transaction, once, at)
                if first is not None:
                    return *first, True
            number = await transaction.insert(
                "INSERT INTO applications (token, name, once, created_at, updated_at) VALUES (%s, %s, %s, %s, %s)",
                (token, name, None if once is None else once.key, at, at),
            )
            if once is not None:
                await _remember(transaction, once, Receipt(number, 0, at))
            return token, at, False

        for _ in range(CREATE_ATTEMPTS):
            try:
                opened, at, replayed = await self._database.commit(unit, timeout_s=READ_TIMEOUT_S)
            except _KeyTaken:
                # Somebody used the key at the same time, and was first.
                continue
            created = rfc3339(at)
            return Application(opened, name, 0, created, created), replayed
        raise Unavailable("The idempotency key is being used by too many at once.")

    async def resolve(self, token: str) -> ApplicationId | None:
        """See `ports.Store.resolve`."""
        known = self._tokens.get(token)
        now = time.monotonic()
        if known is not None and now < known[1]:
            return known[0]
        try:
            found = await self._database.fetch(_RESOLVE, (token,))
        except Unavailable:
            if known is None:
                raise
            return known[0]
        if not found:
            self._tokens.pop(token, None)
            return None
        if len(self._tokens) >= TOKENS_MAX:
            # Emptying all is rare and cheap; the entries come back as they are asked for.
            self._tokens.clear()
        application = ApplicationId(found[0][0])
        self._tokens[token] = application, now + TOKEN_KEPT_S
        return application

    def recall(self, token: str) -> ApplicationId | None:
        """See `ports.Store.recall`."""
        known = self._tokens.get(token)
        return known[0] if known is not None and time.monotonic() < known[1] else None

    def forget_tokens(self) -> None:
        """Ask MySQL anew about every token: Redis has lost what it knew of erased applications."""
        # While MySQL is away they are believed all the same: without it nothing of an erased application is found.
        self._tokens = {token: (application, 0.0) for token, (application, _) in self._tokens.items()}

    async def application(self, application: ApplicationId) -> Application:
        """See `ports.Store.application`."""
        found = await self._database.fetch(_APPLICATION, (application,))
        if not found:
            raise NotFound
        return rows.application(found[0])

    async def applications(self, window: ApplicationWindow) -> Sequence[Application]:
        """See `ports.Store.applications`."""
        # '~' comes after every character of a token: what begins like the place itself is passed over.
        (at, start), backwards = (0, ""), window.after is None and window.before is not None
        if window.after is not None:
            at, start = window.after[0], window.after[1] + "~"
        elif window.before is not None:
            at, start = window.before
        statement = _APPLICATIONS.format("<", "DESC") if backwards else _APPLICATIONS.format(">", "ASC")
        found = await self._database.fetch(statement, (at, at, start, window.limit, window.skip))
        return [rows.application(row) for row in (reversed(found) if backwards else found)]

    async def rename_application(self, application: ApplicationId, name: str) -> Application:
        """See `ports.Store.rename_application`."""

        async def unit(transaction: Transaction) -> Application:
            await transaction.execute(
                "UPDATE applications SET updated_at = GREATEST(%s, updated_at + 1), name = %s"
                " WHERE id = %s AND erased_at IS NULL AND CAST(name AS BINARY) <> CAST(%s AS BINARY)",
                (_now(), name, application, name),
            )
            found = await transaction.fetch(_APPLICATION, (application,))
            if not found:
                raise NotFound
            return rows.application(found[0])

        return await self._database.commit(unit, timeout_s=READ_TIMEOUT_S)

    async def erase_application(self, application: ApplicationId) -> None:
        """See `ports.Store.erase_application`."""

        async def unit(transaction: Transaction) -> bool:
            found = await transaction.fetch(
                "SELECT once, erased_at FROM applications WHERE id = %s FOR UPDATE", (application,)
            )
            if not found:
                raise NotFound
            if found[0][1] is not None:
                return False
            await transaction.execute("UPDATE applications SET erased_at = %s WHERE id = %s", (_now(), application))
            if found[0][0] is not None:
                # A key that created it must not bring back a token that opens nothing.
                await transaction.execute(
                    "DELETE FROM receipts WHERE application_id = %s AND once = %s AND number = %s",
                    (APPLICATIONS_SCOPE, found[0][0], application),
                )
            return True

        was_there = await self._database.commit(unit, timeout_s=READ_TIMEOUT_S)
        # Also when it was marked before: whoever did that may not have come so far.
        await self._erased(application)
        self._tokens = {token: known for token, known in self._tokens.items() if known[0] != application}
        if not was_there:
            raise NotFound

    # Chats

    async def all_chats(self, application: ApplicationId) -> AsyncIterator[Chat]:
        """See `ports.Store.all_chats`."""
        after = 0
        while page := await self.chats(application, Window(PAGE_MAX_ITEMS, after)):
            for chat in page:
                yield chat
            after = page[-1].number

    # What the journal asks when something is cold

    async def chat_seed(self, application: ApplicationId, chat: int) -> ChatSeed | None:
        """Where a chat's counters stand by what was applied; None when there is no such chat.

        Raises:
            Unavailable: MySQL is away.
        """
        found = await self._database.fetch(_SEED, (application, chat) * 4)
        if not found:
            return None
        last, revision, version, messages_count = found[0]
        return ChatSeed(last, revision, messages_count, version)

    async def last_chat(self, application: ApplicationId) -> int | None:
        """The highest chat number; None for an application that is unknown or erased."""
        found = await self._database.fetch(_LAST_CHAT, (application,) * 3)
        return found[0][0] if found else None

    async def receipts(self, keys: Sequence[tuple[ApplicationId, bytes]]) -> dict[tuple[ApplicationId, bytes], KeyUsed]:
        """What is kept of idempotency keys, and has not expired."""
        kept: dict[tuple[ApplicationId, bytes], KeyUsed] = {}
        now = _now()
        for start in range(0, len(keys), RECEIPTS_AT_ONCE):
            by_application: dict[ApplicationId, list[str]] = {}
            for application, key in keys[start : start + RECEIPTS_AT_ONCE]:
                by_application.setdefault(application, []).append(f"0x{key.hex()}")
            where = " OR ".join(
                f"(application_id = {application} AND once IN ({','.join(listed)}))"
                for application, listed in by_application.items()
            )
            # Without parameters, and so not prepared: hardly ever does it read the same again.
            found = await self._database.fetch(
                f"SELECT {RECEIPT_COLUMNS} FROM receipts WHERE ({where}) AND (expires_at IS NULL OR expires_at > {now})"
            )
            kept |= {(ApplicationId(row[0]), row[1]): rows.key_used(row) for row in found}
        return kept

    async def begin_epoch(
        self, partition: int, known: Callable[[], Awaitable[int]], begin: Callable[[int, bool], Awaitable[int]]
    ) -> int:
        """See `epochs.EpochKeeper.begin_epoch`."""
        # Locks of this kind are the whole server's: the name must be the database's own.
        lock = self._database.lock_name(f"epoch-{partition}")
        async with self._database.transaction(timeout_s=None) as holding:
            if (await holding.fetch("SELECT GET_LOCK(%s, %s)", (lock, BEGIN_WAIT_S)))[0][0] != 1:
                raise Unavailable("The journal is being set up by another process.")
            try:
                epoch = await known()
                if not epoch:
                    # In this very session: were it to break, lock and statement would go together.
                    await holding.execute(
                        "INSERT INTO journal_epochs (partition_id, epoch) VALUES (%s, 1)"
                        " ON DUPLICATE KEY UPDATE epoch = epoch + 1",
                        (partition,),
                    )
                    raised = await holding.fetch(
                        "SELECT epoch FROM journal_epochs WHERE partition_id = %s", (partition,)
                    )
                    await holding.execute("COMMIT")
                    # Over this connection too: as many as there are may be held by others that begin.
                    has_receipts = bool(await holding.fetch(_HAS_RECEIPTS))
                    epoch = await begin(int(raised[0][0]), has_receipts)
                return epoch
            finally:
                await holding.fetch("SELECT RELEASE_LOCK(%s)", (lock,))

    async def stored_message(self, application: ApplicationId, chat: int, number: int) -> MessageChanged | None:
        """A message as it was applied."""
        found = await self._database.fetch(
            f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE application_id = %s AND chat_number = %s AND number = %s",
            (application, chat, number),
        )
        return rows.changed(found[0]) if found else None

    async def stored_chat(self, application: ApplicationId, chat: int) -> ChatChanged | None:
        """A chat's own fields as they were applied."""
        found = await self._database.fetch(
            f"SELECT {CHAT_COLUMNS} FROM chats WHERE application_id = %s AND number = %s AND version > 0",
            (application, chat),
        )
        return rows.chat_changed(found[0]) if found else None

    # The projection

    async def apply(self, entries: Sequence[Entry]) -> None:
        """Apply facts, durably. Tolerates repetition and reordering; raises as `applying.apply` does."""
        await applying.apply(self._database, entries)

    # Operations

    async def ping(self) -> None:
        """See `ports.Store.ping`."""
        await self._database.ping()

    async def fix(self, name: str, value: str) -> None:
        """Keep a setting as the first start has it.

        Raises:
            ConfigurationError: the first start had another value.
        """

        async def unit(transaction: Transaction) -> str:
            await transaction.execute(
                "INSERT INTO installation (name, value) VALUES (%s, %s) ON DUPLICATE KEY UPDATE name = name",
                (name, value),
            )
            return str((await transaction.fetch("SELECT value FROM installation WHERE name = %s", (name,)))[0][0])

        fixed = await self._database.commit(unit, timeout_s=READ_TIMEOUT_S)
        if fixed != value:
            raise ConfigurationError(f"{name} is {value}, and was {fixed} when this database was first used.")

    async def sweep(self) -> bool:
        """See `ports.Store.sweep`."""
        return await sweeping.sweep(self._database, self._erased, self.erase_index, self._unindexed)

    async def verify(self) -> Sequence[Discrepancy]:
        """See `ports.Store.verify`. What is not applied yet is no discrepancy: ask when the backlog is empty."""
        wrong: list[Discrepancy] = []
        async for application in self.application_ids():
            wrong += await verifying.verify(self._database, application)
        return wrong

    async def recount(self) -> Sequence[Discrepancy]:
        """See `ports.Store.recount`. Chats of which something is not applied yet keep their count."""
        wrong: list[Discrepancy] = []
        async for application in self.application_ids():
            found, chats = await verifying.recount(self._database, application)
            wrong += found
            for chat in chats:
                if self.forget is not None:
                    await self.forget(application, chat)
        return wrong

    async def rows(self, application: ApplicationId) -> AsyncIterator[Sequence[tuple[int, MessageChanged]]]:
        """All messages of an application, each with its chat, in chunks by primary key."""
        chat, number, limit = 0, 0, ROWS_MAX
        while True:
            found = await self._database.fetch(
                _ROWS, (application, chat, chat, number, limit), timeout_s=SCAN_TIMEOUT_S
            )
            if not found:
                return
            yield [(row[0], rows.changed(row[1:])) for row in found]
            chat, number = found[-1][:2]
            # Chunks of long messages get shorter, so that memory stays bounded.
            size = sum(len(row[4]) for row in found if row[4] is not None)
            limit = max(1, min(ROWS_MAX, ROWS_BYTES * len(found) // max(1, size)))

    async def revisions(self, application: ApplicationId) -> AsyncIterator[Held]:
        """The chat, number and revision of every message of an application, in this order."""
        chat = number = 0
        while found := await self._database.fetch(
            _REVISIONS, (application, chat, chat, number, REVISIONS_AT_ONCE), timeout_s=SCAN_TIMEOUT_S
        ):
            for held in found:
                yield held
            chat, number = found[-1][:2]

    async def application_ids(self) -> AsyncIterator[ApplicationId]:
        """Every application that is not erased."""
        after = 0
        while found := await self._database.fetch(
            "SELECT id FROM applications WHERE id > %s AND erased_at IS NULL ORDER BY id LIMIT 1000", (after,)
        ):
            for (application,) in found:
                yield ApplicationId(application)
            after = found[-1][0]

    async def count_messages(self, application: ApplicationId) -> int:
        """How many rows it has, tombstones included."""
        found = await self._database.fetch(
            "SELECT COUNT(*) FROM messages WHERE application_id = %s", (application,), timeout_s=SCAN_TIMEOUT_S
        )
        return int(found[0][0])


class _KeyTaken(Exception):
    """An idempotency key was taken between our look and our insert."""


async def _repeat(transaction: Transaction, once: Once, at: int) -> tuple[str, int] | None:
    """The token and time of the application that the key created first; None when this is the first."""
    found = await transaction.fetch(
        "SELECT fingerprint, token, r.created_at, expires_at > %s FROM receipts r"
        " LEFT JOIN applications a ON a.id = r.number WHERE application_id = %s AND r.once = %s FOR UPDATE",
        (at, APPLICATIONS_SCOPE, once.key),
    )
    if not found:
        return None
    fingerprint, token, created_at, is_kept = found[0]
    if is_kept == 0 or token is None:
        await transaction.execute(
            "DELETE FROM receipts WHERE application_id = %s AND once = %s", (APPLICATIONS_SCOPE, once.key)
        )
        return None
    if fingerprint != once.fingerprint:
        raise IdempotencyMismatch("The idempotency key was used with another payload.")
    return token, created_at


async def _remember(transaction: Transaction, once: Once, receipt: Receipt) -> None:
    expires_at = None if once.kept_s is None else receipt.at + once.kept_s * 1000
    used = KeyUsed(once, receipt, expires_at)
    try:
        await transaction.execute(
            f"INSERT INTO receipts ({RECEIPT_COLUMNS}) VALUES"
            f" {applying.receipt_values(((APPLICATIONS_SCOPE, once.key), used))}"
        )
    except IntegrityError as error:
        raise _KeyTaken from error


def _now() -> int:
    return time.time_ns() // 1_000_000
