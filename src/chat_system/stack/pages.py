"""Reading a chat: what MySQL holds, with the journal's unapplied tail laid over it.

The tail is read first, then MySQL, then both are merged. A fact leaves the tail only after MySQL has committed it, so
what is in neither does not exist. The other order would lose a fact that is applied in between.

A chat whose counters the journal knows (`warm`) tells how far its numbers and revisions go, and both are given
without gaps: so it is known which ones a page consists of, MySQL is asked only for those that the tail does not have,
and what was accepted after the tail was read is left for the next page. A chat that is not warm has no tail, and its
page is MySQL's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TypeVar

from chat_system.errors import NotFound
from chat_system.model import NUMBER_MAX, ApplicationId, Chat, Message, MessageChanged, Window, messages_of
from chat_system.stack import rows
from chat_system.stack.mysql import Database
from chat_system.stack.rows import CHAT_COLUMNS, MESSAGE_COLUMNS
from chat_system.stack.tail import ChatTail, Tail

ATTEMPTS = 3
"""How often a page is read when its chat woke up meanwhile. After that it is answered as it was found."""

# One lookup for the statement, not one for each row. MySQL knows first that an application is erased.
_STANDS = "EXISTS (SELECT 1 FROM applications WHERE id = %s AND erased_at IS NULL)"

_REQUIRE = "SELECT 1 FROM applications WHERE id = %s AND erased_at IS NULL"
_MESSAGE = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages
    WHERE application_id = %s AND chat_number = %s AND number = %s AND {_STANDS}"""
_MESSAGES = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages
    WHERE application_id = %s AND chat_number = %s AND number > %s AND number < %s AND {_STANDS}
    ORDER BY number {{}} LIMIT %s"""
# Without the hint MariaDB may read a whole chat and sort it.
_CHANGES = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages FORCE INDEX (messages_by_revision)
    WHERE application_id = %s AND chat_number = %s AND revision > %s AND revision <= %s AND {_STANDS}
    ORDER BY revision LIMIT %s"""
_CHAT = f"SELECT {CHAT_COLUMNS} FROM chats WHERE application_id = %s AND number = %s AND {_STANDS}"
_CHATS = f"""
    SELECT {CHAT_COLUMNS} FROM chats
    WHERE application_id = %s AND number > %s AND number < %s AND version >= %s AND {_STANDS}
    ORDER BY number {{}} LIMIT %s"""
# The inner query names no column of the outer one: so it is one dive into the index.
_REVISION = f"""
    SELECT GREATEST(revision, COALESCE((
        SELECT MAX(m.revision) FROM messages m
        WHERE m.application_id = %s AND m.chat_number = %s), 0))
    FROM chats WHERE application_id = %s AND number = %s AND version > 0 AND {_STANDS}"""

REVISION_MAX = 2**63 - 1

Item = TypeVar("Item")


class Pages:
    """Reads of chats and messages, by the contracts of `ports.Store`, which `StackStore` inherits."""

    def __init__(self, database: Database, tail: Tail) -> None:
        self._database = database
        self._tail = tail

    async def require(self, application: ApplicationId) -> None:
        """Raises NotFound when the application is unknown or erased."""
        if not await self._database.fetch(_REQUIRE, (application,)):
            raise NotFound

    async def require_chat(self, application: ApplicationId, chat: int) -> None:
        """Raises NotFound when the chat is unknown to this application."""
        await self.revision(application, chat)

    async def revision(self, application: ApplicationId, chat: int) -> int:
        """See `ports.Store.revision`."""
        _check(chat)
        tail = await self._tail.chat(application, chat)
        if tail.warm:
            return tail.revision
        return await self._stored_revision(application, chat)

    async def chat(self, application: ApplicationId, chat: int) -> Chat:
        """See `ports.Store.chat`."""
        _check(chat)
        tail = await self._tail.chat(application, chat)
        found = await self._database.fetch(_CHAT, (application, chat, application))
        shown = rows.chat(chat, found[0] if found else None, tail.chat, tail.revision)
        if shown is None:
            raise NotFound
        return shown

    async def chats(self, application: ApplicationId, window: Window) -> Sequence[Chat]:
        """See `ports.Store.chats`."""
        if window.skip:
            # Pages by their number go from the start, and numbers have no gaps: so it begins so much further on.
            window = Window(
                window.limit,
                min(window.after + window.skip, NUMBER_MAX),
                window.before,
                window.from_end,
                window.descending,
            )
        attempts = 0
        while True:
            tail = await self._tail.chats(application, window)
            if tail.last:
                low, high = _range(window, tail.last)
                # A chat that has only been counted yet is there as soon as the tail knows the rest.
                found = await self._read_chats(application, low - 1, high + 1, 0, window) if low <= high else []
                numbers: Iterable[int] = range(low, high + 1)
            else:
                found = await self._read_chats(application, *_bounds(window), 1, window)
                numbers = sorted(row[0] for row in found)
            attempts += 1
            if tail.last or attempts == ATTEMPTS or not _has_gap(numbers, window):
                break
        stored = {row[0]: row for row in found}
        shown = [rows.chat(number, stored.get(number), tail.chats.get(number)) for number in numbers]
        if not shown and not tail.last:
            await self.require(application)
        return _arranged([chat for chat in shown if chat is not None], window)

    async def message(self, application: ApplicationId, chat: int, number: int) -> Message:
        """See `ports.Store.message`."""
        state = await self.message_state(application, chat, number)
        return state.shown()

    async def message_state(self, application: ApplicationId, chat: int, number: int) -> MessageChanged:
        """The same, as a fact."""
        _check(chat)
        _check(number)
        tail = await self._tail.message(application, chat, number)
        if number in tail.messages:
            return tail.messages[number]
        if not tail.warm or number <= tail.last:
            found = await self._database.fetch(_MESSAGE, (application, chat, number, application))
            if found:
                return rows.changed(found[0])
        raise NotFound

    async def messages(self, application: ApplicationId, chat: int, window: Window) -> Sequence[Message]:
        """See `ports.Store.messages`."""
        _check(chat)
        attempts = 0
        while True:
            tail = await self._tail.window(application, chat, window)
            if tail.warm:
                return _arranged(await self._warm_messages(application, chat, window, tail), window)
            found = await self._read_messages(application, chat, *_bounds(window), window)
            page = sorted(messages_of(found), key=attrgetter("number"))
            # Whoever posted just now may have been applied before the one before them: then there is a tail by now.
            attempts += 1
            if attempts == ATTEMPTS or not _has_gap([message.number for message in page], window):
                break
        if not page:
            await self._stored_revision(application, chat)
        return _arranged(page, window)

    async def changes(self, application: ApplicationId, chat: int, after: int, limit: int) -> Sequence[Message]:
        """See `ports.Store.changes`."""
        _check(chat)
        after = min(after, REVISION_MAX)
        attempts = 0
        while True:
            tail = await self._tail.revisions(application, chat, after, limit)
            if tail.warm:
                return [state.shown() for state in await self._warm_changes(application, chat, after, limit, tail)]
            found = await self._database.fetch(_CHANGES, (application, chat, after, REVISION_MAX, application, limit))
            # As with `messages`; but revisions may have gaps, so the tail has to say whether anything happened.
            attempts += 1
            if attempts == ATTEMPTS or not found or not (await self._tail.chat(application, chat)).warm:
                break
        if not found:
            await self._stored_revision(application, chat)
        return messages_of(found)

    async def _warm_messages(
        self, application: ApplicationId, chat: int, window: Window, tail: ChatTail
    ) -> list[Message]:
        low, high = _range(window, tail.last)
        if not tail.messages:
            found = await self._read_messages(application, chat, low - 1, high + 1, window) if low <= high else []
            return messages_of(reversed(found) if window.from_end else found)
        missing = [number for number in range(low, high + 1) if number not in tail.messages]
        page = {}
        if missing:
            found = await self._read_messages(application, chat, missing[0] - 1, missing[-1] + 1, window)
            page = {message.number: message for message in messages_of(found)}
        # What came into MySQL since is as the tail has it, or later.
        for number, state in tail.messages.items():
            if low <= number <= high and (number not in page or page[number].revision < state.revision):
                page[number] = state.shown()
        return [page[number] for number in sorted(page)]

    async def _warm_changes(
        self, application: ApplicationId, chat: int, after: int, limit: int, tail: ChatTail
    ) -> list[MessageChanged]:
        pending = sorted(tail.messages.values(), key=attrgetter("revision"))[:limit]
        if _is_whole(pending, after, limit, tail.revision):
            return pending
        latest = {state.number: state for state in pending}
        # What MySQL holds of these is out of date, and their latest state comes later.
        outdated = tail.edited - latest.keys()
        horizon = after
        while True:
            size = limit + min(len(outdated), limit)
            found = await self._database.fetch(_CHANGES, (application, chat, horizon, tail.revision, application, size))
            for state in map(rows.changed, found):
                known = latest.get(state.number)
                if state.number not in outdated and (known is None or known.revision < state.revision):
                    latest[state.number] = state
            # MySQL may have more beyond its last row: what the tail has beyond it must wait.
            horizon = found[-1][1] if len(found) == size else tail.revision
            page = sorted((state for state in latest.values() if state.revision <= horizon), key=attrgetter("revision"))
            if len(page) >= limit or horizon >= tail.revision:
                return page[:limit]

    async def _read_messages(
        self, application: ApplicationId, chat: int, above: int, below: int, window: Window
    ) -> list[rows.Row]:
        return await self._database.fetch(
            _MESSAGES.format(_direction(window)), (application, chat, above, below, application, window.limit)
        )

    async def _read_chats(
        self, application: ApplicationId, above: int, below: int, version: int, window: Window
    ) -> list[rows.Row]:
        return await self._database.fetch(
            _CHATS.format(_direction(window)), (application, above, below, version, application, window.limit)
        )

    async def _stored_revision(self, application: ApplicationId, chat: int) -> int:
        found = await self._database.fetch(_REVISION, (application, chat) * 2 + (application,))
        if not found:
            raise NotFound
        return int(found[0][0])


def _check(number: int) -> None:
    """Raises NotFound for what no chat or message can be numbered."""
    if not 1 <= number <= NUMBER_MAX:
        raise NotFound


def _bounds(window: Window) -> tuple[int, int]:
    """The exclusive bounds of a page."""
    below = NUMBER_MAX + 1 if window.before is None else min(window.before, NUMBER_MAX + 1)
    return min(window.after, NUMBER_MAX), below


def _range(window: Window, last: int) -> tuple[int, int]:
    """The first and last number of a page, where numbers go from 1 to `last`."""
    above, below = _bounds(window)
    low, high = above + 1, min(below - 1, last)
    if window.from_end:
        return max(low, high - window.limit + 1), high
    return low, min(high, low + window.limit - 1)


def _has_gap(numbers: Iterable[int], window: Window) -> bool:
    """Whether ascending numbers leave one out. A page from the start begins next to its bound."""
    expected = None if window.from_end else window.after + 1
    for number in numbers:
        if expected is not None and number != expected:
            return True
        expected = number + 1
    return False


def _is_whole(pending: Sequence[MessageChanged], after: int, limit: int, last: int) -> bool:
    """Whether these are all changes of a page: each revision was taken by one change, so none is left for MySQL."""
    if any(state.revision != after + index for index, state in enumerate(pending, 1)):
        return False
    return len(pending) == limit or after + len(pending) >= last


def _direction(window: Window) -> str:
    return "DESC" if window.from_end else "ASC"


def _arranged(page: list[Item], window: Window) -> list[Item]:
    return page[::-1] if window.descending else page
