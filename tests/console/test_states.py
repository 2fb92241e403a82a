"""What is shown where there is nothing to show: nothing yet, not yet, not at all; and how the server is."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import PIPE

import pytest
from playwright.async_api import Request, Route, expect

from tests.client import ChatAt, Client
from tests.conftest import BuildHouse, only
from tests.console.conftest import OpenWindow
from tests.console.windows import address
from tests.houses import House, StackHouse

pytestmark = pytest.mark.asyncio(loop_scope="session")
in_one_house = only("embedded", because="the page shows what it is answered")

SHELL_TIMEOUT_S = 30


@in_one_house
async def test_the_first_run_shows_two_lines_that_work(serve: BuildHouse, open_window: OpenWindow) -> None:
    """Run in a shell as they stand there, they make an application and a chat, which appear by themselves."""
    if shutil.which("curl") is None or shutil.which("python3") is None:
        pytest.skip("this machine has no curl or no python3")
    window = await open_window(serve())
    shell = window.page.get_by_role("region", name="Lines for a terminal")
    lines = await shell.inner_text()
    assert len(lines.splitlines()) == 2
    process = await asyncio.create_subprocess_exec("bash", "-euc", lines, stdout=PIPE, stderr=PIPE)
    said = await asyncio.wait_for(process.communicate(), SHELL_TIMEOUT_S)
    assert process.returncode == 0, said
    await window.page.get_by_role("link", name="My first application").click()
    await window.page.get_by_role("link", name="Lobby").click()
    await expect(window.page.get_by_role("heading", name="No message yet")).to_be_visible()
    lines = await shell.inner_text()
    process = await asyncio.create_subprocess_exec("bash", "-euc", lines, stdout=PIPE, stderr=PIPE)
    await asyncio.wait_for(process.communicate(), SHELL_TIMEOUT_S)
    await expect(window.body(1)).to_have_text("Hello")
    await expect(window.page.get_by_role("heading", name="No message yet")).to_be_hidden()


@in_one_house
async def test_a_page_under_way_says_so_and_one_that_failed_is_tried_again(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Loading, then the reason with a button, then the messages."""
    await talk.post("here at last")
    window = await open_window(house)
    window.forgive("status of 503")
    go_on = asyncio.Event()

    async def refuse(route: Route) -> None:
        await go_on.wait()
        await route.fulfill(status=503, json={"code": "unavailable", "detail": "MySQL is away."})

    await window.page.route("**/chats/1", refuse)
    await window.go(address(talk.token, 1))
    await expect(window.page.get_by_text("Loading messages")).to_be_visible()
    go_on.set()
    alert = window.page.get_by_role("alert").filter(has_text="MySQL is away.")
    await expect(alert).to_be_visible()
    await window.page.unroute("**/chats/1")
    await alert.get_by_role("button", name="Try again").click()
    await expect(window.body(1)).to_have_text("here at last")


@in_one_house
async def test_older_messages_that_could_not_be_read_are_read_when_asked_again(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """A page that fails while scrolling leaves the others where they are."""
    await talk.post_batch(*[f"message {number}" for number in range(1, 301)])
    window = await open_window(house, address(talk.token, 1))
    window.forgive("ERR_FAILED")
    await expect(window.message(300)).to_be_in_viewport()
    await window.page.route("**/messages?before=*", lambda route: route.abort())
    await window.message(201).scroll_into_view_if_needed()
    alert = window.page.get_by_role("alert").filter(has_text="could not be loaded")
    await expect(alert).to_be_visible()
    await expect(window.message(300)).to_be_attached()
    await window.page.unroute("**/messages?before=*")
    await alert.get_by_role("button", name="Try again").click()
    await expect(alert).to_be_hidden()
    await window.scroll_to(0)
    await expect(window.message(1)).to_be_in_viewport()


@in_one_house
async def test_lists_follow_what_others_do(house: House, open_window: OpenWindow, talk: ChatAt) -> None:
    """A chat that another made, and the count of one, without a reload."""
    window = await open_window(house, address(talk.token))
    await expect(window.page.get_by_role("link", name="Orders")).to_be_visible()
    await talk.client.create_chat(talk.token, title="A later one")
    await talk.post_batch("one", "two")
    await expect(window.page.get_by_role("link", name="A later one")).to_be_visible()
    await expect(window.page.get_by_role("link", name="Orders 2 messages")).to_be_visible()


@in_one_house
async def test_long_lists_are_paged(serve: BuildHouse, open_window: OpenWindow) -> None:
    """220 chats, newest first, the oldest by scrolling; as many applications, to the last."""
    house = serve()
    async with Client(house.url) as client:
        token = (await client.create_application("The first"))["token"]
        for number in range(1, 221):
            await client.create_chat(token, title=f"chat number {number}")
            await client.create_application(f"application number {number}")
    window = await open_window(house, address(token))
    items = window.page.get_by_role("navigation").get_by_role("listitem")
    await expect(items.first).to_contain_text("chat number 220")
    for count in (100, 200, 220):
        await expect(items).to_have_count(count)
        await items.last.scroll_into_view_if_needed()
    await expect(items.last).to_contain_text("chat number 1")
    # From the top: at the end of one list, more of the next would be fetched at once.
    await items.first.scroll_into_view_if_needed()
    await window.page.get_by_role("link", name="All applications").click()
    for count in (100, 200, 221):
        await expect(items).to_have_count(count)
        await items.last.scroll_into_view_if_needed()
    await expect(items.last).to_contain_text("application number 220")


@in_one_house
async def test_a_page_of_a_list_that_fails_is_asked_for_again_only_by_the_reader(
    serve: BuildHouse, open_window: OpenWindow
) -> None:
    """One request, however long its end is in sight; "Try again" reads that page, also of a list of many pages."""
    house = serve()
    async with Client(house.url) as client:
        token = (await client.create_application())["token"]
        for number in range(1, 511):
            await client.create_chat(token, title=f"chat number {number}")
    window = await open_window(house, address(token))
    window.forgive("status of 429")
    items = window.page.get_by_role("navigation").get_by_role("listitem")
    for count in (100, 200, 300, 400):
        await expect(items).to_have_count(count)
        if count < 400:
            await items.last.scroll_into_view_if_needed()
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        headers = {"Retry-After": "600", "Content-Type": "application/problem+json"}
        await route.fulfill(status=429, headers=headers, body='{"code": "too_many", "detail": "Slower."}')

    await window.page.route("**/chats?*", refuse)
    await items.last.scroll_into_view_if_needed()
    alert = window.page.get_by_role("alert").filter(has_text="Slower.")
    await alert.get_by_role("button", name="Try again").scroll_into_view_if_needed()
    await window.page.wait_for_timeout(1000)
    assert len(asked) == 1
    await window.page.unroute("**/chats?*")
    await alert.get_by_role("button", name="Try again").click()
    await expect(items).to_have_count(500)
    await expect(alert).to_be_hidden()


@in_one_house
async def test_a_list_is_not_refreshed_while_the_server_asks_to_be_left_alone(
    house: House, open_window: OpenWindow, talk: ChatAt
) -> None:
    """Retry-After outlasts the pause between two refreshes."""
    window = await open_window(house)
    window.forgive("status of 429")
    await window.page.clock.install()
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        headers = {"Retry-After": "60", "Content-Type": "application/problem+json"}
        await route.fulfill(status=429, headers=headers, body='{"code": "too_many", "detail": "Slower."}')

    await window.page.route("**/chats?*", refuse)
    await window.go(address(talk.token))
    await expect(window.page.get_by_role("alert").filter(has_text="Slower.")).to_be_visible()
    await window.page.clock.run_for(50_000)
    assert len(asked) == 1
    await window.page.unroute("**/chats?*")
    await window.page.clock.run_for(20_000)
    await expect(window.page.get_by_role("link", name="Orders")).to_be_visible()


@only("stack", because="embedded mode applies what it accepts at once")
async def test_backlog_and_lag_are_seen_while_the_worker_is_away(serve: BuildHouse, open_window: OpenWindow) -> None:
    """What waits is counted, and goes when the worker is back; the messages are there all the time."""
    house = serve()
    assert isinstance(house, StackHouse)
    async with Client(house.url) as client:
        chat = await client.create_chat((await client.create_application())["token"])
        house.kill_worker()
        await chat.post_batch(*[f"message {number}" for number in range(30)])
    window = await open_window(house, address(chat.token, 1))
    server = window.page.get_by_role("region", name="The server")
    await expect(server).to_contain_text("Ready")
    store = server.get_by_role("row", name="Store")
    await expect(store.get_by_role("cell").first).not_to_have_text("0")
    await expect(window.body(30)).to_have_text("message 29")
    house.start_worker()
    await expect(store.get_by_role("cell").first).to_have_text("0", timeout=30_000)
    await expect(store).to_contain_text("0.0 s")


@in_one_house
async def test_a_server_that_does_not_answer_is_seen(serve: BuildHouse, open_window: OpenWindow) -> None:
    """At the foot of the list, until it is back."""
    house = serve()
    window = await open_window(house)
    window.forgive("ERR_")
    server = window.page.get_by_role("region", name="The server")
    await expect(server).to_contain_text("Ready")
    house.kill()
    await expect(server).to_contain_text("No answer")
    house.start()
    await expect(server).to_contain_text("Ready")


@in_one_house
async def test_a_server_that_hangs_is_asked_by_one_request_at_a_time(house: House, open_window: OpenWindow) -> None:
    """However long it hangs; it is seen soon, and so is its return."""
    window = await open_window(house)
    window.forgive("ERR_")
    under_way: set[Request] = set()
    most = 0

    def begin(request: Request) -> None:
        nonlocal most
        if request.url.endswith("/health/ready"):
            under_way.add(request)
            most = max(most, len(under_way))

    def end(request: Request) -> None:
        under_way.discard(request)

    def hang(_route: Route) -> None:
        pass

    window.page.on("request", begin)
    window.page.on("requestfailed", end)
    window.page.on("requestfinished", end)
    await window.page.route("**/health/ready", hang)
    await window.go()
    server = window.page.get_by_role("region", name="The server")
    await expect(server).to_contain_text("No answer", timeout=8_000)
    await window.page.wait_for_timeout(12_000)
    assert most == 1
    await window.page.unroute("**/health/ready")
    await expect(server).to_contain_text("Ready")
