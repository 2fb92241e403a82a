"""Search as you type, and marks that agree with the server's own sense of a match."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Request, Route, expect

from tests.client import ChatAt
from tests.conftest import only
from tests.console.conftest import OpenWindow
from tests.console.windows import address
from tests.houses import House

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="both houses find the same, as tests/api proves"),
]


async def test_a_search_finds_as_you_type_and_marks_what_matched(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Also where folding changes the length: STRASSE in Straße, a ligature, a dotted capital I."""
    bodies = ["Die Straße", "the ﬁrst oﬃce", "İstanbul", "nothing"]
    await talk.post_batch(*bodies)
    window = await open_window(house, address(talk.token, 1))
    for query, number, marks in [("STRASSE", 1, ["Straße"]), ("fi", 2, ["ﬁ", "ﬃ"]), ("i\u0307s", 3, ["İs"])]:
        await window.search(query)
        await expect(window.found).to_have_count(1)
        await expect(window.found).to_contain_text(f"#{number}")
        assert await window.found.locator("mark").all_text_contents() == marks


async def test_a_result_leads_to_its_message(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """In a long chat: the message is loaded, in view, focused, and marked."""
    await talk.post_batch(*[f"filler {number}" for number in range(500)])
    await talk.post_batch("the needle", *[f"more {number}" for number in range(400)])
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    await window.search("NEEDLE")
    await window.found.get_by_role("link").click()
    await expect(window.message(501)).to_be_in_viewport()
    await expect(window.message(501)).to_be_focused()
    await expect(window.message(501).locator("mark")).to_have_text("needle")


async def test_a_message_that_is_chosen_again_is_gone_to_again(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """A result, or a number, that the address already names: the reader has scrolled away."""
    await talk.post_batch(*[f"filler {number}" for number in range(500)])
    await talk.post_batch("the needle", *[f"more {number}" for number in range(400)])
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    await window.search("NEEDLE")
    await window.found.get_by_role("link").click()
    await expect(window.message(501)).to_be_in_viewport()
    await window.scroll_to(0)
    await expect(window.message(1)).to_be_in_viewport()
    await window.found.get_by_role("link").click()
    await expect(window.message(501)).to_be_in_viewport()
    await window.scroll_to(0)
    await expect(window.message(1)).to_be_in_viewport()
    number = window.page.get_by_label("Go to message number")
    await number.fill("501")
    await number.press("Enter")
    await expect(window.message(501)).to_be_in_viewport()
    # More digits than an address takes.
    await number.fill("99999999999")
    await number.press("Enter")
    await expect(window.message(901)).to_be_in_viewport()


async def test_a_jump_that_failed_is_made_when_asked_again(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """Not only is what was there drawn again."""
    for _ in range(2):
        await talk.post_batch(*[f"filler {number}" for number in range(500)])
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("ERR_FAILED")
    await expect(window.message(1000)).to_be_in_viewport()
    await window.page.route("**/messages?after=*", lambda route: route.abort())
    number = window.page.get_by_label("Go to message number")
    await number.fill("200")
    await number.press("Enter")
    alert = window.page.get_by_role("alert").filter(has_text="could not be loaded")
    await expect(alert).to_be_visible()
    await window.page.unroute("**/messages?after=*")
    await alert.get_by_role("button", name="Try again").click()
    await expect(window.message(200)).to_be_in_viewport()
    await expect(alert).to_be_hidden()


async def test_a_search_over_all_chats_leads_to_another_chat(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Each result names its chat."""
    other = await talk.client.create_chat(talk.token, title="Complaints")
    await talk.post("a parcel here")
    await other.post("a parcel there")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    await window.search("parcel", everywhere=True)
    await expect(window.found).to_have_count(2)
    await window.found.filter(has_text="chat 2").get_by_role("link").click()
    await expect(window.page.get_by_role("heading", name="Complaints")).to_be_visible()
    await expect(window.body(1)).to_have_text("a parcel there")


async def test_a_stale_answer_is_cancelled_and_never_shown(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """The answer to the first query comes after that to the second, and changes nothing."""
    await talk.post_batch("apple", "banana")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    held = asyncio.Event()
    cancelled: list[str] = []
    window.page.on("requestfailed", lambda request: cancelled.append(request.url))

    async def hold_apples(route: Route, request: Request) -> None:
        if "q=apple" in request.url:
            await held.wait()
        await route.continue_()

    await window.page.route("**/search?*", hold_apples)
    async with window.page.expect_request("**/search?q=apple*"):
        await window.search("apple")
    await window.page.get_by_label("Search messages").fill("banana")
    await expect(window.found).to_contain_text("banana")
    assert any("q=apple" in url for url in cancelled)
    held.set()
    await window.page.unroute_all(behavior="ignoreErrors")
    await expect(window.found).to_have_count(1)
    await expect(window.found).to_contain_text("banana")


async def test_a_search_that_is_given_up_is_not_busy_any_more(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """The field is cleared, or the search closed, before the answer comes."""
    await talk.post("apple")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    panel = window.page.locator("#search")

    def hang(_route: Route) -> None:
        pass

    await window.page.route("**/search?*", hang)
    await window.search("apple")
    await expect(panel).to_have_attribute("aria-busy", "true")
    await window.page.get_by_label("Search messages").fill("")
    await expect(panel).not_to_have_attribute("aria-busy", "true", timeout=3_000)
    async with window.page.expect_request("**/search?q=apple*"):
        await window.page.get_by_label("Search messages").fill("apple")
    await expect(panel).to_have_attribute("aria-busy", "true")
    await window.page.get_by_label("Search messages").press("Escape")
    await expect(panel).not_to_have_attribute("aria-busy", "true", timeout=3_000)


async def test_results_follow_edits_and_deletions(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """What no longer matches leaves the list, what was edited shows its new text."""
    await talk.post_batch("red one", "red two", "red three")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    await window.search("red")
    await expect(window.found).to_have_count(3)
    await talk.delete(1)
    await talk.edit(2, body="blue two")
    await talk.edit(3, body="red and green")
    await expect(window.found).to_have_count(1)
    await expect(window.found).to_contain_text("red and green")


async def test_more_results_come_with_scrolling(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """All pages, to the first message."""
    await talk.post_batch(*[f"match {number}" for number in range(100)])
    window = await open_window(house, address(talk.token, 1))
    await window.search("match")
    await expect(window.found).to_have_count(30)
    for count in (60, 90, 100):
        await window.found.last.scroll_into_view_if_needed()
        await expect(window.found).to_have_count(count)


async def test_a_search_without_a_match_says_so(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """Nothing found is an answer; a query over the limit is a sentence."""
    await talk.post("something")
    window = await open_window(house, address(talk.token, 1))
    await window.search("nowhere")
    await expect(window.page.get_by_text("Nothing found.")).to_be_visible()
    await window.page.get_by_label("Search messages").fill("x" * 257)
    await expect(window.page.get_by_text("256 characters")).to_be_visible()
