"""Takes the pictures of the README: `make screenshots`.

A house of its own holds the talks of examples/ that have names; the console shows them at the size of a desk, light
and dark, and at that of a phone. What is seen is real: nothing is drawn.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, async_playwright, expect

from tests.client import Client
from tests.console.chromium import arguments, executable
from tests.console.windows import Window, address
from tests.houses import EmbeddedHouse, House

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "chat-sample.ndjson.gz"
IMAGES = ROOT / "docs" / "images"
SHOWN = ("ubuntu/", "haskell-jp/")
APPLICATION = "Examples"
DESK = {"width": 1200, "height": 740}
PHONE = {"width": 375, "height": 740}
SEARCHED = "WIFI"


def fill(house: EmbeddedHouse) -> str:
    """Import what is shown; the token of its application."""
    with gzip.open(EXAMPLES, "rt", encoding="utf-8") as lines:
        shown = [line for line in lines if json.loads(line)["chat"].startswith(SHOWN)]
    house.folder.joinpath("shown.ndjson").write_text("".join(shown), "utf-8")
    printed = subprocess.run(
        [sys.executable, "-m", "chat_system", "import", "shown.ndjson", "--name", APPLICATION],
        env=house.environment(),
        cwd=house.folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return printed.stdout.strip()


async def open_window(browser: Browser, house: House, place: str, **options: Any) -> Window:
    """A window with a profile of its own; pictures are to be the same wherever they are taken."""
    context = await browser.new_context(locale="en-GB", timezone_id="UTC", reduced_motion="reduce", **options)
    window = Window(await context.new_page(), house)
    await window.go(place)
    await window.is_live()
    return window


async def take(window: Window, name: str) -> None:
    """Save what the window shows."""
    window.check()
    path = IMAGES / f"{name}.png"
    await window.page.screenshot(path=path)
    await window.page.context.close()
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB\n")


async def on_a_desk(browser: Browser, house: House, token: str, scheme: Literal["light", "dark"]) -> None:
    """A chat with a search beside it, gone to what it has found."""
    window = await open_window(browser, house, address(token, 1), viewport=DESK, color_scheme=scheme)
    await window.search(SEARCHED)
    await window.found.nth(1).get_by_role("link").click()
    await expect(window.page.locator(".target mark").first).to_be_visible()
    await take(window, f"console-{scheme}")


async def on_a_phone(browser: Browser, house: House, token: str) -> None:
    """A chat in another script."""
    async with Client(house.url) as client:
        chats = await client.list_chats(token, limit=50)
    number = next(chat["number"] for chat in chats if chat["title"] == "haskell-jp/nix")
    window = await open_window(
        browser, house, address(token, number), viewport=PHONE, color_scheme="light", has_touch=True, is_mobile=True
    )
    await expect(window.page.get_by_role("article").last).to_be_visible()
    await take(window, "console-phone")


async def main() -> None:
    """Take them all."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        house = EmbeddedHouse(Path(folder))
        token = fill(house)
        house.start()
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=executable(), args=arguments())
                await on_a_desk(browser, house, token, "light")
                await on_a_desk(browser, house, token, "dark")
                await on_a_phone(browser, house, token)
        finally:
            house.discard()


if __name__ == "__main__":
    asyncio.run(main())
