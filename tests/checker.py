"""Judges a history: do the clients' log and a final reading agree with what was promised?

It knows API.md's promises and nothing of the server. The log says what each client asked, when, and what it
was answered; the reading says what is there at the end. Requests without an answer, or with a 5xx, may have
been done or not; each of them may be found done once, never in part, never twice. Any 5xx but 503 is itself a
broken promise.

    violations = check(history, reading)      # empty: every acknowledged fact is there, and nothing else

What live readers held at the end, and what searches found, is judged when the reading has it
(tests/faults/watching.py). Not judged: how long anything took. The history must carry marks
(tests/faults/history.py).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.history import CREATIONS, PAGE, ApplicationReading, Ask, ChatReading, Exchange, Json, Reading
from tests.faults.rules import Rule, Violation
from tests.faults.watching import judge_copies, judge_searches


@dataclass(frozen=True, slots=True)
class Row:
    """A numbered thing that is there at the end, and the mark that tells who sent it."""

    number: int
    mark: str | None


class Intent:
    """A creation with all its repeats: attempts of one key, path and payload; without a key, one attempt."""

    def __init__(self, attempts: Sequence[Exchange]) -> None:
        self.attempts = sorted(attempts, key=lambda one: one.sent_at)
        self.acknowledged = sorted((one for one in attempts if one.acknowledged), key=lambda one: one.answered_at)
        self.sent_at = self.attempts[0].sent_at
        self.answered_at = self.acknowledged[0].answered_at if self.acknowledged else math.inf
        self.refused = all(one.refused for one in attempts)
        self.marks = attempts[0].marks

    def __str__(self) -> str:
        return str(self.attempts[0])


def check(history: Iterable[Exchange], reading: Reading) -> list[Violation]:
    """Every promise that this history breaks; an empty list when it breaks none."""
    by_application: dict[str, list[Exchange]] = defaultdict(list)
    found: list[Violation] = []
    for exchange in history:
        by_application[exchange.application].append(exchange)
        if exchange.failed:
            found.append(Violation(Rule.FAILED, str(exchange)))
    for token, exchanges in by_application.items():
        if token in reading:
            found += _check_application(exchanges, reading[token])
        else:
            found.append(Violation(Rule.LOST, f"application {token}"))
    return found


def _check_application(exchanges: list[Exchange], reading: ApplicationReading) -> Iterator[Violation]:
    openings = intents_of(one for one in exchanges if one.ask is Ask.CHAT)
    rows = [Row(one.chat["number"], one.chat["title"]) for one in reading.chats]
    yield from _numbered_rows(openings, rows)
    yield from _replays(openings)
    yield from _mismatches([one for one in exchanges if one.ask is Ask.CHAT])
    yield from _counts(reading.application, "chats_count", len(reading.chats))
    yield from judge_copies(reading, exchanges)
    yield from judge_searches(reading)
    by_chat: dict[int, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        if exchange.chat is not None:
            by_chat[exchange.chat].append(exchange)
    opened_at = {one.acknowledged[0].answer["number"]: one.answered_at for one in openings if one.acknowledged}
    readings = {one.chat["number"]: one for one in reading.chats}
    for number in by_chat.keys() | readings.keys():
        ours = by_chat.get(number, [])
        if number in readings:
            yield from _ChatCase(number, ours, readings[number], opened_at.get(number, math.inf)).violations()
        elif any(one.acknowledged for one in ours):
            yield Violation(Rule.LOST, f"chat {number}, in which something was acknowledged")


def intents_of(creations: Iterable[Exchange]) -> list[Intent]:
    """Attempts put together by what they were meant to create."""
    attempts: dict[Any, list[Exchange]] = defaultdict(list)
    for position, one in enumerate(creations):
        payload = json.dumps(one.payload, sort_keys=True)
        attempts[position if one.key is None else (one.ask, one.chat, one.key, payload)].append(one)
    return [Intent(one) for one in attempts.values()]


def _owners(intents: Iterable[Intent]) -> dict[str, Intent]:
    owners: dict[str, Intent] = {}
    for intent in intents:
        for mark in intent.marks:
            if owners.setdefault(mark, intent) is not intent:
                raise ValueError(f"two requests share the mark {mark}: this history cannot be judged")
    return owners


def _numbered_rows(intents: list[Intent], rows: list[Row]) -> Iterator[Violation]:
    """Numbers, owners, acknowledged numbers and order: the same rules for chats and for messages."""
    if [row.number for row in rows] != list(range(1, len(rows) + 1)):
        yield Violation(Rule.NUMBERS, f"{[row.number for row in rows]}")
    yield from _given_once(intents)
    owners = _owners(intents)
    seen: dict[str, int] = {}
    for row in rows:
        owner = owners.get(row.mark or "")
        if owner is None:
            yield Violation(Rule.INVENTED, f"number {row.number}, mark {row.mark}")
        elif owner.refused:
            yield Violation(Rule.REFUSED, f"number {row.number}: {owner}")
        if row.mark in seen:
            yield Violation(Rule.TWICE, f"numbers {seen[row.mark]} and {row.number}: {owner}")
        seen[row.mark or ""] = row.number
    for intent in intents:
        yield from _kept_numbers(intent, seen)
    placed = [(row.number, owners[row.mark]) for row in rows if row.mark is not None and row.mark in owners]
    yield from _order([(number, one.sent_at, one.answered_at) for number, one in placed], "number")


def _given_once(intents: Iterable[Intent]) -> Iterator[Violation]:
    """No number was acknowledged to two creations."""
    holders: dict[int, Intent] = {}
    for intent in intents:
        for number in {answer["number"] for attempt in intent.acknowledged for answer in attempt.answers}:
            if holders.setdefault(number, intent) is not intent:
                yield Violation(Rule.REUSED, f"number {number}: {holders[number]} and {intent}")


def _kept_numbers(intent: Intent, numbers: dict[str, int]) -> Iterator[Violation]:
    """What was acknowledged is there under the number that was answered; `numbers` says which, by mark."""
    for attempt in intent.acknowledged:
        for mark, answer in zip(intent.marks, attempt.answers, strict=False):
            if mark not in numbers:
                yield Violation(Rule.LOST, f"number {answer['number']}: {attempt}")
            elif numbers[mark] != answer["number"]:
                yield Violation(Rule.ALTERED, f"number {answer['number']} is now {numbers[mark]}: {attempt}")


def _order(placed: Iterable[tuple[int, float, float]], what: str) -> Iterator[Violation]:
    """Of (number, sent, answered): what was answered before another was sent has the smaller number."""
    first_answer, first_number = math.inf, 0
    for number, sent_at, answered_at in sorted(placed, reverse=True):
        if first_answer < sent_at:
            late = f"{what} {first_number} was answered at {first_answer:.3f}"
            yield Violation(Rule.ORDER, f"{late}, {what} {number} was sent at {sent_at:.3f}")
        if answered_at < first_answer:
            first_answer, first_number = answered_at, number


def _replays(intents: list[Intent]) -> Iterator[Violation]:
    """The first answer and its repeats tell the same, and no key stands for two payloads."""
    payloads: dict[tuple[Ask, int | None, str], Intent] = {}
    for intent in intents:
        first, key = intent.attempts[0], intent.attempts[0].key
        fresh = [one for one in intent.acknowledged if not one.replayed]
        if len(fresh) > 1:
            yield Violation(Rule.TWICE, f"{len(fresh)} answers that are no replays: {first}")
        if intent.acknowledged and not fresh and all(one.acknowledged for one in intent.attempts):
            yield Violation(Rule.REPLAY, f"a replay of what was never done: {first}")
        for again in intent.acknowledged[1:]:
            if _kept(again.answers) != _kept(intent.acknowledged[0].answers):
                yield Violation(Rule.REPLAY, f"{again.answer} after {intent.acknowledged[0].answer}")
        if key is not None and intent.acknowledged:
            other = payloads.setdefault((first.ask, first.chat, key), intent)
            if other is not intent:
                yield Violation(Rule.TWICE, f"one key, two payloads: {other} and {intent}")
        yield from _answers_as_asked(intent)


def _kept(answers: list[Json]) -> list[Json]:
    """What a replay repeats: the numbers, created_at, and the payload as first posted."""
    names = ("number", "created_at", "title", "sender", "body", "metadata")
    return [{name: answer.get(name) for name in names} for answer in answers]


def _answers_as_asked(intent: Intent) -> Iterator[Violation]:
    for attempt in intent.acknowledged:
        if len(attempt.answers) != len(attempt.items):
            yield Violation(Rule.ANSWER, f"{len(attempt.answers)} answers to {len(attempt.items)} items: {attempt}")
        for item, answer in zip(attempt.items, attempt.answers, strict=False):
            if any(answer.get(name) != value for name, value in item.items()):
                yield Violation(Rule.ANSWER, f"{answer} to {item}")


def _mismatches(exchanges: list[Exchange]) -> Iterator[Violation]:
    """422 says that the key had another payload; then there must be one."""
    payloads: dict[tuple[Ask, str], set[str]] = defaultdict(set)
    for one in exchanges:
        if one.key is not None:
            payloads[one.ask, one.key].add(json.dumps(one.payload, sort_keys=True))
    for one in (one for one in exchanges if one.status == 422):
        if one.key is None or len(payloads[one.ask, one.key]) < 2:
            yield Violation(Rule.DENIED, f"the key had no other payload: {one}")


def _counts(owner: Json, name: str, rows: int) -> Iterator[Violation]:
    if owner[name] != rows:
        yield Violation(Rule.COUNTS, f"{name} is {owner[name]}, there are {rows}")


class _ChatCase:
    """Everything that was asked about one chat, and what the chat holds at the end."""

    def __init__(self, number: int, exchanges: list[Exchange], reading: ChatReading, opened_at: float) -> None:
        self.number = number
        self.reading = reading
        self.opened_at = opened_at
        self.exchanges = exchanges
        self.intents = intents_of(one for one in exchanges if one.ask in CREATIONS)
        self.owners = _owners(self.intents)
        self.edits = self._by_target(Ask.EDIT)
        self.deletes = self._by_target(Ask.DELETE)
        self.rows = {row["number"]: row for row in reading.messages}
        # Each acknowledged state of a message, and the exchange that acknowledged it. A replay repeats an old
        # state.
        self.states: dict[int, list[tuple[Json, Exchange]]] = defaultdict(list)
        fresh = [one for one in exchanges if one.acknowledged and not one.replayed]
        for exchange in fresh:
            if exchange.ask in (Ask.POST, Ask.BATCH, Ask.EDIT):
                for answer in exchange.answers:
                    self.states[answer["number"]].append((answer, exchange))

        answers = [answer for one in self.intents for again in one.acknowledged for answer in again.answers]
        self.created_at = {answer["number"]: answer["created_at"] for answer in answers}

    def _by_target(self, ask: Ask) -> dict[int, list[Exchange]]:
        chosen: dict[int, list[Exchange]] = defaultdict(list)
        for one in self.exchanges:
            if one.ask is ask and one.target is not None and not one.refused:
                chosen[one.target].append(one)
        return chosen

    def violations(self) -> Iterator[Violation]:
        """Every broken promise in this chat, each told with the chat's number."""
        rows = [Row(row["number"], row["sender"]) for row in self.reading.messages]
        parts = [
            _numbered_rows(self.intents, rows),
            _replays(self.intents),
            _mismatches(self.exchanges),
            _counts(self.reading.chat, "messages_count", sum(not _deleted(row) for row in self.reading.messages)),
            self._batches(),
            self._revisions(),
            self._changes(),
            *(self._content(row) for row in self.reading.messages),
            self._edit_answers(),
            self._reads(),
            self._denials(),
        ]
        for part in parts:
            for violation in part:
                yield Violation(violation.rule, f"chat {self.number}: {violation.detail}")

    def _batches(self) -> Iterator[Violation]:
        numbers = {row["sender"]: row["number"] for row in self.reading.messages}
        for intent in self.intents:
            found = [numbers[mark] for mark in intent.marks if mark in numbers]
            if found and found != list(range(found[0], found[0] + len(intent.marks))):
                yield Violation(Rule.BATCH, f"{found} of {len(intent.marks)}: {intent}")

    def _revisions(self) -> Iterator[Violation]:
        """Distinct, in the order of the answers, and as many as there were changes."""
        held = [row["revision"] for row in self.reading.messages]
        latest = self.reading.chat["revision"]
        if len(set(held)) != len(held) or max(held, default=0) != latest or min(held, default=1) < 1:
            yield Violation(Rule.REVISIONS, f"the chat stands at {latest}, its messages at {held}")
        placed = [(state["revision"], one) for states in self.states.values() for state, one in states]
        taken = [revision for revision, _ in placed]
        if len(set(taken)) != len(taken):
            twice = sorted({one for one in taken if taken.count(one) > 1})
            yield Violation(Rule.REVISIONS, f"given to two changes: {twice}")
        yield from _order([(revision, one.sent_at, one.answered_at) for revision, one in placed], "revision")
        edits = [one for edits in self.edits.values() for one in edits]
        tombstones = sum(_deleted(row) for row in self.reading.messages)
        least = len(held) + tombstones + sum(one.acknowledged for one in edits)
        most = least + sum(one.unknown for one in edits)
        if not least <= latest <= most:
            yield Violation(Rule.REVISIONS, f"the chat stands at {latest} after {least} to {most} changes")

    def _changes(self) -> Iterator[Violation]:
        by_revision = sorted(self.reading.messages, key=lambda row: int(row["revision"]))
        if by_revision != self.reading.changes:
            listed = [row["number"] for row in self.reading.changes]
            yield Violation(Rule.CHANGES, f"{listed} instead of {[row['number'] for row in by_revision]}")

    def _content(self, row: Json) -> Iterator[Violation]:
        """The row is its latest acknowledged state, or what a request without an answer made of that."""
        number = row["number"]
        acknowledged = [state for state, _ in self.states.get(number, [])]
        latest = max(acknowledged, key=lambda state: int(state["revision"]), default=None)
        if latest is None:
            latest = self._as_sent(row)
        if latest is None:
            return
        if row["revision"] < latest["revision"]:
            yield Violation(Rule.LOST, f"revision {latest['revision']} of number {number}: it is at {row['revision']}")
        elif self.created_at.get(number, row["created_at"]) != row["created_at"]:
            yield Violation(Rule.ALTERED, f"created_at of number {number} is {row['created_at']}")
        if _deleted(row):
            yield from self._tombstone(row, latest)
        else:
            yield from self._living(row, latest)

    def _as_sent(self, row: Json) -> Json | None:
        """The first state of a row whose creation was answered by no more than a replay, or not at all."""
        owner = self.owners.get(row["sender"] or "")
        if owner is None:
            return None
        item = owner.attempts[0].items[owner.marks.index(row["sender"])]
        return {"body": item["body"], "metadata": item.get("metadata"), "revision": 0}

    def _tombstone(self, row: Json, latest: Json) -> Iterator[Violation]:
        deletes = self.deletes.get(row["number"], [])
        if not deletes:
            yield Violation(Rule.INVENTED, f"number {row['number']} is deleted")
        if row["body"] is not None or row["metadata"] is not None:
            yield Violation(Rule.ALTERED, f"number {row['number']} is a tombstone that kept its content")
        if row["revision"] == latest["revision"]:
            yield Violation(Rule.REVISIONS, f"the deletion of number {row['number']} took no revision")

    def _living(self, row: Json, latest: Json) -> Iterator[Violation]:
        number = row["number"]
        if any(one.acknowledged for one in self.deletes.get(number, [])):
            yield Violation(Rule.LOST, f"the deletion of number {number}")
        changes = [] if row["revision"] == latest["revision"] else self._unknown_edits(number)
        if row["revision"] > latest["revision"] > 0 and not changes:
            yield Violation(
                Rule.INVENTED,
                f"revision {row['revision']} of number {number}, last known {latest['revision']}",
            )
        for name in ("body", "metadata"):
            possible = [latest[name], *(one.payload[name] for one in changes if name in one.payload)]
            if row[name] not in possible:
                yield Violation(Rule.ALTERED, f"{name} of number {number} is {row[name]!r}, not of {possible!r}")

    def _unknown_edits(self, number: int) -> list[Exchange]:
        return [one for one in self.edits.get(number, []) if one.unknown]

    def _edit_answers(self) -> Iterator[Violation]:
        """An edit answers with what it set, and none succeeds after a deletion was answered."""
        for number, edits in self.edits.items():
            deletes = [one.answered_at for one in self.deletes.get(number, []) if one.acknowledged]
            buried_at = min(deletes, default=math.inf)
            for one in (edit for edit in edits if edit.acknowledged):
                if one.answer["number"] != number or any(one.answer[name] != one.payload[name] for name in one.payload):
                    yield Violation(Rule.ANSWER, f"{one.answer} to {one}")
                if one.sent_at > buried_at or _deleted(one.answer):
                    yield Violation(Rule.ANSWER, f"a deleted message was edited: {one}")

    def _reads(self) -> Iterator[Violation]:
        """A read shows all that was acknowledged before it, and nothing that is gone later."""
        numbers = sorted((one.answered_at, state["number"]) for states in self.states.values() for state, one in states)
        times = [answered_at for answered_at, _ in numbers]
        highest = [0]
        for _, number in numbers:
            highest.append(max(highest[-1], number))
        for read in (one for one in self.exchanges if one.ask is Ask.READ and one.acknowledged):
            newest = highest[bisect_left(times, read.sent_at)]
            if read.target is None and newest > max((seen["number"] for seen in read.answers), default=0):
                yield Violation(Rule.STALE, f"number {newest} was acknowledged before {read}")
            if read.target is None:
                yield from _page(read)
            for seen in read.answers:
                yield from self._seen(read, seen)

    def _seen(self, read: Exchange, seen: Json) -> Iterator[Violation]:
        number = seen["number"]
        known = [state["revision"] for state, one in self.states.get(number, []) if one.answered_at < read.sent_at]
        buried = any(one.acknowledged and one.answered_at < read.sent_at for one in self.deletes.get(number, []))
        if seen["revision"] < max(known, default=0) or (buried and not _deleted(seen)):
            yield Violation(Rule.STALE, f"revision {seen['revision']} of number {number}: {read}")
        row = self.rows.get(number)
        if row is None or row["revision"] < seen["revision"] or row["sender"] != seen["sender"]:
            yield Violation(Rule.VANISHED, f"revision {seen['revision']} of number {number}: {read}")
        elif row["revision"] == seen["revision"] and row != seen:
            yield Violation(Rule.ALTERED, f"number {number} was read as {seen} and is {row}")

    def _denials(self) -> Iterator[Violation]:
        """404 on what was acknowledged, 409 without a deletion."""
        made_at: dict[int, float] = {}
        for intent in self.intents:
            for answer in intent.acknowledged[0].answers if intent.acknowledged else []:
                made_at[answer["number"]] = intent.answered_at
        for one in (one for one in self.exchanges if one.refused):
            known_at = self.opened_at if one.target is None else made_at.get(one.target, math.inf)
            if one.status == 404 and known_at < one.sent_at:
                yield Violation(Rule.DENIED, f"it was acknowledged at {known_at:.3f}: {one}")
            deleted = any(delete.sent_at < one.answered_at for delete in self.deletes.get(one.target or 0, []))
            if one.status == 409 and not (one.ask is Ask.EDIT and deleted):
                yield Violation(Rule.DENIED, f"nothing was in conflict: {one}")


def _page(read: Exchange) -> Iterator[Violation]:
    """The newest page is whole, newest first: tombstones are listed, so no number may be missing."""
    listed = [seen["number"] for seen in read.answers]
    top = max(listed, default=0)
    wanted = list(range(top, max(0, top - PAGE), -1))
    if listed != wanted:
        yield Violation(Rule.PAGE, f"{listed} instead of {wanted}: {read}")


def _deleted(message: Json) -> bool:
    return message["deleted_at"] is not None
