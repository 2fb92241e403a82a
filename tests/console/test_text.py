"""Text of every kind looks like what it is, and is never anything but text."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.client import ChatAt, Client
from tests.conftest import BuildHouse, only
from tests.console.conftest import OpenWindow
from tests.console.windows import Window, address
from tests.houses import House

DEPTH = 90
"""Of nested arrays: around a thousand numbers, 2,000 characters as they are sent, far more than 100,000 as shown."""

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="both houses return text as it came, as tests/properties prove"),
]

HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "</div></article><h1>Not ours</h1>",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
    "\u202e\u2066gnirts nettirw sdrawkcab",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    '"><svg/onload=alert(1)>',
]

RECTANGLE = (
    "(element) => { const r = document.createRange(); r.selectNodeContents(element); return r.getBoundingClientRect() }"
)


async def test_hostile_texts_are_shown_letter_by_letter(house: House, open_window: OpenWindow, api: Client) -> None:
    """As body, sender, title of the chat and name of the application: not one element comes of them."""
    for text in HOSTILE[:3]:
        application = await api.create_application(text)
        chat = await api.create_chat(application["token"], title=text)
        for body in HOSTILE:
            await chat.post(body, sender=text)
        window = await open_window(house, address(chat.token, 1))
        await expect(window.page.get_by_role("navigation").get_by_role("heading")).to_have_text(text)
        await expect(window.page.get_by_role("main").get_by_role("heading")).to_have_text(text)
        for number, body in enumerate(HOSTILE, 1):
            assert await window.body(number).text_content() == body
            await expect(window.message(number).locator(".sender")).to_have_text(text)
        await window.search("a")
        await expect(window.found.first).to_be_visible()
        assert await window.page.title() == f"\u2068{text}\u2069 – Chat System"
        for element in ("script:not([src])", "svg", "img", "b", "[onerror]", "[onload]"):
            await expect(window.page.locator(f"body {element}")).to_have_count(0)


async def test_the_browser_itself_refuses_what_the_policy_forbids(house: House, open_window: OpenWindow) -> None:
    """An inline script does not run, text can't be made HTML, and no other host can be asked."""
    window = await open_window(house)
    window.forgive("Content Security Policy|Trusted")
    refused = await window.page.evaluate(
        """async () => {
          const refusals = [];
          addEventListener("securitypolicyviolation", (event) => refusals.push(event.effectiveDirective));
          try { document.body.innerHTML = "<p>taken</p>" } catch { refusals.push("thrown") }
          const script = document.createElement("script");
          try { script.textContent = "document.title = 'taken'" } catch { refusals.push("thrown") }
          document.head.append(script);
          await fetch("http://127.0.0.2:9/").catch(() => refusals.push("failed"));
          await new Promise((resolve) => setTimeout(resolve, 50));
          return refusals;
        }"""
    )
    window.strangers.clear()
    assert {"require-trusted-types-for", "connect-src", "failed", "thrown"} <= set(refused)
    assert await window.page.title() != "taken"
    await expect(window.page.get_by_role("navigation").get_by_role("heading", name="Chat System")).to_be_visible()


async def left_edge(window: Window, number: int) -> float:
    """Where the ink of a body begins."""
    box = await window.body(number).evaluate(RECTANGLE)
    return float(box["left"])


async def test_each_text_has_the_direction_of_its_own_first_letter(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Arabic and Hebrew stand at the right, Latin at the left, and an override ends with its message."""
    await talk.post("مرحبا، هل وصلت الطلبية رقم 1042؟", sender="يوسف")
    await talk.post("Plain Latin", sender="\u202eoverride")
    await talk.post("\u202eoverride without an end", sender="mallory")
    await talk.post("not touched by it", sender="zoé")
    window = await open_window(house, address(talk.token, 1))
    await expect(window.message(4)).to_be_in_viewport()
    assert await left_edge(window, 1) > await left_edge(window, 2) + 200
    assert await left_edge(window, 2) == await left_edge(window, 4)
    # The time stands to the right of the sender's name, whatever the name does.
    for number in (1, 2, 3, 4):
        name = await window.message(number).locator(".sender").bounding_box()
        time = await window.message(number).locator("time").bounding_box()
        assert name is not None
        assert time is not None
        assert time["x"] > name["x"] + name["width"]


async def test_metadata_is_made_text_when_it_is_looked_at(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """Not before; and of what nests deeply, which indentation makes long, the beginning is shown and it says so."""
    deep: list[object] = [1] * 1000
    for _ in range(DEPTH):
        deep = [deep]
    await talk.post("small", metadata={"order": 1042})
    await talk.post("deep", metadata={"deep": deep})
    window = await open_window(house, address(talk.token, 1))
    await expect(window.message(2)).to_be_in_viewport()
    shown = window.page.locator(".metadata pre")
    await expect(shown).to_have_count(0)
    await window.message(1).get_by_text("Metadata").click()
    await expect(window.message(1).locator("pre")).to_contain_text('"order": 1042')
    await expect(window.message(1).locator(".metadata .aside")).to_have_count(0)
    await window.message(2).get_by_text("Metadata").click()
    await expect(window.message(2).locator(".metadata .aside")).to_contain_text("The first 10,000 of ")
    assert len(await window.message(2).locator("pre").text_content() or "") == 10_000
    # Opened again, it is there once.
    for _ in range(2):
        await window.message(1).get_by_text("Metadata").click()
    await expect(window.message(1).locator("pre")).to_have_count(1)


@pytest.mark.parametrize("width", [1280, 360])
async def test_nothing_is_wider_than_the_window(house: House, open_window: OpenWindow, api: Client, width: int) -> None:
    """A word of 5,000 letters, a sender, a title and a name of 255 wide characters: nothing overflows."""
    application = await api.create_application("W" * 255)
    chat = await api.create_chat(application["token"], title="漢" * 255)
    await chat.post("a" * 5000, sender="M" * 255)
    await chat.post("漢字" * 800, sender="😀" * 255)
    await chat.post("x" * 60_000, metadata={"key": "v" * 1000})
    window = await open_window(house, address(chat.token, 1), viewport={"width": width, "height": 700})
    await expect(window.message(3)).to_be_in_viewport()
    await window.search("aaa")
    await expect(window.found).to_have_count(1)
    wide = """() => [...document.querySelectorAll("html, body, #side, #main, .scroller, .bar, .message, #search")]
      .filter((element) => element.scrollWidth > element.clientWidth + 1).map(({ id, className }) => id + className)"""
    assert await window.page.evaluate(wide) == []


async def test_the_first_run_fits_a_phone(serve: BuildHouse, open_window: OpenWindow) -> None:
    """Lines for a terminal are broken where the screen ends."""
    window = await open_window(serve(), viewport={"width": 360, "height": 700})
    await expect(window.page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    wide = """() => [...document.querySelectorAll("html, body, #main, .state, .shell, pre")]
      .filter((element) => element.scrollWidth > element.clientWidth + 1).map(({ className }) => className)"""
    assert await window.page.evaluate(wide) == []
    button = await window.page.get_by_role("button", name="Copy").bounding_box()
    assert button is not None
    assert button["x"] + button["width"] <= 360


async def test_a_long_text_is_shown_in_part_until_asked_for(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """All of it is a button away."""
    text = "\n".join(f"line {number}" for number in range(300))
    await talk.post(text)
    window = await open_window(house, address(talk.token, 1))
    await expect(window.body(1)).to_contain_text("line 29")
    await expect(window.body(1)).not_to_contain_text("line 30")
    await window.message(1).get_by_role("button", name="Show all of it").click()
    assert await window.body(1).text_content() == text


async def test_lines_spaces_and_tabs_are_kept(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """What was typed is what is read."""
    text = "two  spaces\n\n\tindented\n emoji 👩‍👩‍👧‍👦 🇫🇷"
    await talk.post(text)
    window = await open_window(house, address(talk.token, 1))
    await expect(window.message(1)).to_be_visible()
    assert await window.body(1).inner_text() == text
