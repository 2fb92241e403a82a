"""The console: a page in plain ES modules, served from this package, and the table by which it folds text.

Nothing is fetched from another host, no script stands in the page and no text becomes HTML: the policy below makes the
browser refuse all three. A file is asked for again at each visit and sent only when it has changed, so a page never
mixes the modules of two versions for longer than it takes to reload it.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import sys
from functools import cache
from pathlib import Path

import msgspec

from chat_system.errors import NotFound
from chat_system.system import ChatSystem
from chat_system.web.request import Header, Request, Response

HOME = "/console/"
_PAGE = "index.html"
_BLOCK = 256
_FOLDER = Path(__file__).parent / "console"
_FILES = frozenset(path.name for path in _FOLDER.iterdir() if path.is_file())

_HEADERS: list[Header] = [
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
            b" base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
            b" require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


async def to_console(system: ChatSystem, request: Request) -> Response:
    """The address without its slash. The way is relative, for a proxy may mount all under a prefix."""
    return Response(308, b"", b"text/plain", [(b"location", HOME.removeprefix("/").encode())])


async def page(system: ChatSystem, request: Request) -> Response:
    """The page itself."""
    return _unless_known(request, (_FOLDER / _PAGE).read_bytes(), "text/html; charset=utf-8")


async def file(system: ChatSystem, request: Request) -> Response:
    """What the page is made of."""
    name = request.parameters["file"]
    if name not in _FILES:
        raise NotFound
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    text = "; charset=utf-8" if kind.startswith("text/") else ""
    return _unless_known(request, (_FOLDER / name).read_bytes(), kind + text)


async def folding(system: ChatSystem, request: Request) -> Response:
    """What each character folds to, where that is another."""
    return _unless_known(request, await asyncio.to_thread(folding_table), "application/json")


@cache
def folding_table() -> bytes:
    """`str.casefold` of this very Python, by which a search matches: the console marks what it says has matched.

    JavaScript has no such function, and another version of Unicode in each browser.
    """
    table: dict[str, str] = {}
    for start in range(0, sys.maxunicode + 1, _BLOCK):
        block = "".join(map(chr, range(start, start + _BLOCK)))
        # Most of Unicode folds to itself, and is passed over a block at a time.
        if block.casefold() != block:
            table |= {character: folded for character in block if (folded := character.casefold()) != character}
    return msgspec.json.encode(table)


def _unless_known(request: Request, body: bytes, kind: str) -> Response:
    tag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
    headers = [*_HEADERS, (b"etag", tag)]
    if tag in request.headers.get(b"if-none-match", b""):
        return Response(304, headers=headers)
    return Response(200, body, kind.encode(), headers)
