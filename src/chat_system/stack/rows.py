"""From rows to answers: how the tables of MySQL read as applications, chats and messages."""

from __future__ import annotations

from typing import Any

from chat_system.model import (
    Application,
    Chat,
    ChatChanged,
    KeyUsed,
    MessageChanged,
    Once,
    Receipt,
    raw,
    rfc3339,
)

MESSAGE_COLUMNS = "number, revision, sender, body, metadata, created_at, updated_at, deleted_at"
"""The fields of a MessageChanged."""
CHAT_COLUMNS = "number, title, metadata, messages_count, revision, version, created_at, updated_at"
APPLICATION_COLUMNS = "token, name, chats_count, created_at, updated_at"
RECEIPT_COLUMNS = "application_id, once, fingerprint, number, revision, count, created_at, expires_at"

Row = tuple[Any, ...]


def changed(row: Row) -> MessageChanged:
    """A row of MESSAGE_COLUMNS, as projections get it."""
    return MessageChanged(*row)


def chat_changed(row: Row) -> ChatChanged:
    """The chat's own fields of a row of CHAT_COLUMNS."""
    _, title, metadata, _, _, version, created_at, updated_at = row
    return ChatChanged(version, title, metadata, created_at, updated_at)


def chat(number: int, row: Row | None, unapplied: ChatChanged | None, revision: int = 0) -> Chat | None:
    """A chat of a row of CHAT_COLUMNS and what is not applied yet; None when neither knows of its opening.

    `revision` is the journal's, if it is higher.
    """
    own, count = None, 0
    if row is not None:
        count, revision = row[3], max(row[4], revision)
        own = chat_changed(row) if row[5] > 0 else None
    if unapplied is not None and (own is None or unapplied.version > own.version):
        own = unapplied
    if own is None:
        return None
    return Chat(number, own.title, raw(own.metadata), count, revision, rfc3339(own.created_at), rfc3339(own.updated_at))


def application(row: Row) -> Application:
    """A row of APPLICATION_COLUMNS."""
    token, name, chats_count, created_at, updated_at = row
    return Application(token, name, chats_count, rfc3339(created_at), rfc3339(updated_at))


def key_used(row: Row) -> KeyUsed:
    """A row of RECEIPT_COLUMNS."""
    _, once, fingerprint, number, revision, count, created_at, expires_at = row
    kept_s = None if expires_at is None else (expires_at - created_at) // 1000
    receipt = Receipt(number, revision, created_at, count, replayed=True)
    return KeyUsed(Once(once, fingerprint, kept_s), receipt, expires_at)
