"""Pages and their links against a brute-force reading of the contract: whatever one follows, each item comes once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_system.errors import Invalid
from chat_system.model import (
    NUMBER_MAX,
    PAGE_DEFAULT_ITEMS,
    PAGE_MAX_ITEMS,
    Application,
    Message,
    Window,
    milliseconds,
    rfc3339,
)
from chat_system.ports import ApplicationWindow, Found
from chat_system.web import pages
from chat_system.web.request import Header
from tests.unit.requests import make_request

Query = dict[str, str]

PATH = "/a/list"
MANY_PAGES = 60


@dataclass
class Page:
    """What a request for a page answers: the items, and the queries that its links carry."""

    items: list[Any]
    links: dict[str, Query]


def linked(headers: list[Header]) -> dict[str, Query]:
    """The queries of the links, by relation; each must point to the list itself."""
    found = {}
    for url, relation in re.findall(r'<([^>]*)>; rel="(\w+)"', b", ".join(text for _, text in headers).decode()):
        assert urlsplit(url).path == PATH
        found[relation] = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    assert len(headers) <= 1
    return found


def follow(start: Page, ask: Callable[[Query], Page], relation: str) -> Iterator[Page]:
    """All the pages that one comes to by following one relation."""
    page = start
    for _ in range(MANY_PAGES):
        if relation not in page.links:
            return
        page = ask(page.links[relation])
        yield page
    raise AssertionError("the links never end")


# Lists by number


def selected(window: Window, last: int) -> list[int]:
    """What a store answers to a window, by the words of `Window`."""
    inside = [number for number in range(1, last + 1) if window.after < number < (window.before or last + 1)]
    inside = inside[::-1][window.skip :][: window.limit] if window.from_end else inside[window.skip :][: window.limit]
    return sorted(inside, reverse=window.descending)


def contract(query: Query, last: int) -> list[int]:
    """What the contract says that a page holds: `after` alone the next above, `before` alone the next below."""
    limit = int(query.get("limit", PAGE_DEFAULT_ITEMS))
    numbers = list(range(1, last + 1))
    descending = query.get("order") == "desc"
    if "page" in query:
        return numbers[(int(query["page"]) - 1) * limit :][:limit]
    after, before = int(query.get("after", 0)), int(query.get("before", last + 1))
    inside = [number for number in numbers if after < number < before]
    starts_high = descending if ("after" in query) == ("before" in query) else "before" in query
    page = inside[-limit:] if starts_high else inside[:limit]
    return page[::-1] if descending else page


def message(number: int) -> Message:
    """Some message."""
    return Message(number, None, "x", None, number, rfc3339(0), rfc3339(0))


def by_number(last: int, *, messages: bool = True) -> Callable[[Query], Page]:
    """A list of 1 to `last`, asked as the web layer asks its store: for one item more than the page has."""

    def ask(query: Query) -> Page:
        asked = pages.window(query, messages=messages)
        assert selected(asked, last) == contract(query, last)
        found = selected(msgspec.structs.replace(asked, limit=asked.limit + 1), last)
        extra = len(found) > asked.limit
        if extra:
            found = found[1:] if asked.from_end != asked.descending else found[:-1]
        headers = pages.number_links(
            make_request(PATH, urlencode(query)), asked, [message(number) for number in found], extra
        )
        return Page(found, linked(headers))

    return ask


AFTER = st.integers(0, 14).map(str)
BEFORE = st.integers(1, 14).map(str)
STARTS = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 6).map(str),
        "order": st.sampled_from(["asc", "desc"]),
        "after": AFTER,
        "before": BEFORE,
    },
)


def all_starts(last: int) -> Iterator[Query]:
    """Every way to begin: all small limits, orders and bounds up to one beyond the last."""
    texts = [None, *map(str, range(last + 3))]
    for limit, order, after, before in product(("1", "2", "3"), (None, "asc", "desc"), texts, texts):
        query = {"limit": limit, "order": order, "after": after, "before": before}
        if before != "0":
            yield {name: text for name, text in query.items() if text is not None}


def visited(start: Page, ask: Callable[[Query], Page]) -> list[int]:
    """What one comes by, from the farthest page backward to the farthest page onward."""
    onward = [page.items for page in follow(start, ask, "next")]
    backward = [page.items for page in follow(start, ask, "prev")]
    return [item for items in (*backward[::-1], start.items, *onward) for item in items]


@pytest.mark.parametrize("last", range(8))
def test_following_links_visits_every_item_once(last: int) -> None:
    """From every start: onward and backward together hold each item in reach once, in order."""
    ask = by_number(last)
    wrong = []
    for query in all_starts(last):
        start = ask(query)
        reach = list(range(1, last + 1))
        if "after" in query and "before" in query:
            # A range: it is walked from the end that it starts at to the other, and nothing lies outside.
            reach = [number for number in reach if int(query["after"]) < number < int(query["before"])]
        if start.items and visited(start, ask) != sorted(reach, reverse=query.get("order") == "desc"):
            wrong.append(query)
        if not start.items and not all(ask(link).items for link in start.links.values() if last):
            wrong.append(query)
    assert wrong == []


@given(st.integers(0, 12), STARTS)
def test_the_way_back_holds_what_the_way_there_held(last: int, query: Query) -> None:
    """Going to the end and back to the start visits the same items, but for ranges, which go one way only."""
    if "after" in query and "before" in query:
        return
    ask = by_number(last)
    trail = [ask(query)]
    trail += follow(trail[0], ask, "next")
    there = [item for page in trail for item in page.items]
    back = [page.items for page in follow(trail[-1], ask, "prev")]
    returned = [item for items in (*back[::-1], trail[-1].items) for item in items]
    assert there == returned[len(returned) - len(there) :]


@given(st.integers(0, 12), STARTS)
def test_links_keep_the_other_parameters_and_never_lead_out_of_the_list(last: int, query: Query) -> None:
    """Limit, order and what else was asked stay; every page but the last of a walk is full."""
    ask = by_number(last)
    query = {**query, "token": "t&=é"}
    start = ask(query)
    for relation in ("next", "prev"):
        for link in start.links.values():
            assert {name: text for name, text in link.items() if name not in ("after", "before")} == {
                name: text for name, text in query.items() if name not in ("after", "before")
            }
        trail = [page.items for page in follow(start, ask, relation)]
        limit = int(query.get("limit", PAGE_DEFAULT_ITEMS))
        assert all(len(items) == limit for items in trail[:-1])


@given(st.integers(0, 12), st.integers(1, 6), st.integers(1, 8))
def test_pages_by_their_number(last: int, limit: int, page: int) -> None:
    """Page after page, onward and backward from any of them, as the seed's clients do."""
    ask = by_number(last, messages=False)
    start = ask({"limit": str(limit), "page": str(page)})
    onward = [one.items for one in follow(start, ask, "next")]
    backward = [one.items for one in follow(start, ask, "prev")]
    assert [item for items in (*backward[::-1], start.items, *onward) for item in items] == list(range(1, last + 1))
    assert len(backward) == page - 1


def test_without_parameters_a_list_begins_at_its_start() -> None:
    """With 50 items; or at its end, when that is asked for."""
    assert by_number(120)({}).items == list(range(1, 51))
    assert by_number(120)({"order": "desc"}).items == list(range(120, 70, -1))


REFUSED: list[tuple[Query, str, bool]] = [
    *(({"limit": text}, "?limit", True) for text in ("0", "201", "-1", "", "x", "1.0", "١", " 1", "9" * 30)),
    *(({"after": text}, "?after", True) for text in ("-1", "x", "", str(2**53))),
    *(({"before": text}, "?before", True) for text in ("0", "-1", "x", str(2**53))),
    *(({"order": text}, "?order", True) for text in ("", "ASC", "up")),
    *(({"page": text}, "?page", False) for text in ("0", "-1", "x", "9" * 12)),
    ({"page": "1", "after": "1"}, "?after", False),
    ({"page": "1", "before": "1"}, "?before", False),
]


@pytest.mark.parametrize(("query", "pointer", "messages"), REFUSED)
def test_what_is_out_of_range_is_refused_and_named(query: Query, pointer: str, messages: bool) -> None:
    """A limit is never silently cut, and no parameter is silently ignored."""
    with pytest.raises(Invalid) as refusal:
        pages.window(query, messages=messages)
    assert [fault.pointer for fault in refusal.value.faults] == [pointer]


def test_what_is_in_range_is_taken() -> None:
    """At the edges of what is allowed; bounds far beyond the last item are fine."""
    for limit in (1, PAGE_MAX_ITEMS):
        assert pages.window({"limit": str(limit)}, messages=True).limit == limit
    for name in ("after", "before"):
        assert getattr(pages.window({name: str(2**53 - 1)}, messages=True), name) == 2**53 - 1
    assert pages.window({"after": "0"}, messages=True) == Window(PAGE_DEFAULT_ITEMS)
    assert pages.window({"page": "3", "limit": "7"}, messages=False).skip == 14


# Lists of applications, by cursor


def application(index: int, at: int) -> Application:
    """Some application; many share their moment."""
    return Application(f"{index:03d}".ljust(43, "t"), f"Name {index}", 0, rfc3339(at), rfc3339(at))


def by_cursor(everything: list[Application]) -> Callable[[Query], Page]:
    """A list of applications, asked as the web layer asks its store."""

    def place(one: Application) -> tuple[int, str]:
        return milliseconds(one.created_at), one.token

    def selected(window: ApplicationWindow) -> list[Application]:
        if window.after is not None:
            beyond = (window.after[0], window.after[1] + "~")
            return [one for one in everything if place(one) > beyond][: window.limit]
        if window.before is not None:
            return [one for one in everything if place(one) < window.before][-window.limit :]
        return everything[window.skip :][: window.limit]

    def ask(query: Query) -> Page:
        asked = pages.application_window(query)
        found = selected(msgspec.structs.replace(asked, limit=asked.limit + 1))
        extra = len(found) > asked.limit
        if extra:
            found = found[1:] if asked.before is not None else found[:-1]
        headers = pages.application_links(make_request(PATH, urlencode(query)), asked, found, extra)
        return Page(found, linked(headers))

    return ask


APPLICATIONS = st.lists(st.integers(-3, 3), max_size=14).map(
    lambda times: [application(index, at) for index, at in enumerate(sorted(times))]
)


@given(APPLICATIONS, st.integers(1, 6), st.integers(0, 20))
def test_following_cursors_visits_every_application_once(everything: list[Application], limit: int, turn: int) -> None:
    """Onward from the start, and backward from any page of the walk to the start; equal times included."""
    ask = by_cursor(everything)
    trail = [ask({"limit": str(limit)})]
    trail += follow(trail[0], ask, "next")
    assert [one for page in trail for one in page.items] == everything
    here = turn % len(trail)
    back = [page.items for page in follow(trail[here], ask, "prev")]
    before = [one for page in trail[:here] for one in page.items]
    assert [one for items in back[::-1] for one in items] == before
    if back:
        again = [one for page in follow(ask(trail[here].links["prev"]), ask, "next") for one in page.items]
        assert again == everything[len(before) :]


@given(APPLICATIONS, st.integers(1, 6), st.integers(1, 8))
def test_applications_by_the_number_of_their_page(everything: list[Application], limit: int, page: int) -> None:
    """Onward and backward, as the seed's clients do."""
    ask = by_cursor(everything)
    start = ask({"limit": str(limit), "page": str(page)})
    onward = [item for one in follow(start, ask, "next") for item in one.items]
    assert [*start.items, *onward] == everything[(page - 1) * limit :]
    assert len(list(follow(start, ask, "prev"))) == page - 1


def test_a_cursor_tells_no_token() -> None:
    """It carries too little of a token to open anything."""
    (cursor,) = (
        link["after"] for link in by_cursor([application(1, 0), application(2, 0)])({"limit": "1"}).links.values()
    )
    asked = pages.application_window({"after": cursor})
    assert asked.after is not None
    assert len(asked.after[1]) == pages.CURSOR_TOKEN_CHARACTERS < 43 // 2


BAD_CURSORS = [
    "",
    "x",
    "!!!!",
    "é",
    "MA",
    "MC54",
    "LjE",
    "YS5i",
    "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkuYQ",
    "MS4yLjM",
    "A" * 5000,
]


@pytest.mark.parametrize("cursor", [bad for bad in BAD_CURSORS if bad != "MC54"])
@pytest.mark.parametrize("name", ["after", "before"])
def test_what_is_no_cursor_of_applications_is_refused(name: str, cursor: str) -> None:
    """One of another list, one that was tampered with, and plain nonsense."""
    with pytest.raises(Invalid) as refusal:
        pages.application_window({name: cursor})
    assert [fault.pointer for fault in refusal.value.faults] == [f"?{name}"]


@pytest.mark.parametrize("cursor", [bad for bad in BAD_CURSORS if bad != "MS4yLjM"])
def test_what_is_no_cursor_of_a_search_is_refused(cursor: str) -> None:
    """The same of searches over an application."""
    with pytest.raises(Invalid) as refusal:
        pages.found_cursor({"after": cursor})
    assert [fault.pointer for fault in refusal.value.faults] == ["?after"]


@given(st.integers(-(10**14), 10**15), st.integers(1, NUMBER_MAX), st.integers(1, NUMBER_MAX))
def test_a_cursor_of_a_search_survives_both_ways(at: int, chat: int, number: int) -> None:
    """Encoded and read, it is the same place."""
    found = Found(at, chat, number)
    assert pages.found_cursor({"after": pages.encode_found(found)}) == found
    assert pages.found_cursor({}) is None


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30))
def test_any_cursor_is_read_or_refused(text: str) -> None:
    """Whatever a client makes up, nothing else happens."""
    for read in (pages.application_window, pages.found_cursor):
        with suppress(Invalid):
            read({"after": text})


def test_cursors_and_pages_are_not_mixed() -> None:
    """Of two ways to say where to go on, neither wins silently."""
    cursor = pages.encode_found(Found(0, 1, 1))
    for query in ({"page": "1", "after": cursor}, {"after": "MC54", "before": "MC54"}):
        with pytest.raises(Invalid):
            pages.application_window(query)
