"""A small model of a perfect server, and the log that its clients would have written.

It serves the tests of the checker: histories that are right by construction, one request after the other.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from tests.faults.history import PAGE, ApplicationReading, Ask, ChatReading, Exchange, Json

TOKEN = "an-application"
BATCH_SIZE = 3


class PerfectServer:
    """Does what was promised, in memory, and writes the log that its clients would have written."""

    def __init__(self) -> None:
        self.now = 0.0
        self.history: list[Exchange] = []
        self.chats: list[Json] = []
        self.messages: dict[int, list[Json]] = {}
        self.marks = 0

    def mark(self) -> str:
        """A mark that nothing else carries."""
        self.marks += 1
        return f"m{self.marks}"

    def log(self, ask: Ask, answer: Any, *, lost: bool = False, status: int = 201, **fields: Any) -> Exchange:
        """One exchange after the other; with `lost` the answer was 503 or never came."""
        done = Exchange(ask, TOKEN, self.now, answered_at=self.now + 0.5, status=status, **fields)
        done = replace(done, answer=copy.deepcopy(answer))
        if lost:
            done = replace(done, status=503, answer=None)
        if lost and self.marks % 2:
            done = Exchange(ask, TOKEN, self.now, **fields)
        self.now += 1
        self.history.append(done)
        return done

    def open_chat(self, **how: Any) -> int:
        """Create a chat; its number."""
        number = len(self.chats) + 1
        chat: Json = {"number": number, "title": self.mark(), "metadata": None, "revision": 0}
        chat |= {"created_at": f"t{self.now}"}
        self.chats.append(chat)
        self.messages[number] = []
        self.log(Ask.CHAT, chat, payload={"title": chat["title"]}, **how)
        return number

    def _append(self, chat: int) -> tuple[Json, Json]:
        item = {"sender": self.mark(), "body": f"body {self.marks}"}
        held = self.chats[chat - 1]
        held["revision"] += 1
        row = {"number": len(self.messages[chat]) + 1, **item, "metadata": None, "revision": held["revision"]}
        row |= {"created_at": f"t{self.now}", "deleted_at": None}
        self.messages[chat].append(row)
        return item, row

    def post(self, chat: int, **how: Any) -> Exchange:
        """Post one message."""
        item, row = self._append(chat)
        return self.log(Ask.POST, row, chat=chat, payload=item, **how)

    def batch(self, chat: int, **how: Any) -> Exchange:
        """Post a batch."""
        made = [self._append(chat) for _ in range(BATCH_SIZE)]
        payload = {"messages": [item for item, _ in made]}
        return self.log(Ask.BATCH, [row for _, row in made], chat=chat, payload=payload, **how)

    def change(self, chat: int, number: int, *, delete: bool = False, **how: Any) -> Exchange:
        """Edit or delete one message."""
        held, row = self.chats[chat - 1], self.messages[chat][number - 1]
        held["revision"] += 1
        row["revision"] = held["revision"]
        if delete:
            row |= {"body": None, "metadata": None, "deleted_at": f"t{self.now}"}
            return self.log(Ask.DELETE, None, status=204, chat=chat, target=number, **how)
        row["body"] = f"edited {self.mark()}"
        payload = {"body": row["body"]}
        return self.log(Ask.EDIT, row, status=200, chat=chat, target=number, payload=payload, **how)

    def fail(self, ask: Ask, chat: int, number: int) -> Exchange:
        """Do nothing, and leave the client in doubt."""
        item = {"sender": self.mark(), "body": "never done"}
        payload: Json | None = {"messages": [item]} if ask is Ask.BATCH else item
        if ask in (Ask.EDIT, Ask.DELETE):
            payload = {"body": item["sender"]} if ask is Ask.EDIT else None
            return self.log(ask, None, lost=True, chat=chat, target=number, payload=payload)
        return self.log(ask, None, lost=True, chat=chat, payload=payload)

    def read(self, chat: int, number: int | None = None) -> Exchange:
        """Read one message, or the newest ones."""
        rows = self.messages[chat]
        seen = rows[: -PAGE - 1 : -1] if number is None else [rows[number - 1]]
        return self.log(Ask.READ, seen, status=200, chat=chat, target=number)

    def reading(self) -> dict[str, ApplicationReading]:
        """What a client reads at the end."""
        chats = []
        for chat in copy.deepcopy(self.chats):
            rows = copy.deepcopy(self.messages[chat["number"]])
            chat["messages_count"] = sum(row["deleted_at"] is None for row in rows)
            by_revision = sorted(copy.deepcopy(rows), key=lambda row: int(row["revision"]))
            chats.append(ChatReading(chat, rows, by_revision))
        return {TOKEN: ApplicationReading({"token": TOKEN, "chats_count": len(chats)}, chats)}


def a_right_history() -> PerfectServer:
    """Chat 1 with messages 1 to 10, one of each thing that can happen; comments give the positions."""
    server = PerfectServer()
    server.open_chat()  # 0
    server.post(1)  # 1: number 1
    server.post(1, key="a")  # 2: number 2
    server.history.append(replace(server.history[2], sent_at=3, answered_at=3.5, replayed=True))  # 3
    server.now = 4
    server.batch(1)  # 4: numbers 3, 4, 5
    server.post(1, key="b", lost=True)  # 5: number 6, then answered to the repeat
    again = {"chat": 1, "key": "b", "payload": server.history[5].payload, "replayed": True}
    server.log(Ask.POST, server.messages[1][5], **again)  # 6
    server.change(1, 2)  # 7
    server.change(1, 1, delete=True)  # 8
    server.post(1)  # 9: number 7
    server.batch(1, lost=True)  # 10: numbers 8, 9, 10
    server.change(1, 7, lost=True)  # 11
    server.read(1, 2)  # 12
    server.read(1)  # 13
    server.log(Ask.POST, None, status=400, chat=1, payload={"sender": "refused", "body": ""})  # 14
    server.open_chat()  # 15: chat 2, empty
    return server
