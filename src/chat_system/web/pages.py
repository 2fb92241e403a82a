"""Pages of lists: reading `limit`, `after`, `before`, `order`, `page` and cursors, and writing `Link` (RFC 8288).

A link names the place next to the page, so following links costs the same at any depth.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_plus

from chat_system.errors import Invalid
from chat_system.model import (
    BOUND_MAX,
    NUMBER_MAX,
    PAGE_DEFAULT_ITEMS,
    PAGE_MAX,
    PAGE_MAX_ITEMS,
    Application,
    Chat,
    Message,
    Window,
    milliseconds,
)
from chat_system.ports import ApplicationWindow, Found
from chat_system.web.request import Header, Request

CURSOR_TOKEN_CHARACTERS = 12
"""How much of a token a cursor carries to break ties of creation times: enough to be unique, too little to open."""


def integer(query: dict[str, str], name: str, low: int, high: int) -> int | None:
    """A whole number of the query, or None when it is absent. Raises Invalid."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or not low <= int(text) <= high:
        raise Invalid.at(f"?{name}", f"must be a whole number from {low} to {high}")
    return int(text)


def limit(query: dict[str, str]) -> int:
    """How many items a page has. Raises Invalid."""
    return integer(query, "limit", 1, PAGE_MAX_ITEMS) or PAGE_DEFAULT_ITEMS


def forbid_others(query: dict[str, str], name: str, *others: str) -> None:
    """Raise Invalid when a parameter that goes with `limit` only has other company."""
    for other in others:
        if other in query:
            raise Invalid.at(f"?{other}", f"does not go with {name}")


def window(query: dict[str, str], *, messages: bool) -> Window:
    """The page that a list of chats or messages is asked for. Raises Invalid."""
    count = limit(query)
    if not messages and "page" in query:
        forbid_others(query, "page", "after", "before")
        page = integer(query, "page", 1, PAGE_MAX) or 1
        return Window(count, skip=(page - 1) * count)
    after = integer(query, "after", 0, BOUND_MAX)
    before = integer(query, "before", 1, BOUND_MAX)
    order = query.get("order", "asc") if messages else "asc"
    if order not in ("asc", "desc"):
        raise Invalid.at("?order", "must be asc or desc")
    descending = order == "desc"
    # One bound names the end to start at; with both or neither the order does.
    from_end = descending if (after is None) == (before is None) else before is not None
    return Window(count, after or 0, before, from_end, descending)


def number_links(request: Request, asked: Window, items: Sequence[Chat | Message], extra: bool) -> list[Header]:
    """Links of a page by number. `extra` says that the store had more in the direction of reading."""
    if "page" in request.query:
        page = asked.skip // asked.limit + 1
        return links(request, {"page": page + 1} if extra else None, {"page": page - 1} if page > 1 else None)
    if not items:
        above, below = None, min(asked.after + 1, BOUND_MAX) if asked.after and asked.before is None else None
        low = {"before": below} if below else None
        return links(request, low if asked.descending else above, above if asked.descending else low, _BOUNDS)
    top, bottom = max(items[0].number, items[-1].number), min(items[0].number, items[-1].number)
    more_above = extra if not asked.from_end else asked.before is not None and asked.before <= NUMBER_MAX
    more_below = extra if asked.from_end else bottom > 1
    up = {"after": top} if more_above else None
    down = {"before": bottom} if more_below and bottom > 1 else None
    if "after" in request.query and asked.before is not None:
        # Between two bounds: the bound that is moved away from stays, and nothing lies beyond it.
        up = {"after": top, "before": asked.before} if up and not asked.from_end else None
        down = {"before": bottom, "after": asked.after} if down and asked.from_end else None
    return links(request, down if asked.descending else up, up if asked.descending else down, _BOUNDS)


_BOUNDS = ("after", "before")


def links(
    request: Request, following: dict[str, Any] | None, previous: dict[str, Any] | None, dropped: tuple[str, ...] = ()
) -> list[Header]:
    """The `Link` header: the request's own path and parameters, with some replaced by numbers or cursors."""
    replaced = (*dropped, *(following or ()), *(previous or ()))
    kept = [f"{_quoted(name)}={_quoted(text)}&" for name, text in request.query.items() if name not in replaced]
    start = f"<{request.raw_path.decode('ascii')}?{''.join(kept)}"
    found = []
    for relation, change in (("next", following), ("prev", previous)):
        if change is not None:
            query = "&".join([f"{name}={value}" for name, value in change.items()])
            found.append(f'{start}{query}>; rel="{relation}"')
    return [(b"link", ", ".join(found).encode("ascii"))] if found else []


def _quoted(text: str) -> str:
    # Nearly all are words and numbers, which quoting would look at for longer than all else of a link takes.
    return text if text.isalnum() and text.isascii() else quote_plus(text)


# Cursors: opaque to clients, free of database ids.


def application_window(query: dict[str, str]) -> ApplicationWindow:
    """The page that the list of applications is asked for. Raises Invalid."""
    count = limit(query)
    if "page" in query:
        forbid_others(query, "page", "after", "before")
        page = integer(query, "page", 1, PAGE_MAX) or 1
        return ApplicationWindow(count, skip=(page - 1) * count)
    if "after" in query and "before" in query:
        raise Invalid.at("?before", "does not go with after")
    after = _application_cursor(query, "after")
    return ApplicationWindow(count, after, None if after else _application_cursor(query, "before"))


def application_links(
    request: Request, asked: ApplicationWindow, items: Sequence[Application], extra: bool
) -> list[Header]:
    """Links of a page of applications."""
    if "page" in request.query:
        page = asked.skip // asked.limit + 1
        return links(request, {"page": page + 1} if extra else None, {"page": page - 1} if page > 1 else None)
    if not items:
        return []
    backwards = asked.before is not None
    following = {"after": _encode_application(items[-1])} if extra or backwards else None
    previous = {"before": _encode_application(items[0])} if (extra if backwards else asked.after) else None
    return links(request, following, previous, _BOUNDS)


def _encode_application(application: Application) -> str:
    return _encode(f"{milliseconds(application.created_at)}.{application.token[:CURSOR_TOKEN_CHARACTERS]}")


def _application_cursor(query: dict[str, str], name: str) -> tuple[int, str] | None:
    if name not in query:
        return None
    created_at, token = _decode(query[name], name, _APPLICATION)
    return int(created_at), token


def found_cursor(query: dict[str, str]) -> Found | None:
    """Where a search over an application goes on. Raises Invalid."""
    if "after" not in query:
        return None
    created_at, chat, number = map(int, _decode(query["after"], "after", _FOUND))
    if max(chat, number) > NUMBER_MAX:
        raise no_cursor("after")
    return Found(created_at, chat, number)


def encode_found(found: Found) -> str:
    """The cursor that goes on after this."""
    return _encode(f"{found.created_at}.{found.chat}.{found.number}")


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


_APPLICATION = re.compile(r"(-?[0-9]{1,16})\.([0-9A-Za-z_-]{1,43})")
_FOUND = re.compile(r"(-?[0-9]{1,16})\.([0-9]{1,10})\.([0-9]{1,10})")


def _decode(cursor: str, name: str, form: re.Pattern[str]) -> Sequence[str]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = form.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii"))
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise no_cursor(name)
    return found.groups()


def no_cursor(name: str) -> Invalid:
    """What is told of a cursor that no `Link` carried."""
    return Invalid.at(f"?{name}", "is no cursor of this list")
