"""Who sees what: with an admin key, with a token, with neither; and for how long it is remembered."""

from __future__ import annotations

import pytest
from playwright.async_api import Route, expect

from tests.client import Client
from tests.conftest import BuildHouse, only
from tests.console.conftest import OpenWindow
from tests.console.windows import address
from tests.houses import House

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="access is decided before a house is asked"),
]

KEY = "correct-horse-battery-staple"
REFUSED = "status of 40[134]"


@pytest.fixture
def locked(serve: BuildHouse) -> House:
    """A house with an admin key."""
    return serve(admin_key=KEY)


async def seeded(house: House) -> str:
    """The token of an application with one chat and one message."""
    async with Client(house.url, {"Authorization": f"Bearer {KEY}"}) as admin:
        token = (await admin.create_application("Behind a key"))["token"]
        await (await admin.create_chat(token, title="Quiet")).post("hello")
    return token


async def test_the_admin_key_is_asked_for_and_opens_all(locked: House, open_window: OpenWindow) -> None:
    """A wrong one is refused with a sentence, the right one shows the applications, signing out forgets it."""
    await seeded(locked)
    window = await open_window(locked)
    window.forgive(REFUSED)
    page = window.page
    await page.get_by_label("Admin key").fill("wrong")
    await page.get_by_label("Admin key").press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="opens nothing here")).to_be_visible()
    await page.get_by_label("Admin key").fill(KEY)
    await page.get_by_label("Admin key").press("Enter")
    await page.get_by_role("link", name="Behind a key").click()
    await page.get_by_role("link", name="Quiet").click()
    await expect(window.body(1)).to_have_text("hello")
    await page.reload()
    await expect(window.body(1)).to_have_text("hello")
    await window.go()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Admin key")).to_be_visible()
    assert await page.evaluate("Object.keys(sessionStorage)") == []


async def test_a_late_answer_is_not_shown_over_the_sign_in_form(locked: House, open_window: OpenWindow) -> None:
    """The list is read again while someone signs out: its answer comes afterwards."""
    await seeded(locked)
    window = await open_window(locked)
    window.forgive(REFUSED)
    page = window.page
    await page.get_by_label("Admin key").fill(KEY)
    await page.get_by_label("Admin key").press("Enter")
    await expect(page.get_by_role("link", name="Behind a key")).to_be_visible()
    held: list[Route] = []

    async def hold(route: Route) -> None:
        if "authorization" in route.request.headers:
            held.append(route)
        else:
            await route.continue_()

    await page.route("**/applications?*", hold)
    while not held:
        await page.wait_for_timeout(100)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Admin key")).to_be_visible()
    await held[0].continue_()
    await page.wait_for_timeout(1000)
    await expect(page.get_by_label("Admin key")).to_be_visible()
    await expect(page.get_by_role("link", name="Behind a key")).to_have_count(0)


async def test_signing_out_forgets_what_was_written_and_found(locked: House, open_window: OpenWindow) -> None:
    """Whoever signs in next in this tab finds no draft, no query and no result."""
    await seeded(locked)
    window = await open_window(locked)
    window.forgive(REFUSED)
    page = window.page

    async def sign_in() -> None:
        await page.get_by_label("Admin key").fill(KEY)
        await page.get_by_label("Admin key").press("Enter")
        await page.get_by_role("link", name="Behind a key").click()
        await page.get_by_role("link", name="Quiet").click()
        await window.is_live()

    await sign_in()
    await page.get_by_label("Message", exact=True).fill("a draft")
    await window.search("hello")
    await expect(window.found).to_have_count(1)
    await page.get_by_role("link", name="All applications").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Admin key")).to_be_visible()
    await expect(page.locator("#query")).to_have_value("")
    await expect(page.locator("#search .found > li")).to_have_count(0)
    await sign_in()
    await expect(page.get_by_label("Message", exact=True)).to_have_value("")


async def test_a_token_is_enough_for_its_own_chats(locked: House, open_window: OpenWindow) -> None:
    """Without the admin key; after a reload it is still known, in another tab it is not."""
    token = await seeded(locked)
    window = await open_window(locked)
    window.forgive(REFUSED)
    page = window.page
    await page.get_by_label("Application token").fill(token)
    await page.get_by_label("Application token").press("Enter")
    await page.get_by_role("link", name="Quiet").click()
    await window.is_live()
    await window.write("from the token's owner")
    await expect(window.body(2)).to_have_text("from the token's owner")
    await page.reload()
    await expect(window.body(2)).to_have_text("from the token's owner")
    stranger = await open_window(locked, address(token, 1))
    stranger.forgive(REFUSED)
    await expect(stranger.page.get_by_role("alert")).to_contain_text("Unknown here")


async def test_neither_key_nor_token_is_written_to_disk_or_address(locked: House, open_window: OpenWindow) -> None:
    """Both are in sessionStorage, and nowhere else that outlives the tab or is easily passed on."""
    token = await seeded(locked)
    window = await open_window(locked)
    window.forgive(REFUSED)
    await window.page.get_by_label("Admin key").fill(KEY)
    await window.page.get_by_label("Admin key").press("Enter")
    await window.page.get_by_role("link", name="Behind a key").click()
    await window.page.get_by_role("link", name="Quiet").click()
    await expect(window.body(1)).to_have_text("hello")
    kept = await window.page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])")
    assert token in kept
    assert await window.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert token not in window.page.url
    assert KEY not in window.page.url


async def test_a_wrong_address_says_so(house: House, open_window: OpenWindow) -> None:
    """An application that does not exist, and a chat that does not."""
    async with Client(house.url) as client:
        token = (await client.create_application())["token"]
    window = await open_window(house, address("x" * 43, 1))
    window.forgive(REFUSED)
    await expect(window.page.get_by_role("alert")).to_contain_text("Unknown here")
    await window.go(address(token, 7))
    await expect(window.page.get_by_role("alert")).to_contain_text("There is no such chat")
