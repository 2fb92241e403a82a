"""Removing what was erased or has expired, in pieces that hold up nobody.

An erased application leaves the search index first, then its messages go, its chats and its keys. Its own row stays
for an hour longer: facts of it may still be on their way, and the row is what refuses them. What arrives all the same
is removed when the sweep comes by again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from chat_system.model import ApplicationId
from chat_system.stack.mysql import Database, Transaction

SWEEP_ROWS = 2_000
KEPT_MS = 3_600_000
"""How long the row of an erased application stays at least."""

APPLICATIONS_AT_ONCE = 100

Act = Callable[[ApplicationId], Awaitable[None]]

_ERASED = "SELECT id, erased_at FROM applications WHERE erased_at IS NOT NULL AND id > %s ORDER BY id LIMIT %s"
# By primary key: what is removed lies together, and replicas remove the same.
_PIECES = (
    "DELETE FROM messages WHERE application_id = %s ORDER BY chat_number, number LIMIT %s",
    "DELETE FROM chats WHERE application_id = %s ORDER BY number LIMIT %s",
    "DELETE FROM receipts WHERE application_id = %s ORDER BY once LIMIT %s",
)


async def sweep(database: Database, close: Act, erase_index: Act | None, unindexed: set[ApplicationId]) -> bool:
    """Remove a piece; True when more remains that can be removed now.

    `close` refuses an application everywhere. `unindexed` remembers of which erased applications the search index was
    freed already.

    Raises:
        Unavailable: MySQL, Redis or the search index is away.
    """
    now = time.time_ns() // 1_000_000
    if await _remove("DELETE FROM receipts WHERE expires_at < %s ORDER BY expires_at LIMIT %s", now, database):
        return True
    after = 0
    while erased := await database.fetch(_ERASED, (after, APPLICATIONS_AT_ONCE)):
        for application, erased_at in erased:
            if application not in unindexed:
                # Again: whoever erased it may have been stopped before, or Redis may have forgotten.
                await close(application)
                if erase_index is not None:
                    await erase_index(application)
                unindexed.add(application)
            for piece in _PIECES:
                if await _remove(piece, application, database):
                    return True
            if erased_at < now - KEPT_MS:
                if erase_index is not None:
                    # What was on its way to the index when it was freed has arrived by now.
                    await erase_index(application)
                await _remove("DELETE FROM applications WHERE id = %s LIMIT %s", application, database)
                unindexed.discard(application)
        after = erased[-1][0]
    return False


async def _remove(piece: str, whose: int, database: Database) -> int:
    async def unit(transaction: Transaction) -> int:
        return await transaction.execute(piece, (whose, SWEEP_ROWS))

    return await database.commit(unit)
