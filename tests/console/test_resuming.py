"""The stream of events: its state is seen, it is resumed without loss, and a refusal is told from a broken line."""

from __future__ import annotations

import pytest
from playwright.async_api import Route, expect

from tests.client import ChatAt, Client
from tests.conftest import BuildHouse, only
from tests.console.conftest import OpenWindow
from tests.console.windows import address
from tests.houses import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
in_one_house = only("embedded", because="the page can't tell by whom it is refused")

BROKEN = "ERR_"


async def test_a_window_goes_on_where_it_was_after_the_server_was_killed(
    serve: BuildHouse, open_window: OpenWindow
) -> None:
    """New messages, edits and deletions made before the window is back are all there, each once."""
    house = serve()
    async with Client(house.url) as client:
        chat = await client.create_chat((await client.create_application())["token"])
        await chat.post_batch("one", "two", "three")
        window = await open_window(house, address(chat.token, 1))
        await window.is_live()
        await chat.post("four")
        await expect(window.body(4)).to_have_text("four")
        window.forgive(BROKEN)
        window.forgive("status of 503")
        # The window tries again on its own; it is kept off so that all of this happens without it.
        await window.page.route("**/events*", lambda route: route.abort())
        house.kill()
        await expect(window.connection).to_contain_text("Disconnected")
        house.start()
    async with Client(house.url) as client:
        chat = ChatAt(client, chat.token, 1)
        await chat.post("five")
        await chat.edit(2, body="two, edited")
        await chat.delete(1)
        await expect(window.connection).to_contain_text("Disconnected")
        await expect(window.body(2)).to_have_text("two")
        asked: list[str | None] = []

        async def let_through(route: Route) -> None:
            asked.append(route.request.headers.get("last-event-id"))
            await route.continue_()

        # Of two routes the later one counts. The machine says that it is online again: no waiting for the next try.
        await window.page.route("**/events*", let_through)
        await window.page.evaluate("dispatchEvent(new Event('online'))")
        await window.is_live()
        await expect(window.body(5)).to_have_text("five")
        await expect(window.body(2)).to_have_text("two, edited")
        await expect(window.body(1)).to_have_text("deleted")
        await chat.post("six")
        await expect(window.body(6)).to_have_text("six")
        await expect(window.page.locator('[role="feed"] > *')).to_have_count(6)
        # It had seen the fourth change come in.
        assert asked[0] == "4"


@in_one_house
async def test_a_message_sent_while_the_server_is_away_is_sent_when_it_is_back(
    serve: BuildHouse, open_window: OpenWindow
) -> None:
    """It stays in sight with the reason, and its retry succeeds."""
    house = serve()
    async with Client(house.url) as client:
        chat = await client.create_chat((await client.create_application())["token"])
    window = await open_window(house, address(chat.token, 1))
    await window.is_live()
    window.forgive(BROKEN)
    window.forgive("status of 503")
    house.kill()
    await window.write("Are you there?")
    await expect(window.sending.get_by_role("alert")).to_contain_text("The server does not answer.")
    house.start()
    await window.is_live()
    await window.sending.get_by_role("button", name="Try again").click()
    await expect(window.body(1)).to_have_text("Are you there?")


async def test_a_chat_whose_application_is_erased_is_gone(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """The window does not call it a broken connection, and does not try for ever."""
    await talk.post("soon gone")
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    window.forgive("status of 404")
    await talk.client.erase_application(talk.token)
    await expect(window.connection).to_contain_text("Ended")
    await expect(window.page.get_by_role("alert")).to_contain_text("This chat is gone")


@in_one_house
async def test_a_stream_that_is_refused_for_a_while_is_asked_for_again(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """503 is waited out; the reader may have it tried at once."""
    window = await open_window(house)
    window.forgive("status of 503")
    refusals = 0

    async def refuse(route: Route) -> None:
        nonlocal refusals
        refusals += 1
        headers = {"Retry-After": "600", "Content-Type": "application/problem+json"}
        await route.fulfill(status=503, headers=headers, body='{"code": "unavailable", "detail": "Redis is away."}')

    await window.page.route("**/events*", refuse)
    await window.go(address(talk.token, 1))
    await expect(window.connection).to_contain_text("Disconnected")
    await expect(window.connection).to_have_attribute("title", "Redis is away.")
    await window.page.unroute("**/events*")
    assert refusals == 1
    await window.connection.get_by_role("button", name="Now").click()
    await window.is_live()


@in_one_house
@pytest.mark.parametrize("what", ["time", "network"])
async def test_a_stream_of_which_not_even_the_head_comes_is_given_up(
    house: House, open_window: OpenWindow, talk: ChatAt, what: str
) -> None:
    """After a while of silence, or at once when the machine says that it is online again."""
    window = await open_window(house)
    await window.page.clock.install()
    asked = 0

    async def swallow(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await route.continue_()

    await window.page.route("**/events*", swallow)
    await window.go(address(talk.token, 1))
    await expect(window.connection).to_contain_text("Connecting")
    while not asked:
        await window.page.wait_for_timeout(10)
    if what == "time":
        await window.page.clock.run_for(42_000)
    else:
        await window.page.evaluate("dispatchEvent(new Event('online'))")
    await window.is_live()
    assert asked == 2


@in_one_house
async def test_a_tab_that_no_one_sees_holds_no_connection(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """Its stream is closed; when it is seen again, what it missed is there."""
    window = await open_window(house, address(talk.token, 1))
    await window.is_live()
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await window.page.evaluate(hide, True)
    await expect(window.connection).to_contain_text("Paused")
    await talk.post("while no one looked")
    await expect(window.message(1)).to_have_count(0)
    await window.page.evaluate(hide, False)
    await window.is_live()
    await expect(window.body(1)).to_have_text("while no one looked")


@in_one_house
async def test_a_page_that_was_read_before_a_change_does_not_undo_it(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """A page under way is overtaken by the stream: what is newer stays."""
    await talk.post("old")
    window = await open_window(house)
    held: list[tuple[Route, bytes]] = []

    async def hold(route: Route) -> None:
        response = await route.fetch()
        held.append((route, await response.body()))

    await window.page.route("**/messages?order=desc*", hold)
    await window.go(address(talk.token, 1))
    await window.is_live()
    while not held:
        await window.page.wait_for_timeout(10)
    async with talk.follow(after=1) as stream:
        await talk.edit(1, body="new")
        await stream.next_event()
    # The window has its event now, too; were it slower, it would come after the page and hide what is tested.
    await window.page.wait_for_timeout(300)
    route, page = held[0]
    await route.fulfill(status=200, content_type="application/json", body=page)
    await expect(window.body(1)).to_have_text("new")
