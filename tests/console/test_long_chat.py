"""A chat of 100,000 messages: every part of it is a scroll away, and no more of it is there than is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.client import ChatAt, Client
from tests.client import expect as expect_status
from tests.conftest import only
from tests.console.conftest import OpenWindow
from tests.console.windows import Window, address
from tests.houses import House

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="pages of both houses are alike, as tests/api proves, and filling one takes long enough"),
]

MESSAGES = 100_000
BATCH = 500
ROWS_MAX = 400
"""What the page keeps, however long the chat is."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def long_chat(house: House) -> AsyncIterator[ChatAt]:
    """The chat; messages of one to seven lines, some senders in turn."""
    async with Client(house.url) as client:
        chat = await client.create_chat((await client.create_application("A long one"))["token"])
        for start in range(1, MESSAGES, BATCH):
            batch = [
                {"sender": f"sender {number // 3 % 5}", "body": f"message {number}" + " and so on" * (number % 90)}
                for number in range(start, start + BATCH)
            ]
            expect_status(await chat.request("POST", "/messages/batch", json={"messages": batch}), 201)
        yield chat


async def rows(window: Window) -> list[int]:
    """The numbers that have a row."""
    numbers: list[int] = await window.page.locator('[role="feed"]').evaluate(
        "(feed) => [...feed.children].map((row) => Number(row.getAttribute('aria-posinset')))"
    )
    return numbers


async def rows_are_few_and_in_a_row(window: Window) -> None:
    """Consecutive numbers, not more than are kept."""
    numbers = await rows(window)
    assert 0 < len(numbers) <= ROWS_MAX
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


async def test_it_opens_at_its_end_and_its_beginning_is_a_key_away(
    house: House, open_window: OpenWindow, long_chat: ChatAt
) -> None:
    """Home and End go to the first and the last message."""
    window = await open_window(house, address(long_chat.token, 1))
    await expect(window.message(MESSAGES)).to_be_in_viewport()
    await window.page.locator(".scroller").focus()
    await window.page.keyboard.press("Home")
    await expect(window.message(1)).to_be_in_viewport()
    await rows_are_few_and_in_a_row(window)
    await window.page.locator(".scroller").focus()
    await window.page.keyboard.press("End")
    await expect(window.message(MESSAGES)).to_be_in_viewport()
    await rows_are_few_and_in_a_row(window)


async def test_the_scroll_bar_stands_for_the_whole_chat(
    house: House, open_window: OpenWindow, long_chat: ChatAt
) -> None:
    """Half the way down is about the middle of the chat."""
    window = await open_window(house, address(long_chat.token, 1))
    await expect(window.message(MESSAGES)).to_be_in_viewport()
    for share in (0.5, 0.1, 0.9):
        await window.scroll_to(share)
        await expect(window.message(round(share * MESSAGES))).to_be_attached()
        await rows_are_few_and_in_a_row(window)


async def test_scrolling_page_by_page_shows_every_message_in_order(
    house: House, open_window: OpenWindow, long_chat: ChatAt
) -> None:
    """Upwards through more than is kept: none is left out, nothing jumps, and the rows stay few."""
    window = await open_window(house, address(long_chat.token, 1))
    await expect(window.message(MESSAGES)).to_be_in_viewport()
    await window.page.locator(".scroller").hover()
    seen: set[int] = set()
    top = """(scroller) => {
      const middle = scroller.getBoundingClientRect().top;
      const rows = [...scroller.querySelectorAll('[role="feed"] > *')];
      const seen = rows.filter((row) => row.getBoundingClientRect().bottom > middle
                                     && row.getBoundingClientRect().top < middle + scroller.clientHeight);
      return seen.map((row) => Number(row.getAttribute("aria-posinset")));
    }"""
    while not seen or min(seen) > MESSAGES - ROWS_MAX - 100:
        visible = await window.page.locator(".scroller").evaluate(top)
        seen.update(visible)
        await window.page.mouse.wheel(0, -600)
        # The next screen begins above this one's top.
        await expect(window.message(max(1, visible[0] - 1))).to_be_in_viewport()
    assert seen == set(range(min(seen), MESSAGES + 1))
    await rows_are_few_and_in_a_row(window)


async def test_what_is_looked_at_stays_where_it_is_when_messages_arrive(
    house: House, open_window: OpenWindow, long_chat: ChatAt
) -> None:
    """A reader in the middle is not moved, and is told how many are new."""
    window = await open_window(house, address(long_chat.token, 1))
    await expect(window.message(MESSAGES)).to_be_in_viewport()
    await window.is_live()
    await window.go(address(long_chat.token, 1, 50_000))
    await expect(window.message(50_000)).to_be_in_viewport()
    before = await window.message(50_000).bounding_box()
    await long_chat.post_batch("news", "more news")
    await expect(window.page.get_by_role("button", name="2 new")).to_be_visible()
    assert await window.message(50_000).bounding_box() == before
    await window.page.get_by_role("button", name="2 new").click()
    await expect(window.message(MESSAGES + 2)).to_be_in_viewport()


async def test_an_edit_far_away_is_seen_when_one_gets_there(
    house: House, open_window: OpenWindow, long_chat: ChatAt
) -> None:
    """Changes of messages that have no row are not kept: the page that is read later has them."""
    window = await open_window(house, address(long_chat.token, 1))
    await window.is_live()
    await long_chat.edit(20_000, body="edited meanwhile")
    await window.page.get_by_label("Go to message number").fill("20000")
    await window.page.get_by_label("Go to message number").press("Enter")
    await expect(window.body(20_000)).to_have_text("edited meanwhile")
    await expect(window.message(20_000)).to_be_in_viewport()


async def test_a_flood_of_messages_leaves_the_rows_few(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """Five thousand arrive while someone watches the end: the end is in view, and old rows made room."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    for start in range(0, 5000, BATCH):
        await talk.post_batch(*[f"flood {number}" for number in range(start, start + BATCH)])
    await expect(window.message(5000)).to_be_in_viewport()
    await rows_are_few_and_in_a_row(window)
