"""Everyone can use it: by axe-core's rules in each state, light and dark, and with the keyboard alone."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.async_api import expect

from tests.client import ChatAt, Client
from tests.conftest import BuildHouse, only
from tests.console.conftest import OpenWindow
from tests.console.windows import Window, address
from tests.houses import House

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="the page looks alike on every house"),
]

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
RUN = """async () => {
  const { violations, passes } = await axe.run(document);
  return [violations.map(({ id, nodes }) => [id, ...nodes.map((node) => node.html)]), passes.length];
}"""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
TABS_MAX = 40


async def is_accessible(window: Window, *, besides: str = "") -> None:
    """No violation of any of axe's rules, contrast included, but for the one that is named; in light and dark."""
    await window.page.evaluate(AXE)
    for scheme in SCHEMES:
        await window.page.emulate_media(color_scheme=scheme)
        violations, passes = await window.page.evaluate(RUN)
        assert [one for one in violations if one[0] != besides] == [], (scheme, violations)
        assert passes > 10


async def crowd(chat: ChatAt) -> None:
    """Messages of every look: an edited and a deleted one, metadata, no sender, scripts of the world."""
    for sender in ("ada", "bob", "يوسف", "山田", "Jörg", None):
        await chat.post(f"A message of {sender}", sender=sender)
        await chat.post("and one more", sender=sender)
    await chat.edit(1, body="edited")
    await chat.delete(2)
    await chat.post("with metadata", sender="shop", metadata={"order": 1042})


async def test_a_chat_and_a_search_break_no_rule(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """With messages of every look, the actions of one, its metadata, results, and a question."""
    await crowd(talk)
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    await expect(window.message(13)).to_be_visible()
    await window.page.get_by_text("Metadata", exact=True).click()
    await window.message(12).hover()
    await is_accessible(window)
    await window.search("message")
    await expect(window.found).to_have_count(5)
    await is_accessible(window)
    await window.act(12, "Delete")
    await is_accessible(window)


async def test_what_failed_breaks_no_rule(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """A message that was not sent, and a connection that is broken."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("ERR_")
    await window.page.route("**/applications/**", lambda route: route.abort())
    await window.write("lost?")
    await expect(window.sending.get_by_role("alert")).to_be_visible()
    await is_accessible(window)
    await window.go()
    # Whichever comes first: with many others before it, this one is on a later page of the list.
    await expect(window.page.get_by_role("list", name="Applications").get_by_role("link").first).to_be_visible()
    await window.go(address(talk.token, 1))
    await expect(window.page.get_by_role("alert").first).to_be_visible()
    await is_accessible(window)


async def test_signing_in_and_the_lists_break_no_rule(serve: BuildHouse, open_window: OpenWindow) -> None:
    """From the key to the first run, to an application, to an empty chat."""
    key = "an-admin-key-of-the-tests"
    locked = serve(admin_key=key)
    window = await open_window(locked)
    window.forgive("status of 401")
    page = window.page
    await page.get_by_label("Admin key").fill("wrong")
    await page.get_by_label("Admin key").press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="opens nothing")).to_be_visible()
    await is_accessible(window)
    await page.get_by_label("Admin key").fill(key)
    await page.get_by_label("Admin key").press("Enter")
    await expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    await is_accessible(window)
    async with Client(locked.url, {"Authorization": f"Bearer {key}"}) as admin:
        chat = await admin.create_chat((await admin.create_application())["token"])
    await page.get_by_role("link", name="An application").click()
    await expect(page.get_by_role("main").get_by_role("heading", name="An application")).to_be_visible()
    await is_accessible(window)
    await window.go(address(chat.token, 1))
    await expect(page.get_by_role("heading", name="No message yet")).to_be_visible()
    await window.is_live()
    await is_accessible(window)


async def tab_to(window: Window, name: str) -> None:
    """Press Tab until something of this name has the focus."""
    script = """() => {
      const element = document.activeElement;
      return element.getAttribute("aria-label") ?? element.textContent;
    }"""
    reached = []
    for _ in range(TABS_MAX):
        await window.page.keyboard.press("Tab")
        reached.append(str(await window.page.evaluate(script)))
        if re.search(name, reached[-1]):
            return
    raise AssertionError(f"{name} is not reached by Tab: {reached}")


async def test_the_keyboard_is_enough(serve: BuildHouse, open_window: OpenWindow) -> None:
    """Choose an application and a chat, write, edit, delete, search and go to what was found, without a pointer."""
    house = serve()
    async with Client(house.url) as client:
        chat = await client.create_chat((await client.create_application("Desk"))["token"], title="Orders")
        await chat.post_batch("first", "second", "third")
    window = await open_window(house)
    press = window.page.keyboard.press
    await expect(window.page.get_by_role("link", name="Desk")).to_be_visible()
    await tab_to(window, "Desk")
    await press("Enter")
    await expect(window.page.get_by_role("link", name="Orders")).to_be_visible()
    await tab_to(window, "Orders")
    await press("Enter")
    await window.is_live()
    await expect(window.page.get_by_label("Message", exact=True)).to_be_focused()
    await window.page.keyboard.type("written by key")
    await press("Shift+Enter")
    await window.page.keyboard.type("in two lines")
    await press("Enter")
    await expect(window.body(4)).to_have_text("written by key\nin two lines")
    # From the field back to the messages: the last one first.
    await press("Escape")
    await expect(window.message(4)).to_be_focused()
    await press("ArrowUp")
    await expect(window.message(3)).to_be_focused()
    await press("Enter")
    await window.page.keyboard.type(", edited")
    await press("Enter")
    await expect(window.body(3)).to_have_text("third, edited")
    await press("Escape")
    await press("ArrowUp")
    await expect(window.message(3)).to_be_focused()
    await press("Delete")
    await tab_to(window, "^Delete$")
    await press("Enter")
    await expect(window.body(3)).to_have_text("deleted")
    await window.message(3).focus()
    await press("/")
    await expect(window.page.get_by_label("Search messages")).to_be_focused()
    await window.page.keyboard.type("sec")
    await expect(window.found).to_have_count(1)
    await tab_to(window, "second")
    await press("Enter")
    await expect(window.message(2)).to_be_focused()
    await press("/")
    await press("Escape")
    await expect(window.page.get_by_label("Search messages")).to_be_hidden()


async def test_new_messages_are_announced(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """In a region that screen readers read out, with the sender first."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    # What is there when the chat is opened is not news.
    await expect(window.page.get_by_role("heading", name="No message yet")).to_be_visible()
    await talk.post("Dinner is ready", sender="ada")
    await expect(window.page.get_by_role("log")).to_have_text("ada: Dinner is ready")


async def test_a_phone_shows_one_thing_at_a_time(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """The list, then the chat, and the way back; the rules hold there, too."""
    await crowd(talk)
    window = await open_window(
        house, address(talk.token), viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    page = window.page
    await page.get_by_role("link", name="Orders").tap()
    await expect(window.message(13)).to_be_in_viewport()
    await expect(page.get_by_role("navigation")).to_be_hidden()
    await window.is_live()
    await is_accessible(window)
    await window.message(12).tap()
    await window.message(12).get_by_role("button", name="Edit").tap()
    await page.get_by_label("Message", exact=True).fill("edited with a thumb")
    await page.get_by_role("button", name="Save").tap()
    await expect(window.body(12)).to_have_text("edited with a thumb")
    await page.get_by_role("link", name="Back to the chats").tap()
    await expect(page.get_by_role("link", name="Orders")).to_be_visible()
    # Nothing but the list is there: it is no main part of something.
    await is_accessible(window, besides="landmark-one-main")


async def test_on_a_phone_a_result_takes_the_place_of_the_search(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """The search lies over the chat; what was chosen in it is seen, and stays marked."""
    await crowd(talk)
    window = await open_window(
        house, address(talk.token, 1), viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    await window.is_live()
    await window.search("more")
    await window.found.first.get_by_role("link").tap()
    await expect(window.found.first).to_be_hidden()
    await expect(window.message(12)).to_be_in_viewport()
    await expect(window.message(12).locator("mark")).to_have_text("more")


def kinds(found: list[Any]) -> list[str]:
    """The names of the rules that were broken."""
    return [one[0] for one in found]


async def test_axe_finds_what_is_wrong(house: House, open_window: OpenWindow) -> None:
    """The check above is none that passes anything: a field without a label, faint text, a picture without words."""
    window = await open_window(house)
    await window.page.evaluate(
        """() => {
          const field = document.createElement("input");
          const faint = document.createElement("p");
          faint.textContent = "hardly to be read";
          faint.style.color = "#eee";
          faint.style.background = "#fff";
          document.body.append(field, faint, document.createElement("img"));
        }"""
    )
    await window.page.evaluate(AXE)
    violations, _ = await window.page.evaluate(RUN)
    assert {"label", "color-contrast", "image-alt"} <= set(kinds(violations))
