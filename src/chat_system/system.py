"""ChatSystem: every use case, one method each.

The web, the command line and the tests all come through here. A use case is given inputs that are
well-formed (`check()` was called) and an application that was resolved from its token; it decides what
happens and leaves numbering, durability and search to the ports.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from itertools import count
from weakref import WeakValueDictionary

import msgspec

from chat_system.errors import Conflict, Invalid, NotFound, Stale, Unavailable
from chat_system.model import (
    PAGE_DEFAULT_ITEMS,
    PAGE_MAX_ITEMS,
    QUERY_MAX_CHARACTERS,
    TOKEN_BYTES,
    TOKEN_CHARACTERS,
    Application,
    ApplicationEdit,
    ApplicationId,
    ChangeChat,
    Chat,
    ChatEdit,
    DeleteMessage,
    EditMessage,
    FoundMessage,
    Message,
    MessageEdit,
    NewApplication,
    NewChat,
    NewMessage,
    Once,
    OpenChat,
    PostMessages,
    Receipt,
    Window,
    canonical,
    encode_metadata,
    fold,
    raw,
    rfc3339,
)
from chat_system.ports import ApplicationWindow, Discrepancy, Found, Journal, SearchIndex, Store

EDIT_ATTEMPTS = 16
"""How often an edit is tried anew when other processes edit the same message at the same moment."""


class ChatSystem:
    """The whole service, without a network. Thread-bound to the event loop that it was made on."""

    def __init__(self, journal: Journal, store: Store, search: SearchIndex) -> None:
        self._journal = journal
        self._store = store
        self._search = search
        self._editing: WeakValueDictionary[tuple[ApplicationId, int, int], asyncio.Lock] = WeakValueDictionary()

    # Applications

    async def create_application(self, new: NewApplication, *, once: Once | None = None) -> tuple[Application, bool]:
        """Create an application under a new random token. The flag says that `once` was a repeat."""
        token = base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).rstrip(b"=").decode()
        return await self._store.create_application(token, new.name, once=once)

    async def open(self, token: str) -> ApplicationId:
        """The application that a token opens. Raises NotFound."""
        if len(token) == TOKEN_CHARACTERS:
            application = await self._store.resolve(token)
            if application is not None:
                return application
        raise NotFound

    def recall(self, token: str) -> ApplicationId | None:
        """The application that a token is remembered to open; None when it has to be opened."""
        return self._store.recall(token)

    async def application(self, application: ApplicationId) -> Application:
        """Read an application. Raises NotFound."""
        return await self._store.application(application)

    async def applications(self, window: ApplicationWindow) -> Sequence[Application]:
        """A page of all applications, oldest first."""
        return await self._store.applications(window)

    async def rename_application(self, application: ApplicationId, edit: ApplicationEdit) -> Application:
        """Give an application another name, if the edit has one. Raises NotFound."""
        if isinstance(edit.name, str):
            return await self._store.rename_application(application, edit.name)
        return await self._store.application(application)

    async def erase_application(self, application: ApplicationId) -> None:
        """Erase an application and everything in it. Raises NotFound."""
        await self._store.erase_application(application)

    # Chats

    async def open_chat(
        self, application: ApplicationId, new: NewChat, *, once: Once | None = None
    ) -> tuple[Chat, bool]:
        """Open the application's next chat. The flag says that `once` was a repeat."""
        receipt = await self._journal.append(application, OpenChat(new), once=once)
        at = rfc3339(receipt.at)
        chat = Chat(
            number=receipt.number,
            title=new.title,
            metadata=raw(encode_metadata(new.metadata)),
            messages_count=0,
            revision=0,
            created_at=at,
            updated_at=at,
        )
        return chat, receipt.replayed

    async def chat(self, application: ApplicationId, chat: int) -> Chat:
        """Read a chat. Raises NotFound."""
        return await self._store.chat(application, chat)

    async def chats(self, application: ApplicationId, window: Window) -> Sequence[Chat]:
        """A page of an application's chats by number."""
        return await self._store.chats(application, window)

    async def edit_chat(self, application: ApplicationId, chat: int, edit: ChatEdit) -> Chat:
        """Replace the fields of a chat that the edit names. Raises NotFound."""
        await self._journal.append(application, ChangeChat(chat, edit))
        return await self._store.chat(application, chat)

    # Messages

    async def post_message(
        self, application: ApplicationId, chat: int, new: NewMessage, *, once: Once | None = None
    ) -> tuple[Message, bool]:
        """Post one message. The flag says that `once` was a repeat. Raises NotFound."""
        receipt = await self._journal.append(application, PostMessages(chat, [new]), once=once)
        return _posted([new], receipt)[0], receipt.replayed

    async def post_messages(
        self, application: ApplicationId, chat: int, new: list[NewMessage], *, once: Once | None = None
    ) -> tuple[list[Message], bool]:
        """Post all of the messages, consecutively, or none. Raises NotFound."""
        receipt = await self._journal.append(application, PostMessages(chat, new), once=once)
        return _posted(new, receipt), receipt.replayed

    async def import_messages(
        self, application: ApplicationId, chat: int, new: list[NewMessage], *, sent_at: list[int], once: Once
    ) -> Receipt:
        """Post messages that were sent elsewhere, with their times (milliseconds, one per message).

        Raises:
            NotFound: the chat is unknown to this application.
            IdempotencyMismatch: `once` was used with other messages; `receipt` tells with how many.
        """
        return await self._journal.append(application, PostMessages(chat, new, sent_at), once=once)

    async def receipt(self, application: ApplicationId, once: Once) -> Receipt | None:
        """What the first request with this key was allotted, whatever its payload; None if there was none."""
        return await self._journal.receipt(application, once)

    async def message(self, application: ApplicationId, chat: int, number: int) -> Message:
        """Read a message in its latest state. Raises NotFound."""
        return await self._store.message(application, chat, number)

    async def messages(self, application: ApplicationId, chat: int, window: Window) -> Sequence[Message]:
        """A page of a chat's messages by number, tombstones included. Raises NotFound."""
        return await self._store.messages(application, chat, window)

    async def changes(self, application: ApplicationId, chat: int, after: int, limit: int) -> Sequence[Message]:
        """What changed after a revision, in its latest state, by revision. Raises NotFound."""
        return await self._store.changes(application, chat, after, limit)

    async def revision(self, application: ApplicationId, chat: int) -> int:
        """The chat's latest revision. Raises NotFound."""
        return await self._store.revision(application, chat)

    async def edit_message(self, application: ApplicationId, chat: int, number: int, edit: MessageEdit) -> Message:
        """Replace the fields that the edit names. An edit that changes nothing takes no revision.

        Raises:
            NotFound: the message is unknown to this application.
            Conflict: it is deleted.
        """
        # One after another within this process: those who edit the same message would only make each other stale.
        async with self._editing.setdefault((application, chat, number), asyncio.Lock()):
            for _ in range(EDIT_ATTEMPTS):
                current = await self._store.message(application, chat, number)
                if current.body is None:
                    raise Conflict("A deleted message can't be edited.")
                change = _edit(chat, current, edit)
                if change is None:
                    return current
                try:
                    receipt = await self._journal.append(application, change)
                except Stale:
                    continue
                return Message(
                    number=number,
                    sender=current.sender,
                    body=change.body,
                    metadata=raw(change.metadata),
                    revision=receipt.revision,
                    created_at=current.created_at,
                    updated_at=rfc3339(receipt.at),
                )
        raise Unavailable("The message is being edited by too many at once.")

    async def delete_message(self, application: ApplicationId, chat: int, number: int) -> None:
        """Leave a tombstone; of a tombstone, change nothing. Raises NotFound."""
        await self._journal.append(application, DeleteMessage(chat, number))

    # Search

    async def search_chat(
        self,
        application: ApplicationId,
        chat: int,
        query: str,
        *,
        before: int | None = None,
        limit: int = PAGE_DEFAULT_ITEMS,
    ) -> Sequence[Message]:
        """The chat's messages that contain the query, letter case apart, newest first. Raises NotFound."""
        return await self._search.in_chat(application, chat, fold(check_query(query)), before=before, limit=limit)

    async def search_application(
        self, application: ApplicationId, query: str, *, after: Found | None = None, limit: int = PAGE_DEFAULT_ITEMS
    ) -> Sequence[tuple[Found, FoundMessage]]:
        """The same over all chats of an application, newest first."""
        return await self._search.in_application(application, fold(check_query(query)), after=after, limit=limit)

    # Operations

    async def ping(self) -> str | None:
        """What is away of what only searches need, as a sentence.

        Raises:
            Unavailable: something is away that everything else needs; its sentences name all that is.
        """
        missing = await asyncio.gather(*(_missing(part) for part in (self._journal, self._store, self._search)))
        if missing[0] or missing[1]:
            raise Unavailable(" ".join(dict.fromkeys(sentence for sentence in missing if sentence)))
        return missing[2]

    async def export(self, application: ApplicationId) -> AsyncIterator[tuple[Chat, Sequence[Message]]]:
        """Everything of an application that is not deleted: pages of messages by chat, in order.

        Every chat comes at least once, with no messages when it has none.
        """
        async for chat in self._store.all_chats(application):
            after, first = 0, True
            while True:
                page = await self._store.messages(application, chat.number, Window(PAGE_MAX_ITEMS, after))
                if page or first:
                    yield chat, [message for message in page if message.deleted_at is None]
                if len(page) < PAGE_MAX_ITEMS:
                    break
                after, first = page[-1].number, False

    async def verify(self) -> Sequence[Discrepancy]:
        """What is wrong with numbers, revisions and counts. Empty when all is well."""
        return await self._store.verify()

    async def recount(self) -> Sequence[Discrepancy]:
        """Write every count anew from the rows; return the ones that were wrong."""
        return await self._store.recount()

    async def sweep(self) -> bool:
        """Remove a bounded piece of what was erased or has expired; True when more remains."""
        return await self._store.sweep()


async def _missing(part: Journal | Store | SearchIndex) -> str | None:
    try:
        await part.ping()
    except Unavailable as error:
        return error.detail
    return None


def check_query(query: str) -> str:
    """Raise `Invalid` unless it is 1 to 256 characters that a message could contain."""
    if not 1 <= len(query) <= QUERY_MAX_CHARACTERS:
        raise Invalid.at("?q", f"must have 1 to {QUERY_MAX_CHARACTERS} characters")
    if "\0" in query:
        raise Invalid.at("?q", "must not contain U+0000")
    return query


# Those that were recorded together have one time.
_shown_at = lru_cache(maxsize=64)(rfc3339)


def _posted(new: Sequence[NewMessage], receipt: Receipt) -> list[Message]:
    """Messages as they were recorded."""
    at = _shown_at(receipt.at)
    return [
        Message(
            number,
            message.sender,
            message.body,
            None if message.metadata is None else raw(encode_metadata(message.metadata)),
            revision,
            at,
            at,
        )
        for message, number, revision in zip(new, count(receipt.number), count(receipt.revision), strict=False)
    ]


def _edit(chat: int, current: Message, edit: MessageEdit) -> EditMessage | None:
    """The change that an edit of this state makes, or None when it makes none."""
    before = None if current.metadata is None else msgspec.json.decode(current.metadata)
    body = edit.body if isinstance(edit.body, str) else current.body
    metadata = before if edit.metadata is msgspec.UNSET else edit.metadata
    if body is None or (body == current.body and canonical(metadata) == canonical(before)):
        return None
    return EditMessage(chat, current.number, current.revision, body, encode_metadata(metadata))
