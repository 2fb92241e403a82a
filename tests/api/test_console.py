"""How the console is served: from the package alone, under a policy that allows nothing else, and never stale."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from urllib.parse import urljoin

import pytest

from tests.api.problems import expect_not_found
from tests.client import Client, expect
from tests.houses import House
from tests.raw_http import exchange

PAGE = "/console/"
FILES = sorted(path.name for path in files("chat_system.web").joinpath("console").iterdir())
KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}
SOURCES = re.compile(r"""(?:src|href)="([^"#]+)"|from "([^"]+)";|url\(('[^']*)""")


def policy(text: str) -> dict[str, list[str]]:
    """A Content-Security-Policy by its directives."""
    return {name: sources for name, *sources in (part.split() for part in text.split(";"))}


async def test_a_browser_is_led_to_the_console(client: Client) -> None:
    """From `/`, and from the address without its slash; by a relative address, which a proxy's prefix is part of."""
    for path, headers in (("/", {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}), ("/console", {})):
        response = await client.get(path, headers=headers)
        assert response.is_redirect
        location = response.headers["location"]
        assert urljoin(f"https://proxy.example/chat{path}", location) == f"https://proxy.example/chat{PAGE}"


async def test_a_program_is_given_an_index_of_links(client: Client) -> None:
    """Each leads somewhere."""
    index = await client.get_json("/")
    assert index["console"] == PAGE
    for name, path in index.items():
        if name != "name":
            expect(await client.get(path), 200)


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_as_what_it_is(client: Client, name: str) -> None:
    """With its type, which no browser guesses at."""
    response = expect(await client.get(PAGE + name), 200)
    assert response.headers["content-type"].split(";")[0] == KINDS[name.rpartition(".")[2]]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.text == files("chat_system.web").joinpath("console", name).read_text("utf-8")
    head = expect(await client.request("HEAD", PAGE + name), 200)
    assert head.headers["etag"] == response.headers["etag"]
    assert head.content == b""


async def test_nothing_but_the_console_is_served(house: House) -> None:
    """No path leads out of its folder."""
    for name in ("nothing.js", "%2e%2e", "..%2fconsole.py", "%2e%2e%2fconsole.py", "index.html/", "/main.js", "/"):
        expect_not_found(await exchange(house, "GET", PAGE + name))


async def test_the_page_asks_for_nothing_that_is_not_served_here(client: Client) -> None:
    """Every script, style, image and module that it or its parts name is one of its own files."""
    waiting, asked = {"index.html"}, set()
    while waiting:
        name = waiting.pop()
        asked.add(name)
        text = (await client.get(PAGE + name)).text
        named = {next(filter(None, found)) for found in SOURCES.findall(text)}
        named = {one for one in named if not one.startswith(("'data:", "../swagger"))}
        assert {one.removeprefix("./") for one in named} <= set(FILES), name
        waiting |= {one.removeprefix("./") for one in named} - asked
    assert asked == set(FILES) - {"types.js"}, "a file that no other asks for"


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}main.js", f"{PAGE}folding.json"])
async def test_the_policy_allows_nothing_from_elsewhere_and_no_script_in_the_page(client: Client, path: str) -> None:
    """Not inline, not from strings, not from other hosts; no frame, no form that leaves; no text made HTML."""
    response = expect(await client.get(path), 200)
    directives = policy(response.headers["content-security-policy"])
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == ["'self'"]
    for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert directives[name] == ["'none'"]
    assert directives["require-trusted-types-for"] == ["'script'"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}main.js", f"{PAGE}theme.css", f"{PAGE}folding.json"])
async def test_a_file_is_sent_again_only_when_it_has_changed(client: Client, path: str) -> None:
    """It may be kept but not used unasked; the answer to the question is 304 without a body."""
    first = expect(await client.get(path), 200)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    again = expect(await client.get(path, headers={"If-None-Match": f'"other", {tag}'}), 304)
    assert again.content == b""
    assert again.headers["etag"] == tag
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert again.headers.get("content-length") in (None, first.headers["content-length"])
    expect(await client.get(path, headers={"If-None-Match": '"other"'}), 200)


async def test_the_table_of_folding_is_that_of_the_search(client: Client) -> None:
    """Every character that casefold changes, and no other."""
    table = await client.get_json(f"{PAGE}folding.json")
    assert table["ß"] == "ss"
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    assert table == {character: character.casefold() for character in characters if character.casefold() != character}
    assert max(table) < "\U00020000"
