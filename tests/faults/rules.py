"""What can be wrong with a history, and the words in which the checker says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What can be wrong with a history."""

    LOST = "acknowledged, and not there"
    ALTERED = "there with other content than was acknowledged"
    NUMBERS = "numbers are not exactly 1..n"
    REUSED = "one number was given to two"
    INVENTED = "there, and nobody asked for it"
    REFUSED = "refused, and done all the same"
    TWICE = "sent once, done twice"
    ORDER = "answered before another was sent, and numbered after it"
    REVISIONS = "revisions are not one per change"
    COUNTS = "a count is not the number of rows"
    BATCH = "a batch is torn"
    REPLAY = "a repeated key was answered otherwise than the first time"
    ANSWER = "the answer is not what was asked for"
    STALE = "a read does not show what was acknowledged before it"
    PAGE = "a page has a hole, is short, or is in another order"
    VANISHED = "a read showed what is not there at the end"
    DENIED = "refused without a reason"
    FAILED = "answered with a failure that is not 503"
    CHANGES = "changed_after does not agree with the list"
    LIVE = "a live reader does not hold the chat as it is"
    EVENTS = "an event came twice, out of order or under a wrong name"
    SEARCH = "a search does not find exactly what matches"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    rule: Rule
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"
