"""Fixtures of the console's tests: one browser for all of a process's tests, a fresh profile for each window.

    browser      session   headless Chromium
    open_window  function  await open_window(house, "#/…", **options of the profile) opens a Window (windows.py);
                           at the end its complaints and its requests to other hosts fail the test
    window       function  a window on `house`, nothing opened yet
    api          function  a Client of `house`, on the loop of these tests
    talk         function  a ChatAt: a fresh chat of a fresh application

All run on one event loop for the whole session, the browser's, so the function-scoped clients of the other suites are
of no use here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.client import ChatAt, Client
from tests.console.chromium import arguments, executable
from tests.console.windows import Window
from tests.houses import House

OpenWindow = Callable[..., Awaitable[Window]]

DESK = {"width": 1280, "height": 800}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Headless Chromium of this process."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=executable(), args=arguments())
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_window(browser: Browser) -> AsyncIterator[OpenWindow]:
    """Opens windows, each with a profile of its own; all are checked at the end."""
    opened: list[Window] = []

    async def open_one(house: House, place: str = "", **options: Any) -> Window:
        context = await browser.new_context(**{"viewport": DESK, "locale": "en-GB", "timezone_id": "UTC"} | options)
        opened.append(Window(await context.new_page(), house))
        await opened[-1].go(place)
        return opened[-1]

    yield open_one
    for one in opened:
        await one.page.context.close()
    for one in opened:
        one.check()


@pytest_asyncio.fixture(loop_scope="session")
async def api(house: House) -> AsyncIterator[Client]:
    """A client of the shared house."""
    async with Client(house.url) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def talk(api: Client) -> ChatAt:
    """A fresh chat in a fresh application."""
    return await api.create_chat((await api.create_application("Support desk"))["token"], title="Orders")
