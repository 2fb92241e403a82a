"""Two people in one chat: what one does the other sees, live, and what fails is neither lost nor done twice."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Request, Route, expect

from tests.client import ChatAt
from tests.conftest import only
from tests.console.conftest import OpenWindow
from tests.console.windows import address
from tests.houses import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
in_one_house = only("embedded", because="what the page does with an answer does not depend on who gave it")

POSTS = re.compile(r"/messages$")


async def test_two_windows_chat_with_each_other(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """What is sent, edited and deleted in one shows in the other, under the same number."""
    ada = await open_window(house, address(talk.token, 1))
    bob = await open_window(house, address(talk.token, 1))
    await ada.is_live()
    await bob.is_live()
    await ada.write("Hello, Bob", sender="ada")
    await expect(bob.body(1)).to_have_text("Hello, Bob")
    await expect(bob.message(1).locator(".sender")).to_have_text("ada")
    await bob.write("Hello, Ada", sender="bob")
    for window in (ada, bob):
        await expect(window.body(2)).to_have_text("Hello, Ada")
        await expect(window.sending).to_have_count(0)
    await bob.edit(2, "Good morning, Ada")
    await expect(ada.body(2)).to_have_text("Good morning, Ada")
    await expect(ada.message(2)).to_contain_text("edited")
    await ada.delete(1)
    for window in (ada, bob):
        await expect(window.body(1)).to_have_text("deleted")
    assert [message["body"] for message in await talk.messages()] == [None, "Good morning, Ada"]


@in_one_house
async def test_a_message_is_shown_before_it_has_its_number(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """It waits without a number, and is given it by the acknowledgement."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    held: list[Route] = []

    async def hold(route: Route, request: Request) -> None:
        if request.method == "POST":
            held.append(route)
        else:
            await route.continue_()

    await window.page.route(POSTS, hold)
    await window.write("Is anybody there?")
    await expect(window.sending).to_contain_text("Is anybody there?")
    await expect(window.sending.locator(".number")).to_have_text("")
    while not held:
        await window.page.wait_for_timeout(10)
    await held[0].continue_()
    await expect(window.message(1).locator(".number")).to_have_text("1")
    await expect(window.sending).to_have_count(0)


@in_one_house
async def test_a_message_whose_answer_was_lost_is_tried_again_and_stored_once(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """The second attempt carries the same idempotency key, and gets the number of the first."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("ERR_FAILED")
    keys: list[str] = []

    async def lose_the_first_answer(route: Route, request: Request) -> None:
        if request.method != "POST":
            await route.continue_()
            return
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await window.page.route(POSTS, lose_the_first_answer)
    await window.write("Once, please")
    await expect(window.sending.get_by_role("alert")).to_contain_text("The server does not answer.")
    await window.sending.get_by_role("button", name="Try again").click()
    await expect(window.body(1)).to_have_text("Once, please")
    await expect(window.sending).to_have_count(0)
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert len(await talk.messages()) == 1


@in_one_house
async def test_messages_written_fast_keep_their_order(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """The first is slow: those after it wait, and are numbered as they were written."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    held: list[Route] = []

    async def hold_the_first(route: Route, request: Request) -> None:
        if request.method == "POST" and not held:
            held.append(route)
        else:
            await route.continue_()

    await window.page.route(POSTS, hold_the_first)
    for number in range(1, 6):
        await window.write(f"line {number}")
    await expect(window.sending).to_have_count(5)
    await held[0].continue_()
    await expect(window.body(5)).to_have_text("line 5")
    assert [message["body"] for message in await talk.messages()] == [f"line {number}" for number in range(1, 6)]


@in_one_house
async def test_more_unsent_messages_than_fit_the_window_stay_at_its_end(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """The last one is in view, and nothing is read again for them."""
    await talk.post("sent")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("503")
    asked: list[str] = []

    async def refuse(route: Route, request: Request) -> None:
        if request.method == "POST":
            await route.fulfill(status=503, json={"code": "unavailable", "detail": "Redis is full."})
        else:
            asked.append(request.url)
            await route.continue_()

    await window.page.route(re.compile(r"/messages(\?.*)?$"), refuse)
    for number in range(4):
        await window.write(f"unsent {number}\n" + "line\n" * 20)
    await expect(window.sending.get_by_role("alert")).to_have_count(4)
    await expect(window.sending.last.get_by_role("button", name="Discard")).to_be_in_viewport()
    await window.page.wait_for_timeout(500)
    assert asked == []
    for number in reversed(range(4)):
        await window.sending.last.get_by_role("button", name="Discard").click()
        await expect(window.sending).to_have_count(number)
    await expect(window.message(1)).to_be_in_viewport()


@in_one_house
async def test_a_refused_edit_says_why_and_can_be_discarded(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """The new text stays until then; afterwards the server's is back."""
    await talk.post("before")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("503")

    async def refuse(route: Route, request: Request) -> None:
        if request.method == "PATCH":
            await route.fulfill(status=503, json={"code": "unavailable", "detail": "The disk is full."})
        else:
            await route.continue_()

    await window.page.route(re.compile(r"/messages/1$"), refuse)
    await window.edit(1, "after")
    await expect(window.message(1).get_by_role("alert")).to_contain_text("The disk is full.")
    await expect(window.body(1)).to_have_text("after")
    await window.message(1).get_by_role("button", name="Discard").click()
    await expect(window.body(1)).to_have_text("before")


@in_one_house
async def test_edits_made_fast_are_carried_out_in_their_order(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """The first is slow: the last one waits for it and wins, and those in between are not asked for."""
    await talk.post("as it was")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    held: list[Route] = []
    asked: list[str] = []

    async def hold_the_first(route: Route, request: Request) -> None:
        if request.method == "PATCH":
            asked.append((request.post_data_json or {})["body"])
        if request.method == "PATCH" and not held:
            held.append(route)
        else:
            await route.continue_()

    await window.page.route(re.compile(r"/messages/1$"), hold_the_first)
    for text in ("first", "second", "third"):
        await window.edit(1, text)
        await expect(window.body(1)).to_have_text(text)
    await window.page.wait_for_timeout(300)
    await held[0].continue_()
    await expect(window.message(1)).not_to_have_class(re.compile("under-way"))
    await expect(window.body(1)).to_have_text("third")
    assert (await talk.message(1))["body"] == "third"
    assert asked == ["first", "third"]


@in_one_house
async def test_an_edit_that_came_too_late_says_so(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """Another one deleted the message while it was edited: the tombstone is shown, with the reason."""
    await talk.post("soon gone")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("409")
    await window.act(1, "Edit")
    await talk.delete(1)
    await expect(window.body(1)).to_have_text("deleted")
    await window.page.get_by_label("Message", exact=True).fill("too late")
    await window.page.get_by_role("button", name="Save").click()
    await expect(window.message(1).get_by_role("alert")).to_contain_text("deleted")


@in_one_house
async def test_a_message_that_is_saved_as_it_was_is_not_rewritten(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Not even one with CRLF, of which a text field makes LF."""
    posted = await talk.post("one\r\ntwo")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.method))
    await window.act(1, "Edit")
    await window.page.get_by_role("button", name="Save").click()
    await expect(window.page.get_by_role("button", name="Send")).to_be_visible()
    await window.page.wait_for_timeout(300)
    assert "PATCH" not in asked
    assert await talk.message(1) == posted


@in_one_house
async def test_enter_that_ends_an_input_method_sends_nothing(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Also where the browser ends the composition before it tells of the key: then the key's code is 229."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    field = window.page.get_by_label("Message", exact=True)
    await field.fill("日本")
    press = """(field, keyCode) =>
      field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", keyCode, bubbles: true, cancelable: true }))"""
    await field.evaluate(press, 229)
    await expect(field).to_have_value("日本")
    await expect(window.sending).to_have_count(0)
    await field.evaluate(press, 13)
    await expect(window.body(1)).to_have_text("日本")
    assert len(await talk.messages()) == 1


@in_one_house
async def test_what_was_being_written_is_there_again_after_another_chat(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """A draft belongs to its chat."""
    await talk.client.create_chat(talk.token, title="Another")
    window = await open_window(house, address(talk.token, 1))
    await window.page.get_by_label("Message", exact=True).fill("not yet sent")
    await window.page.get_by_role("link", name="Another").click()
    await expect(window.page.get_by_role("heading", name="Another")).to_be_visible()
    await expect(window.page.get_by_label("Message", exact=True)).to_have_value("")
    await window.page.get_by_role("link", name="Orders").click()
    await expect(window.page.get_by_label("Message", exact=True)).to_have_value("not yet sent")


@in_one_house
async def test_chats_and_applications_are_made_in_the_console(house: House, open_window: OpenWindow) -> None:
    """From nothing to a first message, without a terminal."""
    window = await open_window(house)
    page = window.page
    await page.get_by_role("button", name="New application").click()
    await page.get_by_label("Name", exact=True).fill("Made by hand")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("navigation").get_by_role("heading", name="Made by hand")).to_be_visible()
    await page.get_by_role("button", name="New chat").click()
    await page.get_by_label("Title, if it has one").fill("First")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", name="First")).to_be_visible()
    await window.is_live()
    await window.write("It works")
    await expect(window.body(1)).to_have_text("It works")
