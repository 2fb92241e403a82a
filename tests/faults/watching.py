"""Judges those who watched: live readers by what they hold at the end, searches by Python's own casefold.

Both are compared with the lists that were read at the end, and with nothing that the server says about itself. What
kind an event has to be of follows from what the clients asked for and were answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.faults.history import ApplicationReading, Ask, Copy, Exchange, Json, Searched, Told
from tests.faults.rules import Rule, Violation

SHOWN = 3
"""How many differences of one comparison are told."""


class _Kinds:
    """What an event has to be called: `created` exactly as long as the message was never changed."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        # Not of replays: what they say of revisions is not promised.
        self._created_with = {
            (one.chat, answer["number"]): answer["revision"]
            for one in exchanges
            if one.ask in (Ask.POST, Ask.BATCH) and one.acknowledged and not one.replayed
            for answer in one.answers
        }
        self._maybe_edited = {(one.chat, one.target) for one in exchanges if one.ask is Ask.EDIT and not one.refused}

    def of(self, chat: int, event: Told) -> set[str]:
        """The names that fit; both when nobody knows whether an edit came before."""
        place = chat, event.number
        if event.deleted:
            return {"message.deleted"}
        if place not in self._maybe_edited:
            return {"message.created"}
        if place in self._created_with:
            return {"message.created" if event.revision == self._created_with[place] else "message.updated"}
        return {"message.created", "message.updated"}


def judge_copies(reading: ApplicationReading, exchanges: Sequence[Exchange]) -> Iterator[Violation]:
    """Every live reader holds its chat as it is, and was told each change once, in order, under its name."""
    kinds = _Kinds(exchanges)
    chats = {one.chat["number"]: one.messages for one in reading.chats}
    for copy in reading.copies:
        yield from _events(copy, kinds)
        rows = {row["number"]: row for row in chats.get(copy.chat, [])}
        held = {row["number"]: row for row in copy.messages}
        wrong = sorted(number for number in rows.keys() | held.keys() if rows.get(number) != held.get(number))
        if wrong:
            told = "; ".join(f"{held.get(number)} is {rows.get(number)}" for number in wrong[:SHOWN])
            yield Violation(Rule.LIVE, f"chat {copy.chat}: {len(wrong)} messages differ: {told}")


def _events(copy: Copy, kinds: _Kinds) -> Iterator[Violation]:
    for event in copy.events:
        if event.id <= event.above or event.revision != event.id:
            yield Violation(Rule.EVENTS, f"chat {copy.chat}: {event}")
        if event.name not in kinds.of(copy.chat, event):
            yield Violation(Rule.EVENTS, f"chat {copy.chat}, {event.name}: {event}")


def judge_searches(reading: ApplicationReading) -> Iterator[Violation]:
    """Every search found what the oracle finds in the final lists, in the same order."""
    for searched in reading.searches:
        wanted = oracle(reading, searched)
        if searched.found != wanted:
            found = [_place(row) for row in searched.found]
            places = [_place(row) for row in wanted]
            missing = [place for place in places if place not in found]
            extra = [place for place in found if place not in places]
            where = "application" if searched.chat is None else f"chat {searched.chat}"
            told = f"missing {missing[:SHOWN]}, extra {extra[:SHOWN]}, {len(found)} of {len(places)}"
            yield Violation(Rule.SEARCH, f"{searched.q!r} in {where}: {told}")


def oracle(reading: ApplicationReading, searched: Searched) -> list[Json]:
    """What a search must find, newest first."""
    q = searched.q.casefold()
    if searched.chat is not None:
        rows = next((one.messages for one in reading.chats if one.chat["number"] == searched.chat), [])
        return [row for row in reversed(rows) if q in (row["body"] or "").casefold()]
    found = [
        row | {"chat_number": one.chat["number"]}
        for one in reading.chats
        for row in one.messages
        if q in (row["body"] or "").casefold()
    ]
    found.sort(key=lambda row: (str(row["created_at"]), int(row["chat_number"]), int(row["number"])), reverse=True)
    return found[: searched.limit]


def _place(row: Json) -> tuple[int | None, int]:
    return row.get("chat_number"), row["number"]
