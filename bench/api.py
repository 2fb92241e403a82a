"""The few API calls that prepare a scenario and verify it afterwards. They are never measured.

Not promised: a client library. One connection, no retries.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from bench.bare import FixedAnswer
from bench.measure import Wrong

TIMEOUT_S = 60.0
IDLE_S = 1.0
"""A connection that was idle for longer is opened anew: the server may be about to close it."""
BACKLOG_METRIC = "chat_backlog_entries"
PAGE_LIMIT = 200
SHOWN = 2_000
COUNT_LAG_S = 5.0
"""messages_count may lag behind the answers for a moment."""

T = TypeVar("T")


class Application(msgspec.Struct):
    """What the benchmark reads of an application."""

    token: str
    name: str


class Chat(msgspec.Struct):
    """What the benchmark reads of a chat."""

    number: int
    title: str | None
    messages_count: int
    revision: int


class Numbered(msgspec.Struct):
    """What the benchmark reads of a message."""

    number: int


@dataclass(frozen=True)
class ChatPath:
    """Where a chat is found."""

    token: str
    number: int

    @property
    def path(self) -> str:
        """The chat's own path."""
        return f"/applications/{self.token}/chats/{self.number}"

    @property
    def messages(self) -> str:
        """The path of its messages."""
        return f"{self.path}/messages"


class Api:
    """Calls to one server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._used_at = 0.0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, method: str, path: str, body: object = None, *, status: int = 200) -> FixedAnswer:
        """One call; the whole answer.

        Raises:
            Wrong: the status is another one, or the server is not there.
        """
        answer = self._exchange(method, path, body)
        if answer is None:
            raise Wrong(f"{method} {path}: no answer")
        if answer.status != status:
            raise Wrong(f"{method} {path}: {status} expected, but {answer.status}: {answer.body[:SHOWN]!r}")
        return answer

    def answers(self, path: str) -> bool:
        """Whether GET of this path succeeds by now."""
        answer = self._exchange("GET", path, None)
        return answer is not None and answer.status in (200, 201)

    def _exchange(self, method: str, path: str, body: object) -> FixedAnswer | None:
        sent = None if body is None else msgspec.json.encode(body)
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()
        try:
            self._connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            response = self._connection.getresponse()
            answer = FixedAnswer(response.status, response.getheaders(), response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return None
        self._used_at = time.monotonic()
        return answer

    def create_application(self, name: str) -> str:
        """A new application's token."""
        answer = self.call("POST", "/applications", {"name": name}, status=201)
        return msgspec.json.decode(answer.body, type=Application).token

    def create_chat(self, token: str, title: str) -> ChatPath:
        """A new chat."""
        answer = self.call("POST", f"/applications/{token}/chats", {"title": title}, status=201)
        return ChatPath(token, msgspec.json.decode(answer.body, type=Chat).number)

    def create_chats(self, count: int, chats_per_application: int) -> list[ChatPath]:
        """New chats, spread over as few applications as that allows."""
        chats: list[ChatPath] = []
        while len(chats) < count:
            token = self.create_application(f"bench {len(chats)}")
            wanted = min(chats_per_application, count - len(chats))
            chats += [self.create_chat(token, f"bench {number}") for number in range(wanted)]
        return chats

    def chat(self, chat: ChatPath) -> Chat:
        """The chat as the server shows it."""
        return msgspec.json.decode(self.call("GET", chat.path).body, type=Chat)

    def applications(self) -> list[Application]:
        """The first page of applications."""
        return msgspec.json.decode(self.call("GET", "/applications").body, type=list[Application])

    def chats(self, token: str) -> list[Chat]:
        """The first page of an application's chats."""
        return msgspec.json.decode(self.call("GET", f"/applications/{token}/chats").body, type=list[Chat])

    def backlog(self) -> float:
        """How many recorded facts wait to be applied, for all projections, as the metrics say."""
        lines = self.call("GET", "/metrics").body.decode("utf-8").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(BACKLOG_METRIC))

    def numbers(self, chat: ChatPath) -> Iterator[int]:
        """The numbers of all messages of a chat, page by page."""
        after = 0
        while True:
            answer = self.call("GET", f"{chat.messages}?limit={PAGE_LIMIT}&after={after}")
            page = msgspec.json.decode(answer.body, type=list[Numbered])
            yield from (message.number for message in page)
            if len(page) < PAGE_LIMIT:
                return
            after = page[-1].number

    def check_complete(self, chat: ChatPath, acknowledged: int) -> None:
        """Check that a chat holds the messages 1 to `acknowledged`, and counts them so.

        Raises:
            Wrong: it does not.
        """
        numbers = list(self.numbers(chat))
        if numbers != list(range(1, acknowledged + 1)):
            raise Wrong(f"{acknowledged} messages were acknowledged, the chat lists {len(numbers)}: {numbers[-3:]}")
        deadline = time.monotonic() + COUNT_LAG_S
        while (counted := self.chat(chat).messages_count) != acknowledged:
            if time.monotonic() > deadline:
                raise Wrong(f"{acknowledged} messages were acknowledged, messages_count is {counted}")
            time.sleep(0.05)
