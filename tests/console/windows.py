"""A window of the console, watched: what the browser complains of and what it asks other hosts for fails the test."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Locator, Page, Request, expect

from tests.houses import House

LETTERS_OF_A_TOKEN = 12
"""How much of it stands in the address."""

TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)


def address(token: str, *numbers: int) -> str:
    """The part of a console's address that says what is shown."""
    return "#/" + "/".join([token[:LETTERS_OF_A_TOKEN], *map(str, numbers)])


@dataclass
class Window:
    """One page of the console on one house."""

    page: Page
    house: House
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("request", self._on_request)
        self.page.set_default_timeout(TIMEOUT_MS)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme != "data" and not request.url.startswith(self.house.url + "/"):
            self.strangers.append(request.url)

    def forgive(self, pattern: str) -> None:
        """Let complaints that match pass: the test makes the server refuse, and the browser says so."""
        self.forgiven.append(pattern)

    def check(self) -> None:
        """Fail on complaints that were not forgiven, and on any request to another host."""
        wrong = [one for one in self.complaints if not any(re.search(pattern, one) for pattern in self.forgiven)]
        assert not wrong, wrong
        assert self.strangers == []

    async def go(self, place: str = "") -> None:
        """Open the console at a place, as a bookmark would."""
        await self.page.goto(f"{self.house.url}/console/{place}")

    # What is on it

    def message(self, number: int) -> Locator:
        """The row of a message that the server has acknowledged."""
        return self.page.locator(f'[role="feed"] [aria-posinset="{number}"]')

    def body(self, number: int) -> Locator:
        """The text of a message."""
        return self.message(number).locator(".body")

    @property
    def sending(self) -> Locator:
        """Messages that are on their way."""
        return self.page.locator(".sending > li")

    @property
    def connection(self) -> Locator:
        """What the window says of its connection."""
        return self.page.locator(".connection")

    @property
    def found(self) -> Locator:
        """What a search has found."""
        return self.page.get_by_label("Messages found").get_by_role("listitem")

    # What people do

    async def is_live(self) -> None:
        """Wait until the stream is open."""
        await expect(self.connection).to_have_attribute("data-phase", "live")

    async def write(self, body: str, sender: str | None = None) -> None:
        """Write a message and send it."""
        if sender is not None:
            await self.page.get_by_label("Sender", exact=True).fill(sender)
        await self.page.get_by_label("Message", exact=True).fill(body)
        await self.page.get_by_role("button", name="Send").click()

    async def act(self, number: int, action: str) -> None:
        """Use a button of a message's row."""
        await self.message(number).hover()
        await self.message(number).get_by_role("button", name=action).click()

    async def edit(self, number: int, body: str) -> None:
        """Edit a message."""
        await self.act(number, "Edit")
        await self.page.get_by_label("Message", exact=True).fill(body)
        await self.page.get_by_role("button", name="Save").click()

    async def delete(self, number: int) -> None:
        """Delete a message, and mean it."""
        await self.act(number, "Delete")
        await self.page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    async def search(self, query: str, *, everywhere: bool = False) -> None:
        """Open the search and type."""
        name = "Search all chats" if everywhere else "Search (press /)"
        await self.page.get_by_role("button", name=name).click()
        await self.page.get_by_label("Search messages").fill("")
        await self.page.get_by_label("Search messages").press_sequentially(query)

    async def scroll_to(self, share: float) -> None:
        """Put the scroll bar somewhere between 0 (top) and 1 (bottom)."""
        await self.page.locator(".scroller").evaluate(
            "(scroller, share) => { scroller.scrollTop = share * (scroller.scrollHeight - scroller.clientHeight) }",
            share,
        )
