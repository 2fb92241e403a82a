"""The one table of operations: the routes and the OpenAPI document both come from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from chat_system.model import (
    BATCH_REQUEST_MAX_BYTES,
    BOUND_MAX,
    NUMBER_MAX,
    PAGE_MAX,
    REQUEST_MAX_BYTES,
    Application,
    ApplicationEdit,
    Chat,
    ChatEdit,
    FoundMessage,
    Message,
    MessageEdit,
    NewApplication,
    NewChat,
    NewMessage,
    NewMessages,
)
from chat_system.system import ChatSystem
from chat_system.web import operations
from chat_system.web.request import Request, Response

Handler = Callable[[ChatSystem, Request], Awaitable[Response]]
Access = Literal["public", "admin", "token", "alias"]
"""Who may: anyone, the admin key, the token in the path, or the token that an alias carries elsewhere."""


@dataclass(frozen=True)
class Parameter:
    """A query parameter or header, as the document shows it."""

    name: str
    schema: dict[str, Any]
    doc: str
    where: Literal["query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """One row of the table. `parent` is what must exist for the caller before its body is judged."""

    name: str
    method: str
    path: str
    access: Access
    summary: str
    doc: str
    tag: str
    handler: Handler | None = None
    body: type | None = None
    body_required: bool = True
    body_max_bytes: int = REQUEST_MAX_BYTES
    answer: Any = None
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    parent: Literal["chat", "message"] | None = None
    example: tuple[Any, Any] = (None, None)
    alias_of: str | None = None
    content_type: str = "application/json"


PATHS_REMEMBERED = 4096
PATH_MAX_CHARACTERS = 256
"""More than the longest path has. What is longer is not even remembered as unknown."""
NUMBER_MAX_DIGITS = len(str(NUMBER_MAX))
LIMIT = Parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "How many items the page has."
)
AFTER = Parameter("after", {"type": "integer", "minimum": 0, "maximum": BOUND_MAX}, "Only numbers above this one.")
BEFORE = Parameter("before", {"type": "integer", "minimum": 1, "maximum": BOUND_MAX}, "Only numbers below this one.")
PAGE = Parameter(
    "page",
    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
    "The page by its number; goes with `limit` only. Links are cheaper.",
)
ORDER = Parameter("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "The order of the answer.")
CHANGED_AFTER = Parameter(
    "changed_after",
    {"type": "integer", "minimum": 0, "maximum": BOUND_MAX},
    "Each message that changed after this revision, in its latest state, by revision; goes with `limit` only.",
)
CURSOR_AFTER = Parameter("after", {"type": "string"}, "A cursor from `Link`: what follows it.")
CURSOR_BEFORE = Parameter("before", {"type": "string"}, "A cursor from `Link`: what precedes it.")
QUERY = Parameter(
    "q",
    {"type": "string", "minLength": 1, "maxLength": 256},
    "Found where `q.casefold()` is a substring of `body.casefold()`. Every character is literal.",
    required=True,
)
KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "A repeat with the same key and payload returns the first answer, for at least 24 hours.",
    where="header",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "The `id` of the last event seen; wins over `after`.",
    "header",
)
AFTER_REVISION = Parameter(
    "after",
    {"type": "integer", "minimum": 0, "maximum": BOUND_MAX},
    "The last revision seen; 0 replays all. Without it, begin with the next change.",
)

TOKEN = "iaT5tVSjMLWqGqMBJg4wrHIeiTEH9cmQFpYmPsGGsgQ"  # noqa: S105 - an example
MOMENT = "2026-01-31T12:00:00.000Z"
APPLICATION = {"token": TOKEN, "name": "Support desk", "chats_count": 1, "created_at": MOMENT, "updated_at": MOMENT}
CHAT = {
    "number": 1,
    "title": "Order 1042",
    "metadata": {"priority": "high"},
    "messages_count": 2,
    "revision": 2,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
MESSAGE = {
    "number": 1,
    "sender": "amira",
    "body": "Has it been shipped?",
    "metadata": None,
    "revision": 1,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "deleted_at": None,
}
REPLY = MESSAGE | {"number": 2, "sender": "desk", "body": "Yes, this morning.", "revision": 2}
EVENTS = "id: 3\nevent: message.created\ndata: " + '{"number":3,"sender":"amira","body":"Thank you!", ...}\n\n'

_APPLICATION = "/applications/{token}"
_CHAT = _APPLICATION + "/chats/{number}"
_MESSAGE = _CHAT + "/messages/{message_number}"
_WRITE = ("invalid", "too_large", "unsupported_media_type")
_ONCE = (*_WRITE, "idempotency_mismatch")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "createApplication", "POST", "/applications", "admin", "Create an application",
        "The answer carries its token, which opens its chats and messages.", "Applications",
        operations.create_application, NewApplication, answer=Application, status=201, parameters=(KEY,),
        problems=_ONCE, example=({"name": "Support desk"}, APPLICATION | {"chats_count": 0}),
    ),
    Operation(
        "listApplications", "GET", "/applications", "admin", "List applications", "Oldest first.", "Applications",
        operations.list_applications, answer=list[Application], parameters=(LIMIT, CURSOR_AFTER, CURSOR_BEFORE, PAGE),
        problems=("invalid",), example=(None, [APPLICATION]),
    ),
    Operation(
        "readApplication", "GET", _APPLICATION, "token", "Read an application", "Needs no admin key.", "Applications",
        operations.read_application, answer=Application, example=(None, APPLICATION),
    ),
    *(
        Operation(
            name, method, _APPLICATION, "admin", "Rename an application", doc, "Applications", handler, body,
            answer=Application, problems=_WRITE, example=({"name": "Help desk"}, APPLICATION | {"name": "Help desk"}),
        )
        for name, method, doc, handler, body in (
            (
                "replaceApplication", "PUT", "Its name is all that there is to replace.",
                operations.replace_application, NewApplication,
            ),
            (
                "renameApplication", "PATCH", "An empty object changes nothing.",
                operations.rename_application, ApplicationEdit,
            ),
        )
    ),
    Operation(
        "eraseApplication", "DELETE", _APPLICATION, "admin", "Erase an application",
        "With every chat and message in it, search index included. There is no way back.", "Applications",
        operations.erase_application, status=204,
    ),
    Operation(
        "createChat", "POST", _APPLICATION + "/chats", "token", "Create a chat",
        "Chats are numbered 1, 2, 3 … in their application. An empty body is fine.", "Chats",
        operations.create_chat, NewChat, body_required=False, answer=Chat, status=201, parameters=(KEY,),
        problems=_ONCE,
        example=(
            {"title": "Order 1042", "metadata": {"priority": "high"}},
            CHAT | {"messages_count": 0, "revision": 0},
        ),
    ),
    Operation(
        "listChats", "GET", _APPLICATION + "/chats", "token", "List chats", "By number.", "Chats",
        operations.list_chats, answer=list[Chat], parameters=(LIMIT, AFTER, BEFORE, PAGE), problems=("invalid",),
        example=(None, [CHAT]),
    ),
    Operation(
        "readChat", "GET", _CHAT, "token", "Read a chat", "Counts and revision may lag a moment.", "Chats",
        operations.read_chat, answer=Chat, example=(None, CHAT),
    ),
    Operation(
        "changeChat", "PATCH", _CHAT, "token", "Change a chat",
        "Replaces the fields that are named; null clears one.", "Chats",
        operations.change_chat, ChatEdit, answer=Chat, problems=_WRITE, parent="chat",
        example=({"title": "Order 1042, settled"}, CHAT | {"title": "Order 1042, settled"}),
    ),
    Operation(
        "createMessage", "POST", _CHAT + "/messages", "token", "Post a message",
        "Messages are numbered 1, 2, 3 … in their chat. When the 201 is sent, the message is on disk.", "Messages",
        operations.create_message, NewMessage, answer=Message, status=201, parameters=(KEY,), problems=_ONCE,
        parent="chat", example=({"sender": "amira", "body": "Has it been shipped?"}, MESSAGE),
    ),
    Operation(
        "createMessages", "POST", _CHAT + "/messages/batch", "token", "Post a batch of messages",
        "All or none, with consecutive numbers; up to 500 messages and 8 MiB.", "Messages",
        operations.create_messages, NewMessages, body_max_bytes=BATCH_REQUEST_MAX_BYTES, answer=list[Message],
        status=201, parameters=(KEY,), problems=_ONCE, parent="chat",
        example=(
            {
                "messages": [
                    {"sender": "amira", "body": "Has it been shipped?"},
                    {"sender": "desk", "body": "Yes, this morning."},
                ]
            },
            [MESSAGE, REPLY],
        ),
    ),
    Operation(
        "listMessages", "GET", _CHAT + "/messages", "token", "List messages",
        "By number, tombstones included; or with `changed_after` by revision.", "Messages",
        operations.list_messages, answer=list[Message], parameters=(LIMIT, AFTER, BEFORE, ORDER, CHANGED_AFTER),
        problems=("invalid",), parent="chat", example=(None, [MESSAGE, REPLY]),
    ),
    Operation(
        "searchChat", "GET", _CHAT + "/messages/search", "token", "Search a chat",
        "Newest first. Deleted messages never match, edited ones by their new body only.", "Search",
        operations.search_chat, answer=list[Message], parameters=(QUERY, LIMIT, BEFORE), problems=("invalid",),
        parent="chat", example=(None, [MESSAGE]),
    ),
    Operation(
        "searchApplication", "GET", _APPLICATION + "/messages/search", "token", "Search all chats of an application",
        "Newest first by `created_at`; items carry `chat_number`.", "Search",
        operations.search_application, answer=list[FoundMessage], parameters=(QUERY, LIMIT, CURSOR_AFTER),
        problems=("invalid",), example=(None, [MESSAGE | {"chat_number": 1}]),
    ),
    Operation(
        "readMessage", "GET", _MESSAGE, "token", "Read a message", "In its latest state.", "Messages",
        operations.read_message, answer=Message, example=(None, MESSAGE),
    ),
    Operation(
        "editMessage", "PATCH", _MESSAGE, "token", "Edit a message",
        "Replaces the fields that are named; null clears the metadata. An edit that changes nothing takes no revision.",
        "Messages", operations.edit_message, MessageEdit, answer=Message, problems=(*_WRITE, "conflict"),
        parent="message",
        example=({"body": "Has it been shipped yet?"}, MESSAGE | {"body": "Has it been shipped yet?", "revision": 3}),
    ),
    Operation(
        "deleteMessage", "DELETE", _MESSAGE, "token", "Delete a message",
        "A tombstone stays: number and sender are kept, body and metadata are null. Again is 204 and changes nothing.",
        "Messages", operations.delete_message, status=204,
    ),
    Operation(
        "streamEvents", "GET", _CHAT + "/events", "token", "Live changes of a chat",
        "Server-sent events `message.created`, `message.updated`, `message.deleted`: the message as JSON, its revision"
        " as the event's id. Whoever reconnects with `Last-Event-ID` misses nothing and sees nothing twice.",
        "Live", answer=str, content_type="text/event-stream", parameters=(AFTER_REVISION, LAST_EVENT_ID),
        problems=("invalid",), parent="chat", example=(None, EVENTS),
    ),
    Operation(
        "createChatAlias", "POST", "/chats/{token}", "token", "Create a chat (short path)",
        "The same as POST /applications/{token}/chats.", "Short paths", operations.create_chat, NewChat,
        body_required=False, answer=Chat, status=201, parameters=(KEY,), problems=_ONCE, alias_of="createChat",
        example=({"title": "Order 1042"}, CHAT | {"messages_count": 0, "revision": 0, "metadata": None}),
    ),
    Operation(
        "createMessageAlias", "POST", "/chats/{number}/messages", "alias", "Post a message (short path)",
        "The token comes as `Authorization: Bearer`, `X-Application-Token` or `?token=`.", "Short paths",
        operations.create_message, NewMessage, answer=Message, status=201, parameters=(KEY,),
        problems=_ONCE, parent="chat", alias_of="createMessage",
        example=({"sender": "amira", "body": "Has it been shipped?"}, MESSAGE),
    ),
    Operation(
        "searchChatAlias", "GET", "/chats/{number}/messages/search", "alias", "Search a chat (short path)",
        "The token comes as `Authorization: Bearer`, `X-Application-Token` or `?token=`.", "Short paths",
        operations.search_chat, answer=list[Message], parameters=(QUERY, LIMIT, BEFORE),
        problems=("invalid",), parent="chat", alias_of="searchChat", example=(None, [MESSAGE]),
    ),
    Operation(
        "live", "GET", "/health/live", "public", "Is the process alive?", "200 as long as it answers.", "Operations",
        operations.live, answer=dict[str, str], example=(None, {"status": "alive"}),
    ),
    Operation(
        "ready", "GET", "/health/ready", "public", "Can it serve?", "503 names what is away.", "Operations",
        operations.ready, answer=dict[str, str], example=(None, {"status": "ready"}),
    ),
    Operation(
        "metrics", "GET", "/metrics", "public", "Metrics", "In Prometheus' text format.", "Operations",
        answer=str, content_type="text/plain",
        example=(None, 'chat_requests_total{operation="createMessage",status="201"} 1.0\n'),
    ),
)  # fmt: skip


@dataclass
class _Node:
    """One place in the tree of paths. `names` are those of the parameters on the way to it."""

    words: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    names: tuple[str, ...] = ()
    methods: dict[str, Any] = field(default_factory=dict)


class Router:
    """Finds what a path leads to. Fixed words win over parameters."""

    def __init__(self) -> None:
        self._root = _Node()
        # Those who post do so to the same few paths.
        self._remembered = lru_cache(maxsize=PATHS_REMEMBERED)(self._find)

    def add(self, method: str, path: str, target: Any) -> None:
        """Let the method on the path (`/chats/{number}`) lead to the target."""
        node = self._root
        names = []
        for part in path.split("/")[1:]:
            if part.startswith("{"):
                names.append(part[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.words.setdefault(part, _Node())
        node.names = tuple(names)
        node.methods[method] = target

    def find(self, path: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The methods of a path and its parameters; None when there is no such path. The caller changes neither."""
        return self._remembered(path) if len(path) <= PATH_MAX_CHARACTERS else None

    def _find(self, path: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        node = self._root
        texts = []
        for part in path.split("/")[1:]:
            word = node.words.get(part)
            if word is None:
                texts.append(part)
                word = node.parameter
                if word is None:
                    return None
            node = word
        if not node.methods:
            return None
        parameters = {}
        for name, text in zip(node.names, texts, strict=True):
            value = parameters[name] = path_parameter(name, text)
            if value is None:
                return None
        return node.methods, parameters


def path_parameter(name: str, text: str) -> str | int | None:
    """A parameter's value, or None when the text can't be one: a number is a positive decimal integer."""
    if name in ("token", "file"):
        return text or None
    if text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= NUMBER_MAX_DIGITS:
        number = int(text)
        return number if number <= NUMBER_MAX else None
    return None
