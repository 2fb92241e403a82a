"""What the search index does not know yet: this is the search projection's journal.

A message that was posted costs no row of its own here. `search_behind` says of a chat above which number nothing was
indexed; a row comes with the first message that is not, and goes when the index has caught up. `search_queue` names
single messages: those that changed after they were indexed, with the text under which the index holds them, and those
that were set aside. **A row of the queue counts more than the chat's number.** So the index holds of a message

- what the queue says that it holds, if the queue names it,
- nothing, if its number is above its chat's in `search_behind`,
- its present text otherwise.

Everything here is part of the transaction that posts, changes, indexes or removes: there is no moment, and no crash,
after which this is not so. `tests/contract/test_embedded_tables.py` compares it with the index itself.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import json

from chat_system.embedded.database import Insert, Transaction
from chat_system.embedded.rows import NUMBER_BITS, NUMBER_MASK, message_id
from chat_system.ports import Backlog

FALL_BEHIND = Insert("search_behind (chat_id, above, since)", or_else="IGNORE")
"""Of a chat that is posted to: its last number before. If it is behind already, its row is right as it is."""

SAID_TO_BE_HELD = f"""
    SELECT m.id, CASE
        WHEN q.id IS NOT NULL THEN q.indexed_as
        WHEN b.above < m.id & {NUMBER_MASK} THEN NULL
        WHEN m.deleted_at IS NULL THEN coalesce(m.folded, m.body)
    END AS said
    FROM messages m LEFT JOIN search_queue q ON q.id = m.id
    LEFT JOIN search_behind b ON b.chat_id = m.id >> {NUMBER_BITS}"""
"""Of every message, the text under which the index holds it; NULL when it holds none."""

# Above the number of a chat, and named by no row of its own.
_POSTED = f"""
    m.id > (b.chat_id << {NUMBER_BITS}) + b.above AND m.id <= (b.chat_id << {NUMBER_BITS}) + {NUMBER_MASK}
    AND m.id NOT IN (SELECT id FROM search_queue)"""

_QUEUED = "EXISTS (SELECT 1 FROM search_queue WHERE id = :id)"
_ABOVE = f"EXISTS (SELECT 1 FROM search_behind WHERE chat_id = :id >> {NUMBER_BITS} AND above < :id & {NUMBER_MASK})"

# What was never indexed is indexed as it is when its turn comes; what is queued already keeps the text under which the
# index holds it, and is given another try.
_CHANGE = f"""
    INSERT INTO search_queue (id, indexed_as, queued_at) SELECT :id, :indexed_as, :at WHERE {_QUEUED} OR NOT {_ABOVE}
    ON CONFLICT (id) DO UPDATE SET error = NULL"""

# Not the message itself: the statement that indexes it reads it, and here it would be made into objects for nothing.
_ENTRY_COLUMNS = "m.id, m.application_id, chats.number"
_READ_CHANGED = f"""
    SELECT {_ENTRY_COLUMNS}
    FROM search_queue q JOIN messages m ON m.id = q.id JOIN chats ON chats.id = m.id >> {NUMBER_BITS}
    WHERE q.id > :after AND q.error IS NULL ORDER BY q.id LIMIT :limit"""
# CROSS JOIN keeps the order in which chats and their messages lie, so that nothing has to be sorted.
_READ_POSTED = f"""
    SELECT {_ENTRY_COLUMNS}
    FROM search_behind b CROSS JOIN chats ON chats.id = b.chat_id CROSS JOIN messages m ON m.id > :after AND {_POSTED}
    WHERE b.chat_id >= :after >> {NUMBER_BITS} ORDER BY b.chat_id, m.id LIMIT :limit"""

_INDEX_POSTED = f"""
    INSERT INTO search (rowid, folded) SELECT m.id, coalesce(m.folded, m.body)
    FROM json_each(:ids) i CROSS JOIN search_behind b ON b.chat_id = i.value >> {NUMBER_BITS}
    CROSS JOIN messages m ON m.id = i.value AND {_POSTED}
    WHERE m.deleted_at IS NULL"""
# Of each of their chats, `upto` has the key of the last one: up to there it is indexed then. What is passed over,
# because the messages before were read and then not applied, is named from now on.
_NAME_PASSED_OVER = f"""
    INSERT INTO search_queue (id, queued_at) SELECT m.id, b.since
    FROM json_each(:upto) u CROSS JOIN search_behind b ON b.chat_id = u.value >> {NUMBER_BITS}
    CROSS JOIN messages m ON m.id <= u.value AND {_POSTED} AND m.id NOT IN (SELECT value FROM json_each(:ids))"""
_ADVANCE = f"""
    UPDATE search_behind SET
        above = max(above, u.value & {NUMBER_MASK}),
        since = max(since, coalesce((SELECT created_at FROM messages WHERE id = u.value + 1), since))
    FROM json_each(:upto) u WHERE chat_id = u.value >> {NUMBER_BITS}"""
_CATCH_UP = f"""
    DELETE FROM search_behind AS b
    WHERE b.chat_id IN (SELECT value >> {NUMBER_BITS} FROM json_each(:upto))
        AND NOT EXISTS (SELECT 1 FROM messages m WHERE {_POSTED})"""

# What the index holds under an old text goes, what is there now comes.
_UNINDEX_QUEUED = """
    INSERT INTO search (search, rowid, folded) SELECT 'delete', id, indexed_as FROM search_queue
    WHERE indexed_as IS NOT NULL AND id IN (SELECT value FROM json_each(:ids))"""
_INDEX_QUEUED = """
    INSERT INTO search (rowid, folded) SELECT m.id, coalesce(m.folded, m.body)
    FROM search_queue q JOIN messages m ON m.id = q.id
    WHERE m.deleted_at IS NULL AND q.id IN (SELECT value FROM json_each(:ids))"""
_DEQUEUE = "DELETE FROM search_queue WHERE id IN (SELECT value FROM json_each(:ids))"
_UNINDEX_OTHERS = f"""
    INSERT INTO search (search, rowid, folded) SELECT 'delete', id, coalesce(folded, body) FROM messages m
    WHERE deleted_at IS NULL AND id IN (SELECT value FROM json_each(:ids))
        AND id NOT IN (SELECT id FROM search_queue)
        AND NOT EXISTS (
            SELECT 1 FROM search_behind
            WHERE chat_id = m.id >> {NUMBER_BITS} AND above < m.id & {NUMBER_MASK})"""

_SET_ASIDE = f"""
    INSERT INTO search_queue (id, queued_at, error) SELECT :id, :at, :error WHERE {_QUEUED} OR {_ABOVE}
    ON CONFLICT (id) DO UPDATE SET error = excluded.error"""
_ASIDES = f"""
    SELECT q.id, c.application_id, c.number, q.error
    FROM search_queue q JOIN chats c ON c.id = q.id >> {NUMBER_BITS} WHERE q.error IS NOT NULL ORDER BY q.id"""

_BACKLOG_QUEUED = """
    SELECT count(*) FILTER (WHERE error IS NULL), min(queued_at) FILTER (WHERE error IS NULL), count(error)
    FROM search_queue"""
# Numbers have no gaps: how many there are need not be counted, but for those that the queue names.
_BACKLOG_POSTED = f"""
    SELECT sum(
        coalesce((
            SELECT max(id) & {NUMBER_MASK} FROM messages m
            WHERE m.id BETWEEN b.chat_id << {NUMBER_BITS} AND (b.chat_id << {NUMBER_BITS}) + {NUMBER_MASK}
        ) - above, 0) - (
            SELECT count(*) FROM search_queue q
            WHERE q.id > (b.chat_id << {NUMBER_BITS}) + b.above
                AND q.id <= (b.chat_id << {NUMBER_BITS}) + {NUMBER_MASK})
    ), min(since) FROM search_behind b"""


def change(transaction: Transaction, key: int, indexed_as: str | None) -> None:
    """A message has changed whose text was `indexed_as` when it was last indexed, if it was."""
    transaction.execute(_CHANGE, {"id": key, "indexed_as": indexed_as, "at": transaction.at})


def read(connection: sqlite3.Connection, after: int, limit: int) -> list[Any]:
    """The next `limit` messages by key after this one, as rows of key, application, chat number."""
    parameters = {"after": after, "limit": limit}
    rows = connection.execute(_READ_CHANGED, parameters).fetchall()
    rows += connection.execute(_READ_POSTED, parameters).fetchall()
    rows.sort(key=_key)
    return rows[:limit]


def above(connection: sqlite3.Connection, chat_id: int, otherwise: int) -> int:
    """The key above which the index knows no message of a chat that the queue does not name."""
    row = connection.execute("SELECT above FROM search_behind WHERE chat_id = ?", (chat_id,)).fetchone()
    return otherwise if row is None else message_id(chat_id, row[0])


def index(transaction: Transaction, keys: Iterable[int]) -> None:
    """Bring the index up to the latest text of these messages."""
    ids = sorted(set(keys))
    last = {key >> NUMBER_BITS: key for key in ids}
    parameters = {"ids": json.encode(ids).decode(), "upto": json.encode(list(last.values())).decode()}
    # A statement each for all of them: the thread needs the interpreter's lock only between two. What is queued comes
    # last: when its row goes, the number of its chat must be above it.
    for sql in (_INDEX_POSTED, _NAME_PASSED_OVER, _ADVANCE, _CATCH_UP, _UNINDEX_QUEUED, _INDEX_QUEUED, _DEQUEUE):
        transaction.execute(sql, parameters)


def merge(transaction: Transaction, pages: int) -> bool:
    """Merge so many pages of the index' segments, so that searches look into few of them; False when none need it.

    FTS5 counts the changed rows of its tables by SQLite's `total_changes`, and says that fewer than two mean that
    nothing was left to do (https://www.sqlite.org/fts5.html, "The 'merge' Command").
    """
    (before,) = transaction.lookup("SELECT total_changes()")
    transaction.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
    (after,) = transaction.lookup("SELECT total_changes()")
    return bool(after - before >= 2)


def remove(transaction: Transaction, keys: Sequence[int]) -> None:
    """Take messages out of the index and its queue, in the transaction that removes their rows."""
    for sql in (_UNINDEX_OTHERS, _UNINDEX_QUEUED, _DEQUEUE):
        transaction.execute(sql, {"ids": json.encode(keys).decode()})


def set_aside(transaction: Transaction, key: int, error: str) -> None:
    """Name a message that can't be indexed, so that those after it can be."""
    transaction.execute(_SET_ASIDE, {"id": key, "at": transaction.at, "error": error})
    transaction.execute(_CATCH_UP, {"upto": json.encode([key]).decode()})


def asides(connection: sqlite3.Connection) -> list[Any]:
    """What was set aside, as rows of key, application, chat number, error."""
    return connection.execute(_ASIDES).fetchall()


def retry(transaction: Transaction) -> int:
    """Let what was set aside be read again; how many that are."""
    return transaction.execute("UPDATE search_queue SET error = NULL WHERE error IS NOT NULL").rowcount


def backlog(connection: sqlite3.Connection) -> Backlog:
    """How much there is, and how old."""
    changed, changed_at, set_aside = connection.execute(_BACKLOG_QUEUED).fetchone()
    posted, posted_at = connection.execute(_BACKLOG_POSTED).fetchone()
    oldest = min((at for at in (changed_at, posted_at) if at is not None), default=None)
    entries = changed + (posted or 0)
    lag_s = 0.0 if oldest is None or not entries else max(0.0, time.time() - oldest / 1000)
    return Backlog(entries, lag_s, set_aside)


def _key(row: Any) -> int:
    key: int = row[0]
    return key
