"""From rows to answers: how the tables of the SQLite file read as chats and messages."""

from __future__ import annotations

from typing import Any

from chat_system.model import Application, Chat, FoundMessage, messages_of, raw, rfc3339

NUMBER_BITS = 32
NUMBER_MASK = (1 << NUMBER_BITS) - 1

MESSAGE_COLUMNS = (
    "m.id & 4294967295, m.revision, m.sender, m.body, m.metadata, m.created_at, m.updated_at, m.deleted_at"
)
"""The fields of a MessageChanged."""
CHAT_COLUMNS = "number, title, metadata, messages_count, revision, created_at, updated_at"
APPLICATION_COLUMNS = "token, name, chats_count, created_at, updated_at"


def message_id(chat_id: int, number: int) -> int:
    """The key of a message: chats lie one after another, and messages in a chat by number."""
    return chat_id << NUMBER_BITS | number


def found_message(row: Any) -> FoundMessage:
    """A row of MESSAGE_COLUMNS and the chat's number."""
    (plain,) = messages_of([row[:-1]])
    return FoundMessage(
        plain.number,
        plain.sender,
        plain.body,
        plain.metadata,
        plain.revision,
        plain.created_at,
        plain.updated_at,
        plain.deleted_at,
        chat_number=row[-1],
    )


def chat(row: Any) -> Chat:
    """A row of CHAT_COLUMNS."""
    number, title, metadata, messages_count, revision, created_at, updated_at = row
    return Chat(number, title, raw(metadata), messages_count, revision, rfc3339(created_at), rfc3339(updated_at))


def application(row: Any) -> Application:
    """A row of APPLICATION_COLUMNS."""
    token, name, chats_count, created_at, updated_at = row
    return Application(token, name, chats_count, rfc3339(created_at), rfc3339(updated_at))
