"""The checker catches every kind of wrong history that it claims to catch, and accepts right ones.

The right history is made by a small model of a perfect server. Each planted fault changes the log or the
reading as a faulty server would have left it, and must be named by its rule.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.checker import check
from tests.faults.history import Ask, Copy, Searched, Told
from tests.faults.perfect_server import TOKEN, PerfectServer, a_right_history
from tests.faults.rules import Rule


class Planted:
    """A right history and its reading, laid open for a fault."""

    def __init__(self) -> None:
        server = a_right_history()
        self.history = server.history
        self.reading = server.reading()
        self.application = self.reading[TOKEN].application
        self.chats = self.reading[TOKEN].chats
        self.chat, self.rows, self.changes = self.chats[0].chat, self.chats[0].messages, self.chats[0].changes
        told = [("message.created", 5, 4, 5), ("message.created", 6, 5, 6), ("message.updated", 7, 6, 2)]
        events = [Told(name, at, above, number, at, deleted=False) for name, at, above, number in told]
        self.copy = Copy(1, copy.deepcopy(self.rows), events)
        self.search = Searched("BODY", [row for row in reversed(self.rows) if "body" in (row["body"] or "")], chat=1)
        self.reading[TOKEN].copies.append(self.copy)
        self.reading[TOKEN].searches.append(self.search)

    def alter(self, position: int, **fields: Any) -> None:
        """Change one exchange."""
        self.history[position] = replace(self.history[position], **fields)

    def rewrite(self, which: int, **fields: Any) -> None:
        """Change one message wherever it is read at the end."""
        for row in (*self.rows, *self.changes):
            if row["number"] == which:
                row.update(fields)

    def drop(self, number: int) -> None:
        """Take one message out of everything that is read at the end."""
        for rows in (self.rows, self.changes):
            rows[:] = [row for row in rows if row["number"] != number]
        self.chat["messages_count"] = sum(row["deleted_at"] is None for row in self.rows)

    def add(self, **fields: Any) -> None:
        """Put one more message at the end of the chat."""
        number, revision = len(self.rows) + 1, self.chat["revision"] + 1
        row = {**self.rows[-1], "number": number, "revision": revision, "sender": "s", **fields}
        self.rows.append(row)
        self.changes.append(dict(row))
        self.chat["revision"] = revision
        self.chat["messages_count"] += 1

    def rules(self) -> set[Rule]:
        """The rules that the checker says are broken."""
        return {violation.rule for violation in check(self.history, self.reading)}

    def answer(self, position: int) -> Any:
        """A changeable copy of the answer at a position, put back in place."""
        self.alter(position, answer=copy.deepcopy(self.history[position].answer))
        return self.history[position].answer


def lost_message(planted: Planted) -> None:
    """Acknowledged message 7 is gone, as if the last write had not reached the disk."""
    planted.drop(7)


def lost_application(planted: Planted) -> None:
    """The whole application is gone."""
    planted.reading.clear()


def lost_chat(planted: Planted) -> None:
    """An acknowledged chat is gone."""
    planted.chats.pop()
    planted.application["chats_count"] -= 1


def lost_edit(planted: Planted) -> None:
    """An acknowledged edit is undone, revision and all."""
    planted.rewrite(2, body=planted.history[2].payload["body"], revision=2)


def lost_deletion(planted: Planted) -> None:
    """An acknowledged deletion is undone."""
    planted.rewrite(1, deleted_at=None, body=planted.history[1].payload["body"])


def altered_body(planted: Planted) -> None:
    """A body changed by one character while its revision did not."""
    planted.rewrite(3, body=planted.rows[2]["body"] + "x")


def moved_message(planted: Planted) -> None:
    """Two messages swapped their numbers after they were acknowledged."""
    planted.rewrite(2, number=0)
    planted.rewrite(7, number=2)
    planted.rewrite(0, number=7)
    planted.rows.sort(key=lambda row: int(row["number"]))


def altered_time(planted: Planted) -> None:
    """A message came back with another created_at."""
    planted.rewrite(4, created_at="later")


def kept_content_of_a_tombstone(planted: Planted) -> None:
    """A deleted message still shows its body."""
    planted.rewrite(1, body="still here")


def gap(planted: Planted) -> None:
    """A number was given to nobody: a lost batch was skipped over."""
    planted.rewrite(10, number=11)


def duplicate_number(planted: Planted) -> None:
    """Two messages carry one number."""
    planted.rewrite(10, number=9)


def invented_message(planted: Planted) -> None:
    """A message that nobody sent."""
    planted.add()


def invented_deletion(planted: Planted) -> None:
    """A tombstone where nobody deleted."""
    planted.rewrite(5, deleted_at="now", body=None, revision=14)
    planted.chat.update(revision=14, messages_count=planted.chat["messages_count"] - 1)
    planted.changes.sort(key=lambda row: int(row["revision"]))


def invented_edit(planted: Planted) -> None:
    """A new revision of a message that nobody edited."""
    planted.rewrite(5, revision=14)
    planted.chat["revision"] = 14
    planted.changes.sort(key=lambda row: int(row["revision"]))


def refused_and_done(planted: Planted) -> None:
    """A request answered 400 left a message."""
    planted.add(sender="refused")


def key_applied_twice(planted: Planted) -> None:
    """A retried post is there twice."""
    planted.add(sender=planted.rows[5]["sender"])


def key_answered_afresh(planted: Planted) -> None:
    """The repeat of an answered key was answered as if it were the first."""
    planted.alter(3, replayed=False)


def key_with_two_payloads(planted: Planted) -> None:
    """One key was accepted for two payloads."""
    planted.alter(9, key="a")


def replay_with_another_number(planted: Planted) -> None:
    """The repeat of a key was answered with another number."""
    planted.answer(3)["number"] = 9


def replay_with_an_edited_body(planted: Planted) -> None:
    """The repeat of a key shows a later body than the first answer."""
    planted.answer(3)["body"] = planted.rows[1]["body"]


def replay_of_nothing(planted: Planted) -> None:
    """A key that was never seen is answered as a replay."""
    planted.alter(2, replayed=True)


def later_but_smaller(planted: Planted) -> None:
    """Message 1 was sent after message 2 had been answered."""
    planted.alter(1, sent_at=3.9, answered_at=3.95)


def chat_later_but_smaller(planted: Planted) -> None:
    """Chat 1 was asked for after chat 2 had been answered."""
    planted.alter(0, sent_at=20.0, answered_at=20.5)


def revision_later_but_smaller(planted: Planted) -> None:
    """An edit's revision is below that of what was answered before it was sent."""
    planted.alter(7, sent_at=30.0, answered_at=30.5)
    planted.alter(12, sent_at=31.0, answered_at=31.5)
    planted.alter(9, sent_at=29.0, answered_at=29.5)


def revision_shared(planted: Planted) -> None:
    """Two messages carry one revision."""
    planted.rewrite(3, revision=4)
    planted.answer(4)[0]["revision"] = 4


def revision_skipped(planted: Planted) -> None:
    """A revision was taken by no change."""
    planted.rewrite(7, revision=14)
    planted.chat["revision"] = 14


def messages_miscounted(planted: Planted) -> None:
    """messages_count counts the tombstone."""
    planted.chat["messages_count"] += 1


def chats_miscounted(planted: Planted) -> None:
    """chats_count is one short."""
    planted.application["chats_count"] -= 1


def torn_batch(planted: Planted) -> None:
    """The last message of an unanswered batch is missing."""
    planted.drop(10)


def scattered_batch(planted: Planted) -> None:
    """Another message sits inside a batch."""
    planted.rewrite(8, number=0)
    planted.rewrite(7, number=8)
    planted.rewrite(0, number=7)
    planted.rows.sort(key=lambda row: int(row["number"]))


def answered_something_else(planted: Planted) -> None:
    """An answer shows another body than was posted."""
    planted.answer(1)["body"] = "something else"


def short_batch_answer(planted: Planted) -> None:
    """A batch of three was answered with two messages."""
    planted.answer(4).pop()


def edited_after_deletion(planted: Planted) -> None:
    """An edit succeeded after the deletion was answered."""
    planted.alter(7, target=1, sent_at=8.6, answered_at=8.7)


def stale_read(planted: Planted) -> None:
    """A read shows the body from before an acknowledged edit."""
    planted.answer(12)[0].update(revision=2, body=planted.history[2].payload["body"])


def stale_read_of_a_deleted_message(planted: Planted) -> None:
    """A read shows a message whose deletion was acknowledged."""
    planted.alter(12, target=1, answer=[planted.history[1].answer])


def stale_list(planted: Planted) -> None:
    """The newest page lacks an acknowledged message."""
    planted.alter(13, answer=[row for row in reversed(planted.rows) if row["number"] < 7])


def hole_in_a_page(planted: Planted) -> None:
    """The newest page leaves out a message in its middle, which nobody has deleted."""
    del planted.answer(13)[4]


def deleted_message_left_out_of_a_page(planted: Planted) -> None:
    """The newest page begins with the message above the tombstone."""
    planted.answer(13).pop()


def page_in_the_wrong_order(planted: Planted) -> None:
    """The newest page is answered oldest first."""
    planted.answer(13).reverse()


def read_before_it_was_safe(planted: Planted) -> None:
    """A read showed a batch that a crash then took back."""
    for number in (8, 9, 10):
        planted.drop(number)


def missing_chat(planted: Planted) -> None:
    """An acknowledged chat is 404 to a post."""
    planted.alter(14, status=404)


def missing_message(planted: Planted) -> None:
    """An acknowledged message is 404 to a read."""
    planted.alter(12, status=404, answer=None)


def needless_conflict(planted: Planted) -> None:
    """A post is answered 409."""
    planted.alter(14, status=409)


def needless_mismatch(planted: Planted) -> None:
    """The same payload under the same key is answered 422."""
    planted.alter(3, status=422, answer=None, replayed=False)


def failed_with_a_defect(planted: Planted) -> None:
    """A post was answered 500, and repeated with its key: nothing is lost, and the server has a defect."""
    planted.alter(5, status=500, answered_at=5.5)


def failed_to_read(planted: Planted) -> None:
    """A read was answered 502."""
    planted.alter(13, status=502, answer=None)


def changes_incomplete(planted: Planted) -> None:
    """changed_after=0 leaves one message out."""
    planted.changes.pop(0)


def changes_out_of_order(planted: Planted) -> None:
    """changed_after=0 is not ordered by revision."""
    planted.changes.reverse()


def number_given_twice(planted: Planted) -> None:
    """Two posts were answered with one number."""
    planted.answer(9)["number"] = 2


def event_never_told(planted: Planted) -> None:
    """A live reader lacks a message that is there."""
    planted.copy.messages.pop()


def event_with_an_older_state(planted: Planted) -> None:
    """A live reader holds a message as it was before its edit."""
    planted.copy.messages[1] = planted.copy.messages[1] | {"body": "before", "revision": 2}


def event_told_twice(planted: Planted) -> None:
    """The same change came to a live reader again."""
    planted.copy.events.append(replace(planted.copy.events[-1], above=planted.copy.events[-1].id))


def event_under_a_wrong_name(planted: Planted) -> None:
    """A deletion came as an update."""
    planted.copy.events[0] = replace(planted.copy.events[0], deleted=True)


def edit_told_as_a_creation(planted: Planted) -> None:
    """An edit came as if the message were new."""
    planted.copy.events[2] = replace(planted.copy.events[2], name="message.created")


def creation_told_as_an_edit(planted: Planted) -> None:
    """A message that was never edited came as if it had been; its post was answered by no more than a replay."""
    planted.copy.events[1] = replace(planted.copy.events[1], name="message.updated")


def search_that_misses(planted: Planted) -> None:
    """A search leaves out a message that matches."""
    planted.search.found.pop()


def search_that_finds_the_deleted(planted: Planted) -> None:
    """A search shows a message that was deleted."""
    planted.search.found.append(planted.history[1].answer)


def search_of_an_old_body(planted: Planted) -> None:
    """A search shows an edited message as it was before."""
    planted.search.found[-1] = planted.search.found[-1] | {"body": "body before"}


FAULTS: dict[Callable[[Planted], None], Rule] = {
    lost_message: Rule.LOST,
    lost_application: Rule.LOST,
    lost_chat: Rule.LOST,
    lost_edit: Rule.LOST,
    lost_deletion: Rule.LOST,
    altered_body: Rule.ALTERED,
    moved_message: Rule.ALTERED,
    altered_time: Rule.ALTERED,
    kept_content_of_a_tombstone: Rule.ALTERED,
    gap: Rule.NUMBERS,
    duplicate_number: Rule.NUMBERS,
    invented_message: Rule.INVENTED,
    invented_deletion: Rule.INVENTED,
    invented_edit: Rule.INVENTED,
    refused_and_done: Rule.REFUSED,
    key_applied_twice: Rule.TWICE,
    key_answered_afresh: Rule.TWICE,
    key_with_two_payloads: Rule.TWICE,
    replay_with_another_number: Rule.REPLAY,
    replay_with_an_edited_body: Rule.REPLAY,
    replay_of_nothing: Rule.REPLAY,
    later_but_smaller: Rule.ORDER,
    chat_later_but_smaller: Rule.ORDER,
    revision_later_but_smaller: Rule.ORDER,
    revision_shared: Rule.REVISIONS,
    revision_skipped: Rule.REVISIONS,
    messages_miscounted: Rule.COUNTS,
    chats_miscounted: Rule.COUNTS,
    torn_batch: Rule.BATCH,
    scattered_batch: Rule.BATCH,
    answered_something_else: Rule.ANSWER,
    short_batch_answer: Rule.ANSWER,
    edited_after_deletion: Rule.ANSWER,
    stale_read: Rule.STALE,
    stale_read_of_a_deleted_message: Rule.STALE,
    stale_list: Rule.STALE,
    hole_in_a_page: Rule.PAGE,
    deleted_message_left_out_of_a_page: Rule.PAGE,
    page_in_the_wrong_order: Rule.PAGE,
    read_before_it_was_safe: Rule.VANISHED,
    missing_chat: Rule.DENIED,
    missing_message: Rule.DENIED,
    needless_conflict: Rule.DENIED,
    needless_mismatch: Rule.DENIED,
    failed_with_a_defect: Rule.FAILED,
    failed_to_read: Rule.FAILED,
    changes_incomplete: Rule.CHANGES,
    changes_out_of_order: Rule.CHANGES,
    number_given_twice: Rule.REUSED,
    event_never_told: Rule.LIVE,
    event_with_an_older_state: Rule.LIVE,
    event_told_twice: Rule.EVENTS,
    event_under_a_wrong_name: Rule.EVENTS,
    edit_told_as_a_creation: Rule.EVENTS,
    creation_told_as_an_edit: Rule.EVENTS,
    search_that_misses: Rule.SEARCH,
    search_that_finds_the_deleted: Rule.SEARCH,
    search_of_an_old_body: Rule.SEARCH,
}


def test_a_right_history_breaks_no_rule() -> None:
    """The history that every fault is planted in is accepted as it stands."""
    planted = Planted()
    assert check(planted.history, planted.reading) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_named_by_its_rule(fault: Callable[[Planted], None]) -> None:
    """A history with one planted fault is refused, and the rule that it breaks is among those named."""
    planted = Planted()
    fault(planted)
    assert FAULTS[fault] in planted.rules()


def test_every_rule_is_proven_by_a_planted_fault() -> None:
    """No rule of the checker goes without a history that breaks it."""
    assert set(FAULTS.values()) == set(Rule)


def test_requests_that_share_a_mark_cannot_be_judged() -> None:
    """Two requests with one mark are an error of the load, not a silent pass."""
    planted = Planted()
    planted.alter(9, payload=planted.history[1].payload)
    with pytest.raises(ValueError, match="share the mark"):
        planted.rules()


@pytest.mark.parametrize("seed", range(25))
def test_any_history_of_a_perfect_server_breaks_no_rule(seed: int) -> None:
    """Random histories, a third of their answers lost, are accepted: the checker wrongs nobody."""
    chance = random.Random(seed)
    server = PerfectServer()
    server.open_chat()
    for step in range(60):
        chat, lost = chance.randint(1, len(server.chats)), chance.random() < 1 / 3
        rows = [row for row in server.messages[chat] if row["deleted_at"] is None]
        kind = chance.choice(["chat", "post", "batch", "edit", "edit", "delete", "read"])
        if rows and chance.random() < 1 / 6:
            doubtful = chance.choice([Ask.POST, Ask.BATCH, Ask.EDIT, Ask.DELETE])
            server.fail(doubtful, chat, chance.choice(rows)["number"])
        elif kind == "chat":
            server.open_chat(lost=lost)
        elif kind == "post" or not rows:
            server.post(chat, lost=lost, key=f"k{step}" if chance.random() < 0.5 else None)
        elif kind == "batch":
            server.batch(chat, lost=lost)
        elif kind == "read":
            server.read(chat)
        else:
            server.change(chat, chance.choice(rows)["number"], delete=kind == "delete", lost=lost)
    assert [str(one) for one in check(server.history, server.reading())] == []
