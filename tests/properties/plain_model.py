"""The contract of one application as plain Python: what a perfect server would hold after each request.

It holds what the answers may not be free in: numbers, revisions, texts, tombstones, and what each idempotency
key stands for. Times come from the answers, once; from then on they must not change. All is compared as
JSON: to Python, `True == 1`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class ModelChat:
    """One chat: its own fields as answered, and its messages by number (the first has number 1)."""

    fields: Json
    messages: list[Json] = field(default_factory=list)
    revision: int = 0

    @property
    def number(self) -> int:
        """The chat's number."""
        return int(self.fields["number"])

    @property
    def living(self) -> int:
        """How many messages are not deleted."""
        return sum(message["deleted_at"] is None for message in self.messages)

    def post(self, item: Json, answer: Json) -> None:
        """A message was created; its answer must say exactly this."""
        self.revision += 1
        expected: Json = {"sender": None, "metadata": None} | item
        expected |= {"number": len(self.messages) + 1, "revision": self.revision, "deleted_at": None}
        assert same_json(timeless(answer), expected), (answer, expected)
        assert answer["created_at"] == answer["updated_at"]
        self.messages.append(answer)

    def edit(self, number: int, patch: Json, answer: Json) -> None:
        """A living message was edited; a patch that changes nothing takes no revision."""
        before = self.messages[number - 1]
        if all(same_json(before[name], value) for name, value in patch.items()):
            assert same_json(answer, before), (answer, before)
            return
        self.revision += 1
        expected = timeless(before) | patch | {"revision": self.revision}
        assert same_json(timeless(answer), expected), (answer, expected)
        assert answer["created_at"] == before["created_at"]
        self.messages[number - 1] = answer

    def delete(self, number: int, tombstone: Json) -> None:
        """A message was deleted, perhaps again; `tombstone` is what is read afterwards."""
        before = self.messages[number - 1]
        if before["deleted_at"] is not None:
            assert same_json(tombstone, before), (tombstone, before)
            return
        self.revision += 1
        assert tombstone["deleted_at"] is not None
        gone = {
            "body": None,
            "metadata": None,
            "revision": self.revision,
            "deleted_at": tombstone["deleted_at"],
        }
        assert same_json(timeless(tombstone), timeless(before) | gone), (tombstone, before)
        assert tombstone["created_at"] == before["created_at"]
        self.messages[number - 1] = tombstone

    def window(self, after: int | None, before: int | None, limit: int, order: str) -> list[Json]:
        """The page that a list with these parameters must be."""
        low, high = after or 0, len(self.messages) + 1 if before is None else before
        inside = [message for message in self.messages if low < message["number"] < high]
        from_the_end = order == "desc" if (after is None) == (before is None) else after is None
        page = inside[-limit:] if from_the_end else inside[:limit]
        return page[::-1] if order == "desc" else page

    def changes(self, after: int, limit: int) -> list[Json]:
        """What changed after a revision, by revision."""
        later = [message for message in self.messages if message["revision"] > after]
        return sorted(later, key=lambda message: int(message["revision"]))[:limit]


@dataclass
class Kept:
    """What an idempotency key stands for on one path: its payload and the first answer."""

    payload: Any
    answer: Any


@dataclass
class ModelApplication:
    """One application: its chats by number, and its keys by path and key."""

    chats: list[ModelChat] = field(default_factory=list)
    keys: dict[tuple[str, str], Kept] = field(default_factory=dict)

    def open_chat(self, payload: Json, answer: Json) -> None:
        """A chat was created; its answer must say exactly this."""
        expected: Json = {"title": None, "metadata": None} | payload
        expected |= {"number": len(self.chats) + 1, "messages_count": 0, "revision": 0}
        assert same_json({name: answer[name] for name in expected}, expected), (answer, expected)
        self.chats.append(ModelChat(answer))


def timeless(message: Json) -> Json:
    """A message without the times that only the server knows."""
    return {name: value for name, value in message.items() if name not in ("created_at", "updated_at")}


def same_json(one: Any, other: Any) -> bool:
    """Equal as JSON: the order of keys does not matter."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
