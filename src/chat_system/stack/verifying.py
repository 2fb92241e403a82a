"""Comparing what the tables say with what they hold, application by application.

Each application is looked at in one snapshot, some hundred chats at a time, so memory stays bounded and nobody waits.
What the journal has accepted and nobody has applied yet looks like a gap or a count that is ahead: `verify` tells the
truth when the backlog is empty, and `recount` leaves such chats alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from msgspec import Struct

from chat_system.model import ApplicationId
from chat_system.ports import Discrepancy
from chat_system.stack.mysql import Database, Transaction

CHATS_AT_ONCE = 500

_CHATS_OF = """
    SELECT COUNT(*), COALESCE(MIN(number), 0), COALESCE(MAX(number), 0) FROM chats
    WHERE application_id = %s AND version > 0"""
_CHATS = """
    SELECT number, version, messages_count, revision FROM chats
    WHERE application_id = %s AND number > %s ORDER BY number LIMIT %s"""
_MESSAGES = """
    SELECT chat_number, COUNT(*), MIN(number), MAX(number), COUNT(DISTINCT revision), MAX(revision),
        CAST(SUM(deleted_at IS NULL) AS SIGNED)
    FROM messages WHERE application_id = %s AND chat_number > %s AND chat_number <= %s
    GROUP BY chat_number ORDER BY chat_number"""
_LAST = 2**31 - 1


class _Counted(Struct):
    """What a chat's row says of its messages, and what they are. Without a row, `version` is 0."""

    chat: int
    version: int
    messages_count: int
    revision: int
    rows: int = 0
    first: int = 0
    last: int = 0
    revisions: int = 0
    latest: int = 0
    living: int = 0

    def faults(self) -> Iterator[str]:
        """What is wrong, in a sentence each."""
        if self.version == 0:
            if self.rows:
                yield f"{self.rows} messages stand in no chat"
            return
        if self.messages_count != self.living:
            yield self.wrong_count
        if self.has_gap:
            yield f"messages are numbered from {self.first} to {self.last}, there are {self.rows}"
        if self.revisions != self.rows:
            yield f"{self.rows} messages have {self.revisions} different revisions"
        if self.revision != self.latest:
            yield f"revision is {self.revision}, the latest message has {self.latest}"

    @property
    def wrong_count(self) -> str:
        return f"messages_count is {self.messages_count}, there are {self.living}"

    @property
    def has_gap(self) -> bool:
        return self.rows > 0 and (self.first != 1 or self.last != self.rows)


async def verify(database: Database, application: ApplicationId) -> list[Discrepancy]:
    """What is wrong with the numbers, revisions and counts of an application."""
    where = f"application {application}"
    async with database.snapshot() as snapshot:
        found = [Discrepancy(where, what) for what in await _chat_faults(snapshot, application)]
        after = 0
        while after < _LAST:
            counted, after = await _count(snapshot, application, after)
            found += [Discrepancy(f"{where}, chat {chat.chat}", what) for chat in counted for what in chat.faults()]
    return found


async def recount(database: Database, application: ApplicationId) -> tuple[list[Discrepancy], list[int]]:
    """Write an application's counts anew; return what was wrong, and the chats that were mended."""
    found: list[Discrepancy] = []
    mended: list[int] = []
    what = await database.commit(partial(_mend_chats_count, application))
    if what is not None:
        found.append(Discrepancy(f"application {application}", what))
    after = 0
    while after < _LAST:
        wrong, after = await _wrong_counts(database, application, after)
        for number in wrong:
            what = await database.commit(partial(_mend, application, number))
            if what is not None:
                found.append(Discrepancy(f"application {application}, chat {number}", what))
                mended.append(number)
    return found, mended


async def _chat_faults(snapshot: Transaction, application: ApplicationId) -> list[str]:
    row = await snapshot.fetch("SELECT chats_count FROM applications WHERE id = %s", (application,))
    count, first, last = (await snapshot.fetch(_CHATS_OF, (application,)))[0]
    faults = []
    if count and (first != 1 or last != count):
        faults.append(f"chats are numbered to {last}, there are {count}")
    if row and row[0][0] != count:
        faults.append(f"chats_count is {row[0][0]}, there are {count}")
    return faults


async def _count(
    snapshot: Transaction, application: ApplicationId, after: int, chats: int = CHATS_AT_ONCE
) -> tuple[list[_Counted], int]:
    """The next chats with what their messages are, and up to where that was."""
    rows = await snapshot.fetch(_CHATS, (application, after, chats))
    end = rows[-1][0] if len(rows) == chats else _LAST
    counted = {row[0]: _Counted(*row) for row in rows}
    for chat, *found in await snapshot.fetch(_MESSAGES, (application, after, end)):
        row = counted.setdefault(chat, _Counted(chat, 0, 0, 0))
        row.rows, row.first, row.last, row.revisions, row.latest, row.living = found
    return list(counted.values()), end


async def _wrong_counts(database: Database, application: ApplicationId, after: int) -> tuple[Sequence[int], int]:
    async with database.snapshot() as snapshot:
        counted, end = await _count(snapshot, application, after)
    return [chat.chat for chat in counted if chat.version > 0 and chat.messages_count != chat.living], end


async def _mend(application: ApplicationId, number: int, transaction: Transaction) -> str | None:
    """Write the count of one chat, unless it turns out to be right, or something of the chat is not applied yet."""
    # What is being applied to the chat comes before this, or waits for it and counts later.
    locked = await transaction.fetch(
        "SELECT number FROM chats WHERE application_id = %s AND number = %s FOR UPDATE", (application, number)
    )
    if not locked:
        return None
    counted, _ = await _count(transaction, application, number - 1, 1)
    chat = counted[0]
    if chat.messages_count == chat.living or chat.has_gap or chat.revision > chat.latest:
        return None
    await transaction.execute(
        "UPDATE chats SET messages_count = %s WHERE application_id = %s AND number = %s",
        (chat.living, application, number),
    )
    return chat.wrong_count


async def _mend_chats_count(application: ApplicationId, transaction: Transaction) -> str | None:
    locked = await transaction.fetch("SELECT chats_count FROM applications WHERE id = %s FOR UPDATE", (application,))
    count, first, last = (await transaction.fetch(_CHATS_OF, (application,)))[0]
    if not locked or locked[0][0] == count or (count and (first != 1 or last != count)):
        return None
    await transaction.execute("UPDATE applications SET chats_count = %s WHERE id = %s", (count, application))
    return f"chats_count is {locked[0][0]}, there are {count}"
