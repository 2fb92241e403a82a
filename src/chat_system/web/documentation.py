"""The pages: the index, the console, the OpenAPI document and Swagger UI, whose files come from a package of their own.

Nothing is fetched from another host, and a strict Content-Security-Policy holds the page to that.
"""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import Path

import msgspec
from swagger_ui_bundle import swagger_ui_path

from chat_system.errors import NotFound
from chat_system.system import ChatSystem
from chat_system.web import console, openapi
from chat_system.web.request import Header, Request, Response
from chat_system.web.routes import OPERATIONS, Operation

_OWN = Path(__file__).parent / "swagger"
_FILES = {
    "index.html": _OWN,
    "start.js": _OWN,
    "swagger-ui.css": Path(swagger_ui_path),
    "swagger-ui-bundle.js": Path(swagger_ui_path),
    "favicon-32x32.png": Path(swagger_ui_path),
}

# Swagger UI sets style attributes and embeds its icons as data.
_POLICY: list[Header] = [
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
            b" font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

INDEX = {
    "name": "Chat System",
    "console": console.HOME,
    "documentation": "/swagger/index.html",
    "openapi": "/openapi.json",
    "applications": "/applications",
    "health": "/health/ready",
    "metrics": "/metrics",
}


async def index(system: ChatSystem, request: Request) -> Response:
    """Links for programs; browsers go to the console."""
    if b"text/html" in request.headers.get(b"accept", b""):
        return Response(307, b"", b"text/plain", [(b"location", console.HOME.removeprefix("/").encode())])
    return Response(200, msgspec.json.encode(INDEX))


async def document(system: ChatSystem, request: Request) -> Response:
    """The OpenAPI document."""
    return Response(200, encoded_document())


async def swagger(system: ChatSystem, request: Request) -> Response:
    """Swagger UI's page and its files."""
    name = request.parameters["file"]
    folder = _FILES.get(name)
    if folder is None:
        raise NotFound
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(200, (folder / name).read_bytes(), kind.encode(), _POLICY)


@cache
def encoded_document() -> bytes:
    """The document as it is sent, made when it is first asked for."""
    return msgspec.json.encode(openapi.document(OPERATIONS))


def _page(name: str, path: str, summary: str, handler: object) -> Operation:
    return Operation(name, "GET", path, "public", summary, "", "Documentation", handler)  # type: ignore[arg-type]


PAGES = (
    _page("index", "/", "What is here", index),
    _page("consoleAddress", "/console", "The console", console.to_console),
    _page("console", console.HOME, "The console", console.page),
    _page("consoleFolding", "/console/folding.json", "How the search folds letters", console.folding),
    _page("consoleFile", "/console/{file}", "What the console is made of", console.file),
    _page("document", "/openapi.json", "The OpenAPI document", document),
    _page("swaggerDocument", "/swagger/doc.json", "The OpenAPI document", document),
    _page("swagger", "/swagger/{file}", "Swagger UI", swagger),
)
"""Served like operations, but no part of the contract that the document describes."""
