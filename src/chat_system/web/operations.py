"""What each operation does: read the request, call the use case, write the answer.

`routes.py` says under which method and path each of these is found, and what it needs to be let in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from chat_system.errors import ChatSystemError, NotFound, Unavailable
from chat_system.model import (
    BOUND_MAX,
    ApplicationEdit,
    ChatEdit,
    Message,
    MessageEdit,
    NewApplication,
    NewChat,
    NewMessage,
    NewMessages,
    Window,
)
from chat_system.system import ChatSystem
from chat_system.web import pages
from chat_system.web.request import NEW_APPLICATION, NEW_CHAT, NEW_MESSAGE, NEW_MESSAGES, Header, Request, Response

CREATED = 201
NO_CONTENT = 204
_APPLICATION_EDIT = msgspec.json.Decoder(ApplicationEdit)
_CHAT_EDIT = msgspec.json.Decoder(ChatEdit)
_MESSAGE_EDIT = msgspec.json.Decoder(MessageEdit)
_ENCODE = msgspec.json.Encoder().encode


def _ok(value: Any, headers: list[Header] | None = None) -> Response:
    return Response(200, _ENCODE(value), headers=headers)


def _created(value: Any, location: str | None, *, replayed: bool) -> Response:
    headers: list[Header] = []
    if location is not None:
        headers.append((b"location", location.encode()))
    if replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return Response(CREATED, _ENCODE(value), headers=headers)


# Applications


async def create_application(system: ChatSystem, request: Request) -> Response:
    new = request.read(NewApplication, NEW_APPLICATION)
    application, replayed = await system.create_application(new, once=request.once("applications"))
    return _created(application, f"/applications/{application.token}", replayed=replayed)


async def list_applications(system: ChatSystem, request: Request) -> Response:
    asked = pages.application_window(request.query)
    more = msgspec.structs.replace(asked, limit=asked.limit + 1)
    items = list(await system.applications(more))
    extra = len(items) > asked.limit
    if extra:
        # Pages before a place are read from that place: what is one too many stands first.
        items = items[1:] if asked.before is not None else items[:-1]
    return _ok(items, pages.application_links(request, asked, items, extra))


async def read_application(system: ChatSystem, request: Request) -> Response:
    return _ok(await system.application(request.application))


async def replace_application(system: ChatSystem, request: Request) -> Response:
    new = request.read(NewApplication, NEW_APPLICATION)
    return _ok(await system.rename_application(request.application, ApplicationEdit(new.name)))


async def rename_application(system: ChatSystem, request: Request) -> Response:
    edit = request.read(ApplicationEdit, _APPLICATION_EDIT)
    return _ok(await system.rename_application(request.application, edit))


async def erase_application(system: ChatSystem, request: Request) -> Response:
    await system.erase_application(request.application)
    return Response(NO_CONTENT)


# Chats


async def create_chat(system: ChatSystem, request: Request) -> Response:
    new = request.read(NewChat, NEW_CHAT)
    chat, replayed = await system.open_chat(request.application, new, once=request.once("chats"))
    return _created(chat, f"/applications/{request.token}/chats/{chat.number}", replayed=replayed)


async def list_chats(system: ChatSystem, request: Request) -> Response:
    asked = pages.window(request.query, messages=False)
    items, extra = _page(await system.chats(request.application, _one_more(asked)), asked)
    return _ok(items, pages.number_links(request, asked, items, extra))


async def read_chat(system: ChatSystem, request: Request) -> Response:
    return _ok(await system.chat(request.application, request.chat))


async def change_chat(system: ChatSystem, request: Request) -> Response:
    edit = request.read(ChatEdit, _CHAT_EDIT)
    return _ok(await system.edit_chat(request.application, request.chat, edit))


# Messages


async def create_message(system: ChatSystem, request: Request) -> Response:
    new = request.read(NewMessage, NEW_MESSAGE)
    once = request.once(f"chats/{request.chat}/messages") if b"idempotency-key" in request.headers else None
    message, replayed = await system.post_message(request.application, request.chat, new, once=once)
    return _created(message, _message_path(request, message), replayed=replayed)


async def create_messages(system: ChatSystem, request: Request) -> Response:
    new = request.read(NewMessages, NEW_MESSAGES)
    once = request.once(f"chats/{request.chat}/messages/batch")
    messages, replayed = await system.post_messages(request.application, request.chat, new.messages, once=once)
    return _created(messages, None, replayed=replayed)


async def list_messages(system: ChatSystem, request: Request) -> Response:
    query = request.query
    if "changed_after" in query:
        pages.forbid_others(query, "changed_after", "after", "before", "order", "page")
        return await _list_changes(system, request)
    asked = pages.window(query, messages=True)
    items, extra = _page(await system.messages(request.application, request.chat, _one_more(asked)), asked)
    return _ok(items, pages.number_links(request, asked, items, extra))


async def _list_changes(system: ChatSystem, request: Request) -> Response:
    after = pages.integer(request.query, "changed_after", 0, BOUND_MAX) or 0
    limit = pages.limit(request.query)
    items = list(await system.changes(request.application, request.chat, after, limit + 1))
    extra = len(items) > limit
    items = items[:limit]
    return _ok(items, pages.links(request, {"changed_after": items[-1].revision} if extra else None, None))


async def read_message(system: ChatSystem, request: Request) -> Response:
    return _ok(await system.message(request.application, request.chat, request.parameters["message_number"]))


async def edit_message(system: ChatSystem, request: Request) -> Response:
    edit = request.read(MessageEdit, _MESSAGE_EDIT)
    number = request.parameters["message_number"]
    return _ok(await system.edit_message(request.application, request.chat, number, edit))


async def delete_message(system: ChatSystem, request: Request) -> Response:
    await system.delete_message(request.application, request.chat, request.parameters["message_number"])
    return Response(NO_CONTENT)


# Search


async def search_chat(system: ChatSystem, request: Request) -> Response:
    limit = pages.limit(request.query)
    before = pages.integer(request.query, "before", 1, BOUND_MAX)
    found = list(
        await system.search_chat(
            request.application, request.chat, request.query.get("q", ""), before=before, limit=limit + 1
        )
    )
    extra = len(found) > limit
    found = found[:limit]
    return _ok(found, pages.links(request, {"before": found[-1].number} if extra else None, None))


async def search_application(system: ChatSystem, request: Request) -> Response:
    limit = pages.limit(request.query)
    after = pages.found_cursor(request.query)
    if after is not None:
        try:
            await system.chat(request.application, after.chat)
        except NotFound:
            raise pages.no_cursor("after") from None
    found = list(
        await system.search_application(request.application, request.query.get("q", ""), after=after, limit=limit + 1)
    )
    extra = len(found) > limit
    found = found[:limit]
    following = {"after": pages.encode_found(found[-1][0])} if extra else None
    return _ok([message for _, message in found], pages.links(request, following, None))


# For operators


async def live(system: ChatSystem, request: Request) -> Response:
    return _ok({"status": "alive"})


async def ready(system: ChatSystem, request: Request) -> Response:
    try:
        search = await system.ping()
    except ChatSystemError as error:
        raise Unavailable(f"Not ready: {error.detail}") from error
    # Without search all the rest works: taking this server out of service would only make more of it fail.
    return _ok({"status": "ready"} if search is None else {"status": "ready", "search": search})


def _one_more(asked: Window) -> Window:
    return msgspec.structs.replace(asked, limit=asked.limit + 1)


def _page(found: Sequence[Any], asked: Window) -> tuple[list[Any], bool]:
    """The page without the item that was asked for only to know whether there is more."""
    items = list(found)
    if len(items) <= asked.limit:
        return items, False
    first_is_extra = asked.from_end != asked.descending
    return (items[1:] if first_is_extra else items[:-1]), True


def _message_path(request: Request, message: Message) -> str:
    parameters = request.parameters
    return f"/applications/{parameters['token']}/chats/{parameters['number']}/messages/{message.number}"
