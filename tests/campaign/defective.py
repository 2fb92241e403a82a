"""A server with one planted defect, for proving that the checker notices: never part of the product.

    python -m tests.campaign.defective NAME serve

Each defect is laid over the ports of the embedded house in this process alone, and shows to clients as a defect of
ours would: over HTTP, under load, among thousands of right answers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from chat_system.cli import main
from chat_system.embedded.journal import EmbeddedJournal
from chat_system.embedded.search import EmbeddedSearch
from chat_system.embedded.store import EmbeddedStore
from chat_system.errors import Invalid
from chat_system.model import DeleteMessage, EditMessage, Message, NewMessage, PostMessages, Receipt
from chat_system.web import live
from tests.faults.history import PAGE

EVERY = 8
"""One in so many goes wrong."""

LIVE_PAGE = 100
"""How many changes a stream reads at a time; lists of the tests ask for 200."""

PHANTOM = "a phantom"

Call = Callable[..., Awaitable[Any]]


def overlay(kind: type, name: str, make: Callable[[Call], Call]) -> None:
    """Put something over a method."""
    setattr(kind, name, make(getattr(kind, name)))


def appending(defect: Callable[[Call, tuple[Any, ...], Any, dict[str, Any]], Awaitable[Receipt]]) -> None:
    """Put a defect over the journal: it is given the right way, where it is called, the change and the options."""

    def make(right: Call) -> Call:
        async def append(self: Any, application: Any, change: Any, **options: Any) -> Any:
            return await defect(right, (self, application), change, options)

        return append

    overlay(EmbeddedJournal, "append", make)


def listing(defect: Callable[[Any, int, list[Message]], list[Message]], method: str = "messages") -> None:
    """Put a defect over a list of messages: it is given the application, the chat and the right rows."""

    def make(right: Call) -> Call:
        async def rows(self: Any, application: Any, chat: int, *rest: Any, **options: Any) -> Any:
            return defect(application, chat, list(await right(self, application, chat, *rest, **options)))

        return rows

    overlay(EmbeddedStore, method, make)


def on_the_way(limited_to_live: bool, defect: Callable[[list[Message]], list[Message]]) -> None:
    """Put a defect over changes by revision, as streams read them or as lists do."""

    def make(right: Call) -> Call:
        async def changes(self: Any, application: Any, chat: int, after: int, limit: int) -> Any:
            rows = list(await right(self, application, chat, after, limit))
            return defect(rows) if (limit == LIVE_PAGE) is limited_to_live else rows

        return changes

    overlay(EmbeddedStore, "changes", make)


def _turn(count: Counter[str]) -> bool:
    count["calls"] += 1
    return count["calls"] % EVERY == 0


def _is_single(change: Any) -> bool:
    return isinstance(change, PostMessages) and len(change.messages) == 1


def an_acknowledged_message_is_never_recorded() -> None:
    """The next number is answered and given to the next one, too."""
    count: Counter[str] = Counter()
    last: dict[tuple[Any, int], Receipt] = {}

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        place = where[1], getattr(change, "chat", 0)
        if _is_single(change) and place in last and _turn(count):
            before = last[place]
            return Receipt(before.number + before.count, before.revision + before.count, before.at)
        receipt: Receipt = await right(*where, change, **options)
        if isinstance(change, PostMessages) and not receipt.replayed:
            last[place] = receipt
        return receipt

    appending(defect)


def a_number_is_answered_twice() -> None:
    """An answer carries the number of the message before."""
    count: Counter[str] = Counter()

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change, **options)
        if _is_single(change) and receipt.number > 1 and _turn(count):
            return replace(receipt, number=receipt.number - 1)
        return receipt

    appending(defect)


def a_number_is_left_out() -> None:
    """A number is used up by something that nobody sent and nobody sees."""
    count: Counter[str] = Counter()

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        if _is_single(change) and _turn(count):
            await right(*where, PostMessages(change.chat, [NewMessage(PHANTOM, PHANTOM)]))
        receipt: Receipt = await right(*where, change, **options)
        return receipt

    appending(defect)
    listing(lambda _application, _chat, rows: [row for row in rows if row.sender != PHANTOM])


def a_key_is_not_remembered() -> None:
    """Every repeat is carried out again."""

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change)
        return receipt

    appending(defect)


def numbers_are_given_in_another_order() -> None:
    """Neighbours swap their numbers, in the answers and in the lists."""

    def swapped(number: int) -> int:
        return number + 1 if number % 2 else number - 1

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change, **options)
        return replace(receipt, number=swapped(receipt.number)) if _is_single(change) else receipt

    appending(defect)
    listing(
        lambda _application, _chat, rows: sorted(
            (replace(row, number=swapped(row.number)) for row in rows), key=lambda row: row.number
        )
    )


def a_revision_is_given_twice() -> None:
    """An edit is answered with the revision of the change before it."""

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change, **options)
        return replace(receipt, revision=receipt.revision - 1) if isinstance(change, EditMessage) else receipt

    appending(defect)


def a_batch_is_torn() -> None:
    """The last message of a batch is acknowledged and not recorded."""

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        if isinstance(change, PostMessages) and len(change.messages) > 1:
            change = PostMessages(change.chat, list(change.messages[:-1]))
        receipt: Receipt = await right(*where, change, **options)
        return receipt

    appending(defect)


def what_was_refused_is_done() -> None:
    """A post is recorded, and answered with 400."""
    count: Counter[str] = Counter()

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change, **options)
        if _is_single(change) and _turn(count):
            raise Invalid.at("/body", "is refused")
        return receipt

    appending(defect)


def a_request_fails() -> None:
    """A post is recorded, and answered with 500."""
    count: Counter[str] = Counter()

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change, **options)
        if _is_single(change) and _turn(count):
            raise RuntimeError("planted")
        return receipt

    appending(defect)


def a_deletion_is_not_carried_out() -> None:
    """204, and the message stays."""

    async def defect(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        if isinstance(change, DeleteMessage):
            return Receipt(change.number, 1, 0)
        receipt: Receipt = await right(*where, change, **options)
        return receipt

    appending(defect)


def a_body_is_altered() -> None:
    """Some messages end in a space that nobody sent."""
    listing(
        lambda _application, _chat, rows: [
            row if row.number % EVERY or row.body is None else replace(row, body=row.body + " ") for row in rows
        ]
    )


def a_list_is_stale() -> None:
    """Messages are listed as they were when they were first listed."""
    seen: dict[tuple[Any, int, int], Message] = {}
    listing(lambda application, chat, rows: [seen.setdefault((application, chat, row.number), row) for row in rows])


def a_page_has_a_hole() -> None:
    """The newest page leaves out one in its middle."""
    # One more is read than is shown, to know whether there is a next page.
    listing(lambda _application, _chat, rows: [*rows[:9], *rows[10:]] if len(rows) == PAGE + 1 else rows)


def a_foreign_message_is_listed() -> None:
    """The third message of a chat is that of another application."""
    latest: dict[Any, Message] = {}

    def defect(application: Any, chat: int, rows: list[Message]) -> list[Message]:
        if rows:
            latest[application] = rows[-1]
        foreign = next((row for other, row in latest.items() if other != application), None)
        if foreign is None:
            return rows
        return [replace(row, sender=foreign.sender, body=foreign.body) if row.number == 3 else row for row in rows]

    listing(defect)


def messages_are_miscounted() -> None:
    """Every count is one too high."""

    def make(right: Call) -> Call:
        async def chats(*where: Any, **options: Any) -> Any:
            return [replace(chat, messages_count=chat.messages_count + 1) for chat in await right(*where, **options)]

        return chats

    overlay(EmbeddedStore, "chats", make)


def a_live_event_is_dropped() -> None:
    """Streams are not told of some messages."""
    on_the_way(True, lambda rows: [row for row in rows if row.number % EVERY])


def a_live_event_comes_again_in_an_older_state() -> None:
    """Streams are told of a change twice, the second time with another body."""
    on_the_way(True, lambda rows: [rows[0], replace(rows[0], body="older"), *rows[1:]] if len(rows) > 1 else rows)


def an_edit_is_told_as_a_creation() -> None:
    """Streams call everything new that is not deleted."""
    right = live.event_name
    live.event_name = lambda message: right(message).replace("updated", "created")


def changes_leave_one_out() -> None:
    """`changed_after` does not know of some messages."""
    on_the_way(False, lambda rows: [row for row in rows if row.number % EVERY])


def _searching(defect: Callable[[Any, int, str, list[Message]], Sequence[Message]]) -> None:
    def make(right: Call) -> Call:
        async def in_chat(self: Any, application: Any, chat: int, folded: str, **options: Any) -> Any:
            return defect(application, chat, folded, list(await right(self, application, chat, folded, **options)))

        return in_chat

    overlay(EmbeddedSearch, "in_chat", make)


def a_search_misses() -> None:
    """The newest match is left out."""
    _searching(lambda _application, _chat, _folded, rows: rows[1:])


def a_search_finds_what_was_deleted() -> None:
    """Deleted messages are found by what they said."""
    said: dict[tuple[Any, int, int], str] = {}
    deleted: set[tuple[Any, int, int]] = set()

    async def remember(right: Call, where: tuple[Any, ...], change: Any, options: dict[str, Any]) -> Receipt:
        receipt: Receipt = await right(*where, change, **options)
        if isinstance(change, PostMessages):
            for index, message in enumerate(change.messages):
                said[where[1], change.chat, receipt.number + index] = message.body
        if isinstance(change, DeleteMessage):
            deleted.add((where[1], change.chat, change.number))
        return receipt

    def defect(application: Any, chat: int, folded: str, rows: list[Message]) -> list[Message]:
        ours = [place for place in deleted if place[:2] == (application, chat) and folded in said[place].casefold()]
        return [*rows, *(replace(rows[0], number=place[2], body=said[place]) for place in ours if rows)]

    appending(remember)
    _searching(defect)


DEFECTS: dict[str, tuple[Callable[[], None], set[str]]] = {
    one.__name__: (one, rules)
    for one, rules in (
        (an_acknowledged_message_is_never_recorded, {"LOST", "REUSED"}),
        (a_number_is_answered_twice, {"REUSED"}),
        (a_number_is_left_out, {"NUMBERS"}),
        (a_key_is_not_remembered, {"TWICE"}),
        (numbers_are_given_in_another_order, {"ORDER"}),
        (a_revision_is_given_twice, {"REVISIONS"}),
        (a_batch_is_torn, {"LOST"}),
        (what_was_refused_is_done, {"REFUSED"}),
        (a_request_fails, {"FAILED"}),
        (a_deletion_is_not_carried_out, {"LOST"}),
        (a_body_is_altered, {"ALTERED"}),
        (a_list_is_stale, {"LOST"}),
        (a_page_has_a_hole, {"PAGE"}),
        (a_foreign_message_is_listed, {"INVENTED"}),
        (messages_are_miscounted, {"COUNTS"}),
        (a_live_event_is_dropped, {"LIVE"}),
        (a_live_event_comes_again_in_an_older_state, {"EVENTS"}),
        (an_edit_is_told_as_a_creation, {"EVENTS"}),
        (changes_leave_one_out, {"CHANGES"}),
        (a_search_misses, {"SEARCH"}),
        (a_search_finds_what_was_deleted, {"SEARCH"}),
    )
}
"""Each defect, and the rules of the checker that must name it."""


if __name__ == "__main__":
    DEFECTS[sys.argv.pop(1)][0]()
    main()
